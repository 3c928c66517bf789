package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// grep returns what follows a name in a file of /proc.
func grep(t *testing.T, file, name string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// disk is the number of the disk that holds a directory.
func disk(t *testing.T, dir string) (major, minor int64) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	major, minor = int64(unix.Major(st.Dev)), int64(unix.Minor(st.Dev))
	sys := fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)
	if _, err := os.Stat(sys); err != nil || major == 0 {
		t.Skipf("%s is not on a disk", dir)
	}
	if _, err := os.Stat(sys + "/partition"); err == nil {
		t.Skipf("%s is on a partition, which has no limit of its own", dir)
	}
	return major, minor
}

// Reading past the page cache takes as long as the limit says.
func TestBlockIOThrottle(t *testing.T) {
	t.Parallel()
	needs(t, "io")
	major, minor := disk(t, work)
	rate := specs.LinuxThrottleDevice{Rate: 1 << 20}
	rate.Major, rate.Minor = major, minor
	b := newBox(t, args("sleep", "600"), limits(func(r *specs.LinuxResources) {
		r.BlockIO = &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{rate}}
	}))
	b.file("data", strings.Repeat("x", 1<<20))
	unix.Sync() // delayed allocation would give the reader zeros without a disk
	b.launch()
	read := func() int {
		t.Helper()
		r := b.program("/probe", "direct", "/data")
		ms, err := strconv.Atoi(strings.TrimSpace(r.out))
		if r.code != 0 || err != nil {
			t.Fatal(r)
		}
		return ms
	}
	if ms := read(); ms < 700 {
		t.Errorf("1 MB at 1 MB a second took %d ms", ms)
	}
	r := b.feed(fmt.Sprintf(`{"blockIO":{"throttleReadBpsDevice":[{"major":%d,"minor":%d,"rate":1073741824}]}}`, major, minor), "update", "-r", "-", b.id)
	if r.code != 0 {
		t.Fatal(r)
	}
	if ms := read(); ms > 600 {
		t.Errorf("1 MB at 1 GB a second took %d ms", ms)
	}
}

// slowDisk is a disk of the kernel's own making, on which one request takes 10 ms and no two go
// at a time, shared out by the scheduler that knows weights.
func slowDisk(t *testing.T) (major, minor int64) {
	t.Helper()
	if !strings.HasPrefix(lane, "vm") {
		t.Skip("loads modules into the kernel, which only the vm lane's is there for")
	}
	for _, module := range [][]string{{"bfq"}, {"null_blk", "nr_devices=1", "queue_mode=2", "irqmode=2", "completion_nsec=10000000", "hw_queue_depth=1", "submit_queues=1", "gb=1"}} {
		if r := newProcess(t, append([]string{"modprobe"}, module...)...).start().end(); r.code != 0 {
			t.Fatal(r)
		}
	}
	t.Cleanup(func() { newProcess(t, "modprobe", "-r", "null_blk").start().end() })
	const queue = "/sys/block/nullb0/queue/"
	for _, f := range [][2]string{{"scheduler", "bfq"}, {"iosched/low_latency", "0"}, {"iosched/strict_guarantees", "1"}} {
		if err := os.WriteFile(queue+f[0], []byte(f[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("/sys/block/nullb0/dev")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(text), "%d:%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major, minor
}

// Of two that read as fast as they can the one with the larger weight gets more: by the weight for
// all devices, and after updates by that for the one.
func TestBlockIOWeight(t *testing.T) {
	needs(t, "io")
	major, minor := slowDisk(t)
	reader := func(weight uint16) *box {
		t.Helper()
		b := newBox(t, args("sleep", "1000"), limits(func(r *specs.LinuxResources) {
			r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
			r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &major, Minor: &minor, Access: "r"})
		}))
		b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/slow", Type: "b", Major: major, Minor: minor, FileMode: to(os.FileMode(0o600))}}
		b.write()
		b.launch()
		return b
	}
	heavy, light := reader(1000), reader(100)
	// ratio is how many reads of a there are to one of b's in the same time.
	ratio := func(a, b *box) float64 {
		t.Helper()
		both := []*box{a, b}
		var readers []*process
		for _, x := range both {
			os.Remove(filepath.Join(x.rootfs, "go"))
			os.Remove(filepath.Join(x.rootfs, "stop"))
			readers = append(readers, x.begin("exec", x.id, "/probe", "read", "/dev/slow"))
		}
		for _, x := range both {
			eventually(t, func() error {
				if n := len(x.pids()); n != 2 {
					return fmt.Errorf("%d processes", n)
				}
				return nil
			})
		}
		for _, x := range both {
			x.file("go", "")
		}
		time.Sleep(4 * time.Second)
		for _, x := range both {
			x.file("stop", "")
		}
		var n [2]float64
		for i, p := range readers {
			r := p.end()
			if _, err := fmt.Sscan(r.out, &n[i]); r.code != 0 || err != nil {
				t.Fatal(r)
			}
		}
		t.Logf("%.0f reads to %.0f", n[0], n[1])
		return n[0] / max(n[1], 1)
	}
	// The scheduler is not strict about it: two and a half to five times were seen, about the same without weights.
	if r := ratio(heavy, light); r < 1.5 {
		t.Errorf("with ten times the weight it reads %.1f times as much", r)
	}
	for b, weight := range map[*box]int{heavy: 100, light: 1000} {
		doc := fmt.Sprintf(`{"blockIO":{"weightDevice":[{"major":%d,"minor":%d,"weight":%d}]}}`, major, minor, weight)
		if r := b.feed(doc, "update", "-r", "-", b.id); r.code != 0 {
			t.Fatal(r)
		}
	}
	if r := ratio(light, heavy); r < 1.5 {
		t.Errorf("with ten times the weight for the device it reads %.1f times as much", r)
	}
}
