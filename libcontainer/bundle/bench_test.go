package bundle

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestMain also is the fresh process of BenchmarkFirstParse: it parses once and
// prints how long that took, in ns.
func TestMain(m *testing.M) {
	how := os.Getenv("BUNDLE_FIRST_PARSE")
	if how == "" {
		os.Exit(m.Run())
	}
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	start := time.Now()
	switch how {
	case "parse":
		_, _, err = Parse("config.json", data)
	case "reflect":
		err = json.Unmarshal(data, new(specs.Spec))
	}
	fmt.Print(time.Since(start).Nanoseconds())
	if err != nil {
		panic(err)
	}
}

func defaultConfig(tb testing.TB) []byte {
	tb.Helper()
	data, err := json.Marshal(Default(true), jsontext.WithIndent("\t"))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// BenchmarkFirstParse is the first Parse of a process, what a command pays; and
// the decoding alone by reflection, for comparison.
func BenchmarkFirstParse(b *testing.B) {
	file := b.TempDir() + "/config.json"
	if err := os.WriteFile(file, defaultConfig(b), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, how := range []string{"parse", "reflect"} {
		b.Run(how, func(b *testing.B) {
			var sum, least int64
			for b.Loop() {
				cmd := exec.Command(os.Args[0], file)
				cmd.Env = append(os.Environ(), "BUNDLE_FIRST_PARSE="+how)
				out, err := cmd.Output()
				if err != nil {
					b.Fatal(err)
				}
				n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
				if err != nil {
					b.Fatal(err)
				}
				sum += n
				if least == 0 || n < least {
					least = n
				}
			}
			b.ReportMetric(float64(sum)/float64(b.N)/1000, "µs/first")
			b.ReportMetric(float64(least)/1000, "µs/least")
		})
	}
}

func BenchmarkParse(b *testing.B) {
	data := defaultConfig(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Parse("config.json", data); err != nil {
			b.Fatal(err)
		}
	}
}
