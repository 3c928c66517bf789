package libcontainer

import (
	"fmt"

	"rt/libcontainer/intelrdt"

	"github.com/go-json-experiment/json/jsontext"
)

// What create keeps of the container's resctrl groups: exec enters them, delete
// removes what was made for it.
const (
	extraRdtClos = "intel_rdt_path"
	extraRdtMon  = "intel_rdt_mon_path"
	extraRdtOwn  = "intel_rdt_own" // present if the class of service is the container's own
)

// chooseRdt finds the resctrl groups of the container and checks that they can be had.
func (c *creation) chooseRdt() error {
	l := c.spec.Linux
	if l == nil || l.IntelRdt == nil {
		return nil
	}
	root, err := intelrdt.Root()
	if err != nil {
		return fmt.Errorf("config.json: /linux/intelRdt: %w", err)
	}
	c.rdt = intelrdt.New(root, c.id, l.IntelRdt)
	if err := c.rdt.Check(l.IntelRdt); err != nil {
		return err
	}
	c.facts.Rdt = c.rdt.Tasks()
	return nil
}

// recordRdt notes g in extra.
func recordRdt(extra map[string]jsontext.Value, g intelrdt.Group) error {
	for name, path := range map[string]string{extraRdtClos: g.Clos, extraRdtMon: g.Mon} {
		if path == "" {
			continue
		}
		quoted, err := jsontext.AppendQuote(nil, path)
		if err != nil {
			return fmt.Errorf("record resctrl group %q: %w", path, err)
		}
		extra[name] = quoted
	}
	if g.Own {
		extra[extraRdtOwn] = jsontext.Value("true")
	}
	return nil
}

// recordedRdt is the inverse of recordRdt; the zero Group if there is none.
func recordedRdt(extra map[string]jsontext.Value) (intelrdt.Group, error) {
	g := intelrdt.Group{Own: string(extra[extraRdtOwn]) == "true"}
	for name, path := range map[string]*string{extraRdtClos: &g.Clos, extraRdtMon: &g.Mon} {
		if raw, ok := extra[name]; ok {
			b, err := jsontext.AppendUnquote(nil, raw)
			if err != nil {
				return intelrdt.Group{}, fmt.Errorf("read record of the resctrl group: %w", err)
			}
			*path = string(b)
		}
	}
	return g, nil
}

// removeRdt removes the resctrl groups that were made for the container of extra.
func removeRdt(extra map[string]jsontext.Value) error {
	g, err := recordedRdt(extra)
	if err != nil {
		return err
	}
	return g.Remove()
}
