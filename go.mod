module rt

go 1.26.0

require (
	github.com/aperturerobotics/protobuf-go-lite v0.14.0
	github.com/checkpoint-restore/go-criu/v8 v8.3.0
	github.com/cilium/ebpf v0.22.0
	github.com/containerd/console v1.0.5
	github.com/coreos/go-systemd/v22 v22.7.0
	github.com/docker/go-units v0.5.0
	github.com/go-json-experiment/json v1.27.2
	github.com/godbus/dbus/v5 v5.2.2
	github.com/moby/sys/mountinfo v0.7.3
	github.com/opencontainers/runc v1.3.6
	github.com/opencontainers/runtime-spec v1.3.0
	github.com/opencontainers/selinux v1.15.1
	github.com/sirupsen/logrus v1.10.2
	github.com/vishvananda/netlink v1.3.1
	github.com/vishvananda/netns v0.0.5
	golang.org/x/sys v0.49.0
)

require (
	github.com/cyphar/filepath-securejoin v0.5.2 // indirect
	github.com/moby/sys/user v0.3.0 // indirect
)

// rt lives for milliseconds: it needs no eye on its own CPU limit, which would keep
// two files open below the descriptors that a caller passes on.
godebug (
	containermaxprocs=0
	updatemaxprocs=0
)
