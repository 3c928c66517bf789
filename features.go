package main

import (
	"encoding/json"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go/features"

	"rt/cli"
	"rt/libcontainer"
	"rt/libcontainer/bundle"
	"rt/libcontainer/plan"
	"rt/libcontainer/seccomp"
)

func featuresCommand() *cli.Command {
	return &cli.Command{
		Name:  "features",
		Usage: "print what this rt supports, as JSON",
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 0, 0); err != nil {
				return err
			}
			// The types are made for the omitempty of encoding/json: the newer
			// package would print their zeros.
			b, err := json.MarshalIndent(supported(), "", "    ")
			if err != nil {
				return err
			}
			_, err = os.Stdout.Write(append(b, '\n'))
			return err
		},
	}
}

// document is the features document (features.md of the runtime specification)
// with the one member that says "none" by being empty, where absent is "unknown".
type document struct {
	features.Features
	Unsafe []string `json:"potentiallyUnsafeConfigAnnotations"`
}

// supported describes this build, not the host, but for the seccomp flags that the kernel has.
func supported() document {
	yes := new(bool)
	*yes = true
	return document{
		Features: features.Features{
			OCIVersionMin: "1.0.0",
			OCIVersionMax: libcontainer.SpecVersion,
			Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
			MountOptions:  plan.MountOptions(),
			Linux: &features.Linux{
				Namespaces:   []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
				Capabilities: plan.Capabilities(),
				Cgroup:       &features.Cgroup{V1: yes, V2: yes, Systemd: yes, SystemdUser: yes, Rdma: yes},
				Seccomp: &features.Seccomp{
					Enabled: yes, Actions: seccomp.Actions(), Operators: seccomp.Operators(), Archs: seccomp.Architectures(),
					KnownFlags: seccomp.Flags(), SupportedFlags: libcontainer.SeccompFlags(),
				},
				MemoryPolicy:    &features.MemoryPolicy{Modes: bundle.MemoryPolicyModes(), Flags: bundle.MemoryPolicyFlags()},
				Apparmor:        &features.Apparmor{Enabled: yes},
				Selinux:         &features.Selinux{Enabled: yes},
				IntelRdt:        &features.IntelRdt{Enabled: yes, Schemata: yes, Monitoring: yes},
				MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: yes}},
				NetDevices:      &features.NetDevices{Enabled: yes},
			},
			Annotations: map[string]string{
				// The keys are free for other runtimes: the runc whose command line this is.
				"org.opencontainers.runc.version":            "1.3.0",
				"org.opencontainers.runc.checkpoint.enabled": "true",
			},
		},
		Unsafe: []string{"org.systemd.property."},
	}
}
