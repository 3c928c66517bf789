package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// hostNetwork is a network namespace of the test, in which rt runs: what it calls the host's.
type hostNetwork struct {
	t   *testing.T
	pid int // of a process in it
	*netlink.Handle
	ipv6 bool
}

func newHostNetwork(t *testing.T) *hostNetwork {
	t.Helper()
	h := &hostNetwork{t: t, pid: holder(t, unix.CLONE_NEWNET)}
	ns, err := netns.GetFromPid(h.pid)
	if err == nil {
		defer ns.Close()
		h.Handle, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	_, err = os.Stat("/proc/sys/net/ipv6")
	h.ipv6 = err == nil
	return h
}

// path is the namespace's, for config.json.
func (h *hostNetwork) path() string { return fmt.Sprintf("/proc/%d/ns/net", h.pid) }

// box is newBox with an rt that runs in the namespace.
func (h *hostNetwork) box(edits ...func(*specs.Spec)) *box {
	h.t.Helper()
	b := newBox(h.t, edits...)
	b.as = []string{"nsenter", "--target", strconv.Itoa(h.pid), "--net"}
	return b
}

// add makes a device with a peer, an MTU of 1400 and addresses, and sets it up.
func (h *hostNetwork) add(name string, addresses ...string) netlink.Link {
	h.t.Helper()
	must := func(err error) {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	must(h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1400}, PeerName: name + "p"}))
	link := h.link(name)
	for _, a := range addresses {
		if strings.Contains(a, "::") && !h.ipv6 {
			continue
		}
		addr, err := netlink.ParseAddr(a)
		must(err)
		if strings.HasPrefix(a, "169.254.") {
			addr.Scope = unix.RT_SCOPE_LINK
		}
		if strings.HasPrefix(a, "198.51.100.") { // as one that a server lends
			addr.ValidLft, addr.PreferedLft = 1000, 1000
		}
		must(h.AddrAdd(link, addr))
	}
	must(h.LinkSetUp(link))
	return h.link(name)
}

func (h *hostNetwork) link(name string) netlink.Link {
	h.t.Helper()
	link, err := h.LinkByName(name)
	if err != nil {
		h.t.Fatalf("%s: %v", name, err)
	}
	return link
}

// has says whether a device is in the namespace.
func (h *hostNetwork) has(name string) bool {
	_, err := h.LinkByName(name)
	return err == nil
}

// describe is a device as it is, but for what the kernel makes by itself.
func (h *hostNetwork) describe(name string) (string, error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return "", err
	}
	all, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return "", err
	}
	var list []string
	for _, a := range all {
		if !a.IP.IsLinkLocalUnicast() || a.IP.To4() != nil {
			list = append(list, fmt.Sprintf("%s scope %d", a.IPNet, a.Scope))
		}
	}
	slices.Sort(list)
	at := link.Attrs()
	return fmt.Sprintf("%d %s mtu %d %s up %v %v", at.Index, at.Name, at.MTU, at.HardwareAddr, at.Flags&net.FlagUp != 0, list), nil
}

// moving is an edit that has devices moved: "host" or "host:name".
func moving(devices ...string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{}
		for _, d := range devices {
			host, name, _ := strings.Cut(d, ":")
			s.Linux.NetDevices[host] = specs.LinuxNetDevice{Name: name}
		}
	}
}

const showNetwork = "cd /sys/class/net && for n in *; do echo device $n mtu $(cat $n/mtu) address $(cat $n/address); done; ip addr"

