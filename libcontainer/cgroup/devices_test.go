package cgroup

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func rule(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Major: &major, Minor: &minor, Access: access}
}

func TestDeviceRules(t *testing.T) {
	for _, tt := range []struct {
		r    specs.LinuxDeviceCgroup
		want string
		err  string
	}{
		{specs.LinuxDeviceCgroup{Access: "rwm"}, "a", ""},
		{specs.LinuxDeviceCgroup{Type: "a"}, "a", ""},
		{rule(true, "a", 1, 3, "x"), "a", ""},
		{rule(true, "c", 1, 3, "rwm"), "c 1:3 mrw", ""},
		{rule(true, "b", -1, 0, "w"), "b *:0 w", ""},
		{specs.LinuxDeviceCgroup{Type: "c", Access: "rr"}, "c *:* r", ""},
		{rule(true, "c", math.MaxUint32-1, 0, "r"), "c 4294967294:0 r", ""},
		{rule(true, "c", math.MaxUint32, 0, "r"), "", "major 4294967295: accepted are 0 to 4294967294"},
		{rule(true, "c", 0, math.MaxInt64, "r"), "", "minor 9223372036854775807"},
		{rule(true, "c", -2, 0, "r"), "", "major -2"},
		{rule(true, "u", 1, 1, "r"), "", `type "u"`},
		{rule(true, "p", 1, 1, "r"), "", `type "p"`},
		{rule(true, "c", 1, 1, ""), "", `access ""`},
		{rule(true, "c", 1, 1, "rx"), "", `access "rx"`},
	} {
		got, err := deviceRules([]specs.LinuxDeviceCgroup{rule(true, "c", 9, 9, "r"), tt.r})
		if tt.err != "" {
			checkErr(t, err, tt.err)
			checkErr(t, err, "config.json /linux/resources/devices/1")
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", tt.r, err)
			continue
		}
		i := 2 // after "deny all" and the first rule
		if tt.want == "a" {
			i = 0
		}
		if s := got[i].String(); s != tt.want {
			t.Errorf("%+v: %q, want %q", tt.r, s, tt.want)
		}
	}
}

func TestV1Devices(t *testing.T) {
	defaults := "+c *:* m +b *:* m +c 10:200 mrw +c 136:* mrw +c 5:2 mrw +c 5:0 mrw +c 1:9 mrw +c 1:8 mrw +c 1:7 mrw +c 1:5 mrw +c 1:3 mrw"
	for _, tt := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{"absent", nil, "-a " + defaults},
		{"denied first", []specs.LinuxDeviceCgroup{{Access: "rwm"}}, "-a " + defaults},
		{"in order", []specs.LinuxDeviceCgroup{rule(true, "c", 10, 229, "rw"), rule(true, "b", 8, 20, "rwm")}, "-a +c 10:229 rw +b 8:20 mrw " + defaults},
		{"taken back", []specs.LinuxDeviceCgroup{rule(true, "c", 10, 229, "rw"), rule(false, "c", 10, 229, "r")}, "-a +c 10:229 rw -c 10:229 r " + defaults},
		{"taken back by a wildcard", []specs.LinuxDeviceCgroup{rule(true, "c", 10, 229, "rw"), rule(true, "c", 10, 1, "m"), rule(false, "c", 10, -1, "rw")}, "-a +c 10:229 rw +c 10:1 m -c 10:229 rw " + defaults},
		{"deny nothing", []specs.LinuxDeviceCgroup{rule(false, "c", 10, 229, "rw")}, "-a " + defaults},
		{"all allowed", []specs.LinuxDeviceCgroup{rule(true, "c", 1, 1, "r"), {Allow: true}}, "+a"},
		{"all but one", []specs.LinuxDeviceCgroup{{Allow: true}, rule(false, "b", 8, 0, "rwm")}, "+a -b 8:0 mrw +b 8:0 m"},
		{"default node closed by a wildcard stays closed", []specs.LinuxDeviceCgroup{{Allow: true}, rule(false, "c", 1, -1, "r")}, "+a -c 1:* r"},
		{"hole in a wildcard", []specs.LinuxDeviceCgroup{rule(true, "c", -1, -1, "rw"), rule(false, "c", 1, 1, "r")}, `!(config.json /linux/resources/devices/1): cgroup v1 cannot make "c 1:1 r" an exception to "c *:* rw"`},
		{"hole for other access", []specs.LinuxDeviceCgroup{rule(true, "c", -1, -1, "r"), rule(false, "c", 1, 1, "w")}, "-a +c *:* r " + defaults},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := deviceRules(tt.rules)
			if err != nil {
				t.Fatal(err)
			}
			writes, err := v1Devices(rules)
			if text, ok := strings.CutPrefix(tt.want, "!"); ok {
				checkErr(t, err, text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range writes {
				got = append(got, map[bool]string{true: "+", false: "-"}[w.allow]+w.value)
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got  %s\nwant %s", s, tt.want)
			}
		})
	}
}

