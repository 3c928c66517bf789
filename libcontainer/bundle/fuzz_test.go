package bundle

import (
	"errors"
	"strings"
	"testing"
)

// FuzzParse: any bytes give a specification that Validate agrees with, or
// Problems; never a panic.
func FuzzParse(f *testing.F) {
	config := defaultConfig(f)
	f.Add([]byte(full))
	f.Add([]byte(minimal))
	f.Add(config)
	f.Add(config[:len(config)/2])
	f.Add([]byte(strings.Repeat(`{"linux":`, 70)))
	f.Add(patch(f, config, `/linux/sysctl {"net/a":"1","net.a":"1"}`, `/mounts/- {"destination":"../x","options":["bind","idmap"]}`))
	f.Add([]byte("{\"root\":{\"path\":\"\xff\"}}"))
	f.Add([]byte(`{"process":{"user":{"uid":1e3},"args":null,"args":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, _, err := Parse("config.json", data)
		if err != nil {
			if p, ok := errors.AsType[Problems](err); !ok || len(p) == 0 || err.Error() == "" || spec != nil {
				t.Fatalf("%T %v", err, err)
			}
		} else if _, err := Validate(spec); err != nil {
			t.Fatalf("accepted, but then %v", err)
		}
		_, _, _ = ParseProcess("process", data)
		_, _, _ = ParseResources("resources", data)
	})
}