// A device keeps what it has, but for the addresses that belong to where it was. It is up, and there before
// sysctls and hooks that may want it.
func TestNetDevice(t *testing.T) {
	t.Parallel()
	for _, mapped := range []func(*specs.Spec){func(*specs.Spec) {}, mapped(100000)} {
		h := newHostNetwork(t)
		h.add("host0", "192.0.2.1/24", "203.0.113.9/32", "169.254.7.7/16", "198.51.100.1/24", "2001:db8::1/64")
		mac := h.link("host0").Attrs().HardwareAddr.String()
		b := h.box(mapped, moving("host0:eth0"), script(showNetwork+"; cat /proc/sys/net/ipv4/conf/eth0/forwarding"), func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net/ipv4/conf/eth0/forwarding": "1"}
		})
		b.must(os.Chown(b.rootfs, 100000, 100000))
		b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c",
			`pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/'); nsenter --target $pid --net busybox ip link show eth0 >` + b.path("hook")}}}}
		b.write()
		out := b.run()
		want := []string{"device eth0 mtu 1400 address " + mac, "inet 192.0.2.1/24 ", "inet 203.0.113.9/32 "}
		if h.ipv6 {
			want = append(want, "inet6 2001:db8::1/64 scope global")
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in %s", w, out)
			}
		}
		for _, not := range []string{"169.254.7.7", "198.51.100.1", "host0"} {
			if strings.Contains(out, not) {
				t.Errorf("there is %q in %s", not, out)
			}
		}
		if _, after, _ := strings.Cut(out, "eth0@"); !strings.Contains(strings.SplitN(after, ">", 2)[0], ",UP") {
			t.Errorf("eth0 is not up: %s", out)
		}
		if !strings.HasSuffix(out, "\n1\n") {
			t.Errorf("the device's own sysctl is not set: %s", out)
		}
		if text := b.read("hook"); !strings.Contains(text, "eth0") {
			t.Errorf("a createRuntime hook does not see the device: %q", text)
		}
		// It went with the container's namespace.
		b.clean()
		if h.has("host0") || h.has("eth0") {
			t.Error("the device is back")
		}
	}
}

// Names that the kernel completes, into a namespace that has devices with the same indices;
// delete leaves them where they are.
func TestNetDeviceNames(t *testing.T) {
	t.Parallel()
	h, pod := newHostNetwork(t), newHostNetwork(t)
	for _, n := range []string{"a0", "a1", "a2"} {
		h.add(n, "192.0.2."+n[1:]+"/24")
	}
	pod.add("eth0", "192.0.2.100/24")
	b := h.box(moving("a0:eth%d", "a1:eth%d", "a2"), ns("network", pod.path()), args("sleep", "600"), func(s *specs.Spec) {
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
	})
	noNS("cgroup")(b.spec)
	b.write()
	b.ok("create", b.id)
	check := func() {
		t.Helper()
		for name, address := range map[string]string{"eth0": "192.0.2.100", "eth1": "192.0.2.0", "eth2": "192.0.2.1", "a2": "192.0.2.2"} {
			text, err := pod.describe(name)
			if err != nil || !strings.Contains(text, address+"/24") || !strings.Contains(text, "mtu 1400") || !strings.Contains(text, "up true") {
				t.Errorf("%s is %s, %v", name, text, err)
			}
		}
		for _, name := range []string{"a0", "a1", "a2"} {
			if h.has(name) {
				t.Errorf("%s is still on the host", name)
			}
		}
	}
	check()
	b.ok("start", b.id)
	if out := b.exec("ip addr show eth2"); !strings.Contains(out, "192.0.2.1/24") {
		t.Errorf("exec sees %s", out)
	}
	b.ok("delete", "--force", b.id)
	check()
}

// What cannot be is found out before anything is made.
func TestNetDeviceRefused(t *testing.T) {
	t.Parallel()
	h := newHostNetwork(t)
	h.add("host0", "192.0.2.1/24")
	h.add("host1")
	before, err := h.describe("host0")
	if err != nil {
		t.Fatal(err)
	}
	const name = "cannot be the name of a network device; accepted: 1 to 15 bytes"
	for _, c := range []struct {
		devices string
		edit    func(*specs.Spec)
		words   []string
	}{
		{"host0", noNS("network"), []string{"/linux/netDevices: ", `without a namespace of type "network"`}},
		{"host0", ns("network", h.path()), []string{"/linux/netDevices: ", "the network namespace of the host", "/linux/namespaces/"}},
		{"host0 nosuch", nil, []string{"/linux/netDevices/nosuch: ", "no such device"}},
		{"host0:0123456789abcdef", nil, []string{`/linux/netDevices/host0/name: "0123456789abcdef": ` + name}},
		{"0123456789abcdef", nil, []string{`/linux/netDevices/0123456789abcdef: "0123456789abcdef": ` + name}},
		{"host0:a/b", nil, []string{`/linux/netDevices/host0/name: "a/b": ` + name}},
		{"host0:a\tb", nil, []string{`/linux/netDevices/host0/name: "a\tb": ` + name}},
		{"host0:..", nil, []string{`/linux/netDevices/host0/name: "..": ` + name}},
		{"host0:x%s", nil, []string{`/linux/netDevices/host0/name: "x%s": ` + name}},
		{"host0:x host1:x", nil, []string{`/linux/netDevices/host0/name: "x": is the name of another device`}},
		{"host0:host1 host1", nil, []string{`/linux/netDevices/host0/name: "host1": is the name of another device`}},
	} {
		b := h.box(moving(strings.Split(c.devices, " ")...))
		if c.edit != nil {
			c.edit(b.spec)
			b.write()
		}
		b.refused(c.words, "create", b.id)
		b.clean()
	}
	b := h.box(func(s *specs.Spec) {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"": {}, "a:b": {}, "host0": {Name: "a:b"}}
	})
	b.refused([]string{`/linux/netDevices/: "": ` + name, `/linux/netDevices/a:b: "a:b": ` + name, `/linux/netDevices/host0/name: "a:b": ` + name}, "create", b.id)
	if after, err := h.describe("host0"); err != nil || after != before {
		t.Errorf("the device was %s, is %s, %v", before, after, err)
	}
	u := newUser()
	r := rootless(t, u, moving("lo:x"), ns("network", ""))
	r.refused([]string{"/linux/netDevices: moving network devices needs root"}, "run", r.id)
	r.clean()
}

