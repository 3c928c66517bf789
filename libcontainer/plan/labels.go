package plan

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Where a thread says which labels it wants, apparmor(7) and SELinux's
// setexeccon(3), setkeycreatecon(3). AppArmor's own directory exists since Linux 5.8.
const (
	attrDir         = "thread-self/attr/"
	attrAppArmor    = attrDir + "apparmor/current"
	attrAppArmorNew = attrDir + "apparmor/exec"
	attrSELinuxNew  = attrDir + "exec"
	attrKey         = attrDir + "keycreate"
)

const (
	originAppArmor = "/process/apparmorProfile"
	originSELinux  = "/process/selinuxLabel"
	originMount    = "/linux/mountLabel"
)

// Which of the two kept files.
const (
	keptAppArmor = iota
	keptSELinux
)

func (c *compiler) label(origin string, how, kept uint64, file, text string) {
	op := c.num(KindLabel, origin, how, kept)
	op.Data[0].String, op.Data[1].String = file, text
}

// labels compiles what has to be done for the labels of the program while there is
// privilege, and finds out whether the profile may be had.
func (c *compiler) labels(p *specs.Process) {
	if p.ApparmorProfile != "" {
		c.label(originAppArmor, LabelWrite, 0, attrAppArmor, "permprofile "+p.ApparmorProfile)
		c.label(originAppArmor, LabelOpen, keptAppArmor, attrAppArmorNew, "")
	}
	if p.SelinuxLabel != "" {
		c.label(originSELinux, LabelOpen, keptSELinux, attrSELinuxNew, "")
	}
}

// applyLabels compiles the labels that the program gets with execve(2).
func (c *compiler) applyLabels(p *specs.Process) {
	if p.ApparmorProfile != "" {
		c.label(originAppArmor, LabelKept, keptAppArmor, attrAppArmorNew, "exec "+p.ApparmorProfile)
	}
	if p.SelinuxLabel != "" {
		c.label(originSELinux, LabelKept, keptSELinux, attrSELinuxNew, p.SelinuxLabel)
	}
}

// keyring compiles the session keyring, which carries the label of the process.
func (c *compiler) keyring(permissions uint64) {
	if c.facts.NoNewKeyring {
		return
	}
	p := c.spec.Process
	labelled := p != nil && p.SelinuxLabel != ""
	if labelled {
		c.label(originSELinux, LabelWrite, 0, attrKey, p.SelinuxLabel)
	}
	c.data(KindKeyring, byRuntime, "_ses."+c.facts.ID).Num[0] = permissions
	if labelled {
		c.label(originSELinux, LabelWrite, 0, attrKey, "")
	}
}

// mountLabel is the option that gives all files of a new file system the
// mount label; "" for none. Those that show the kernel's own files have labels of their own.
func (c *compiler) mountLabel(fstype string) string {
	if c.linux.MountLabel == "" || kernelType(fstype) && fstype != "devpts" {
		return ""
	}
	return "context=" + c.linux.MountLabel
}

// quoteLabel is the option for mount(2), where a comma would end it.
func quoteLabel(option string) string {
	name, label, _ := strings.Cut(option, "=")
	return name + `="` + label + `"`
}