// allowed decides by the definition: every wanted access needs a rule that
// allows it, and the last that names it counts.
func allowed(rules []deviceRule, kind byte, major, minor uint32, access uint8) bool {
	for bit := uint8(1); bit <= accessWrite; bit <<= 1 {
		if access&bit == 0 {
			continue
		}
		ok := false
		for _, r := range rules {
			if r.kind == 'a' || r.kind == kind && r.access&bit != 0 &&
				(r.major == anyNumber || r.major == major) && (r.minor == anyNumber || r.minor == minor) {
				ok = r.allow
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// run interprets the few instructions that a device program has.
func run(code []byte, kind byte, major, minor uint32, access uint8) (bool, error) {
	var reg [11]uint64
	ctx := [3]uint32{uint32(access)<<16 | unix.BPF_DEVCG_DEV_CHAR, major, minor}
	if kind == 'b' {
		ctx[0] = uint32(access)<<16 | unix.BPF_DEVCG_DEV_BLOCK
	}
	for pc := 0; pc*8 < len(code); pc++ {
		i := code[pc*8:]
		op, dst, src := i[0], i[1]&15, i[1]>>4
		off, imm := int16(binary.NativeEndian.Uint16(i[2:])), int32(binary.NativeEndian.Uint32(i[4:]))
		v := uint64(int64(imm))
		jump := false
		switch op {
		case 0x61: // r = *(u32 *)(ctx + off)
			if src != 1 || off%4 != 0 || off < 0 || off > 8 {
				return false, fmt.Errorf("load at %d", pc)
			}
			reg[dst] = uint64(ctx[off/4])
		case 0xbf:
			reg[dst] = reg[src]
		case 0xb7:
			reg[dst] = v
		case 0x57:
			reg[dst] &= v
		case 0x77:
			reg[dst] >>= v
		case 0x05:
			jump = true
		case 0x15:
			jump = reg[dst] == v
		case 0x55:
			jump = reg[dst] != v
		case 0x45:
			jump = reg[dst]&v != 0
		case 0x16:
			jump = uint32(reg[dst]) == uint32(imm)
		case 0x56:
			jump = uint32(reg[dst]) != uint32(imm)
		case 0x95:
			return reg[0] != 0, nil
		default:
			return false, fmt.Errorf("instruction %#x at %d", op, pc)
		}
		if jump {
			if off < 0 {
				return false, fmt.Errorf("jump back at %d", pc)
			}
			pc += int(off)
		}
	}
	return false, fmt.Errorf("no exit")
}

// TestS26DeviceProgram compares random programs with the definition, and has
// the kernel's verifier judge some of them.
func TestS26DeviceProgram(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	numbers := []int64{-1, -1, 0, 1, 3, 5, 8, math.MaxUint32 - 1}
	probes := []uint32{0, 1, 3, 5, 8, 10, 200, math.MaxUint32 - 1, math.MaxUint32 / 2}
	kinds := []string{"a", "b", "c", "c", "b", "c"}
	outcomes := map[bool]int{}
	for round := range 3000 {
		var config []specs.LinuxDeviceCgroup
		for range rnd.IntN(8) {
			access := ""
			for _, a := range []string{"r", "w", "m"} {
				if rnd.IntN(3) > 0 {
					access += a
				}
			}
			if access == "" {
				access = "rwm"
			}
			config = append(config, rule(rnd.IntN(2) == 0, kinds[rnd.IntN(len(kinds))], numbers[rnd.IntN(len(numbers))], numbers[rnd.IntN(len(numbers))], access))
		}
		rules, err := deviceRules(config)
		if err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 { // the default rules hide much
			rules = rules[:len(rules)-len(defaultDevices)]
		}
		insns := deviceProgram(rules)
		var code []byte
		if insns != nil {
			if code, err = assemble(insns); err != nil {
				t.Fatal(err)
			}
		}
		for _, kind := range []byte("bc") {
			for _, major := range probes {
				for _, minor := range probes {
					for access := uint8(1); access <= accessAll; access++ {
						want := allowed(rules, kind, major, minor, access)
						got := true
						if insns != nil {
							if got, err = run(code, kind, major, minor, access); err != nil {
								t.Fatalf("%v\n%v", err, insns)
							}
						}
						if got != want {
							t.Fatalf("%c %d:%d access %d: %v, want %v\n%v\n%v", kind, major, minor, access, got, want, rules, insns)
						}
						outcomes[want]++
					}
				}
			}
		}
		if insns != nil && round%50 == 0 && unix.Geteuid() == 0 {
			fd, err := loadDevices(code)
			if err != nil {
				t.Fatalf("load: %v\n%v", err, insns)
			}
			unix.Close(fd)
		}
	}
	if outcomes[true] < 10000 || outcomes[false] < 10000 {
		t.Errorf("lopsided test: %v", outcomes)
	}
}

func TestDeviceProgramSize(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		most  int
	}{
		{"default", nil, 32},
		{"all allowed", []specs.LinuxDeviceCgroup{{Allow: true}}, 0},
		{"all allowed at last", []specs.LinuxDeviceCgroup{rule(false, "c", 1, 1, "r"), {Allow: true}}, 0},
	} {
		rules, err := deviceRules(tt.rules)
		if err != nil {
			t.Fatal(err)
		}
		insns := deviceProgram(rules)
		code, err := assemble(insns)
		if err != nil || len(code)/8 > tt.most {
			t.Errorf("%s: %d instructions, expected at most %d (%v)\n%v", tt.name, len(code)/8, tt.most, err, insns)
		}
	}
}

func BenchmarkDeviceProgram(b *testing.B) {
	rules, _ := deviceRules(nil)
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			if _, err := assemble(deviceProgram(rules)); err != nil {
				b.Fatal(err)
			}
		}
	})
	code, _ := assemble(deviceProgram(rules))
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			fd, err := loadDevices(code)
			if err != nil {
				b.Skip(err)
			}
			unix.Close(fd)
		}
	})
	short := code[len(code)-16:]
	b.Run("load2", func(b *testing.B) {
		for b.Loop() {
			fd, err := loadDevices(short)
			if err != nil {
				b.Skip(err)
			}
			unix.Close(fd)
		}
	})
}