// Of a create that fails nothing is left: the devices are what and where they were, however late it
// failed and whoever ended it.
func TestNetDeviceComesBack(t *testing.T) {
	t.Parallel()
	pod := newHostNetwork(t)
	pod.add("taken")
	for _, c := range []struct {
		name string
		edit func(b *box)
		run  bool
		code int
		want []string // of the error; nil if rt is killed
	}{
		{"name taken", func(b *box) {
			ns("network", pod.path())(b.spec)
			b.spec.Linux.NetDevices["host1"] = specs.LinuxNetDevice{Name: "taken"}
		}, false, 1, []string{`/linux/netDevices/host1: move network device "host1" into the container as "taken": the network namespace has a device of this name already`}},
		{"loopback", func(b *box) { b.spec.Linux.NetDevices["lo"] = specs.LinuxNetDevice{Name: "x"} }, false, 1, []string{"/linux/netDevices/lo: ", "invalid argument"}},
		{"no program", func(b *box) { b.spec.Process.Args = []string{"/nosuch"} }, false, 1, []string{"/nosuch"}},
		{"no program in run", func(b *box) { b.spec.Process.Args = []string{"/nosuch"} }, true, 1, []string{"/nosuch"}},
		{"no execve", func(b *box) {
			b.file("script", "#!/nonexistent\n")
			b.must(os.Chmod(b.path("rootfs/script"), 0o755))
			b.spec.Process.Args = []string{"/script"}
		}, true, 255, []string{"exec /script"}},
		{"hook fails", func(b *box) {
			b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
		}, false, 1, []string{"error running createRuntime hook #0"}},
		{"rt is killed", func(b *box) {
			b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{hook("kill -KILL $PPID")}}
		}, false, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHostNetwork(t)
			h.add("host0", "192.0.2.1/24", "169.254.7.7/16", "2001:db8::1/64")
			h.add("host1")
			var want []string
			for _, name := range []string{"host0", "host1"} {
				text, err := h.describe(name)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, text)
			}
			b := h.box(moving("host0:eth0", "host1"), noNS("cgroup"), func(s *specs.Spec) {
				s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
			})
			c.edit(b)
			b.write()
			command := "create"
			if c.run {
				command = "run"
			}
			r := b.rt(command, b.id)
			if c.want == nil {
				if r.code == 0 {
					t.Error(r)
				}
				b.ok("delete", "--force", b.id)
			} else {
				r.refused(c.code, c.want...)
			}
			b.clean()
			// Killed, rt has not waited for it.
			eventually(t, func() error {
				for i, name := range []string{"host0", "host1"} {
					text, err := h.describe(name)
					if err != nil {
						return err
					}
					if text != want[i] {
						return fmt.Errorf("%s was %s, is %s", name, want[i], text)
					}
				}
				return nil
			})
			if pod.has("host0") || pod.has("eth0") {
				t.Error("a device stayed in the joined namespace")
			}
		})
	}
}

// The agent that moves devices ends with rt.
func TestNetDeviceAgentEnds(t *testing.T) {
	t.Parallel()
	h := newHostNetwork(t)
	h.add("host0")
	b := h.box(moving("host0"), args("sleep", "600"))
	b.launch()
	own := namespacesOf(t, h.pid)["net"]
	eventually(t, func() error {
		dirs, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, d := range dirs {
			exe, err := os.Readlink("/proc/" + d.Name() + "/exe")
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if net, _ := os.Readlink("/proc/" + d.Name() + "/ns/net"); net == own && strings.Contains(exe, "rt-network") {
				return fmt.Errorf("process %s is an agent", d.Name())
			}
		}
		return nil
	})
}
