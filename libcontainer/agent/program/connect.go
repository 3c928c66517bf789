package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

var errAbsent = errors.New("systemd not running on this host, cannot use systemd cgroups manager")

// connect connects to the system's or the user's instance: to its private socket,
// which works without a bus and is faster, else over the bus.
func connect(user bool) (*systemd.Conn, error) {
	private, bus := "/run/systemd/private", os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if bus == "" {
		bus = "unix:path=/run/dbus/system_bus_socket"
	}
	if user {
		run := os.Getenv("XDG_RUNTIME_DIR")
		if run == "" {
			run = "/run/user/" + strconv.Itoa(owner())
		}
		private = run + "/systemd/private"
		if bus = os.Getenv("DBUS_SESSION_BUS_ADDRESS"); bus == "" {
			bus = "unix:path=" + run + "/bus"
		}
	}
	// A directory that systemd makes when it boots (sd_booted(3)).
	if st, err := os.Stat("/run/systemd/system"); err != nil || !st.IsDir() {
		return nil, errAbsent
	}
	conn, err := dial("unix:path="+dbus.EscapeBusAddressValue(private), false)
	if err != nil {
		var busErr error
		if conn, busErr = dial(bus, true); busErr != nil {
			if user {
				return nil, fmt.Errorf("%w (the user's instance does not answer: %w; %w)", errAbsent, err, busErr)
			}
			return nil, fmt.Errorf("connect to systemd: %w; %w", err, busErr)
		}
	}
	return conn, nil
}

func dial(address string, hello bool) (*systemd.Conn, error) {
	return systemd.NewConnection(func() (*dbus.Conn, error) {
		c, err := dbus.Dial(address)
		if err != nil {
			return nil, err
		}
		// A peer that accepts and then says nothing.
		late := time.AfterFunc(patience, func() { c.Close() })
		defer late.Stop()
		if err = c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(owner()))}); err == nil && hello {
			err = c.Hello()
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	})
}

// owner is the user id outside of a user namespace, which is the one that the
// peer sees. Root in a namespace that a user made is that user.
func owner() int {
	id := os.Geteuid()
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return id
	}
	for line := range bytes.Lines(data) {
		var inside, outside, n int
		if _, err := fmt.Sscan(string(line), &inside, &outside, &n); err == nil && inside <= id && id-inside < n {
			return outside + id - inside
		}
	}
	return id
}
