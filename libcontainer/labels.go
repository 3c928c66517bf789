package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
)

// A label that cannot be had is an error, found before anything is made where that can
// be known: a container that was to be confined must not run without.

// checkLabels checks the labels of config.json against this host.
func checkLabels(s *specs.Spec) error {
	if l := s.Linux; l != nil && l.MountLabel != "" {
		if strings.ContainsAny(l.MountLabel, "\"\n") {
			return fmt.Errorf("config.json: /linux/mountLabel: %q: a quote or a newline is no part of an SELinux label", l.MountLabel)
		}
		if err := checkSELinux("config.json: /linux/mountLabel", l.MountLabel); err != nil {
			return err
		}
	}
	return checkProcessLabels("config.json", "/process", s.Process)
}

// checkProcessLabels checks those of a process that stands in file at base.
func checkProcessLabels(file, base string, p *specs.Process) error {
	if p == nil {
		return nil
	}
	if p.ApparmorProfile != "" {
		if err := appArmorEnabled(); err != nil {
			return fmt.Errorf("%s: %s/apparmorProfile: %q: %w", file, base, p.ApparmorProfile, err)
		}
	}
	if p.SelinuxLabel != "" {
		return checkSELinux(file+": "+base+"/selinuxLabel", p.SelinuxLabel)
	}
	return nil
}

// appArmorEnabled asks the module's own parameter: its files in securityfs need not be mounted.
func appArmorEnabled() error {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("config provided but AppArmor not supported: this kernel has no AppArmor")
	case err != nil:
		return fmt.Errorf("find out whether AppArmor is enabled: %w", err)
	case !strings.HasPrefix(string(b), "Y"):
		return errors.New("config provided but AppArmor not supported: it is not enabled in this kernel")
	}
	return nil
}

func checkSELinux(where, label string) error {
	if !selinux.GetEnabled() {
		return fmt.Errorf("%s: %q: SELinux is not enabled on this host", where, label)
	}
	if err := selinux.SecurityCheckContext(label); err != nil {
		return fmt.Errorf("%s: %q: not a label of the SELinux policy: %w", where, label, err)
	}
	return nil
}
