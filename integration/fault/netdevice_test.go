package fault

import (
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A network device that was moved into a container is back when rt dies before the container is one,
// and stays when it dies after.
func TestNetDeviceKilled(t *testing.T) {
	for _, point := range append(pointsOf(t, "network."), "create.state", "create.pidfile", "parent.commit", "parent.committed") {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			// rt runs in a network namespace of the test's.
			hold := exec.Command("/bin/busybox", "sleep", "600")
			hold.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
			if err := hold.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { hold.Process.Kill(); hold.Wait() })
			ns, err := netns.GetFromPid(hold.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}); err != nil {
				t.Fatal(err)
			}
			b := newBox(t, spec{args: []string{"sleep", "1000"}, edit: func(c object) {
				l := c["linux"].(object)
				l["netDevices"] = object{"a": object{"name": "x"}}
			}})
			command("nsenter", b.dir, []string{"RT_FAULT=" + point + ":kill"}, 0, "--target", strconv.Itoa(hold.Process.Pid), "--net",
				faultBin, "--root", b.root, "create", b.id).end(t).killed(t)
			if point == "parent.committed" || point == "parent.commit" {
				// In the container, or gone with it.
				if _, err := h.LinkByName("a"); err == nil {
					t.Error("the device is back")
				}
				if point == "parent.committed" {
					b.is("created")
				}
				return
			}
			b.must(eventually(limit, func() error {
				if _, err := h.LinkByName("a"); err != nil {
					return fmt.Errorf("the device is not back: %w", err)
				}
				return nil
			}))
		})
	}
}
