package bundle

import (
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// MergeResources overwrites in old the limits that r sets: what is in force after an
// update by r. Devices, which an update does not touch, are left alone.
func MergeResources(old, r *specs.LinuxResources) {
	if m := r.Memory; m != nil {
		o := part(&old.Memory)
		set(&o.Limit, m.Limit)
		set(&o.Reservation, m.Reservation)
		set(&o.Swap, m.Swap)
		set(&o.Swappiness, m.Swappiness)
		turn(&o.DisableOOMKiller, m.DisableOOMKiller)
	}
	if p := r.CPU; p != nil {
		o := part(&old.CPU)
		set(&o.Shares, p.Shares)
		set(&o.Quota, p.Quota)
		set(&o.Burst, p.Burst)
		set(&o.Period, p.Period)
		set(&o.RealtimeRuntime, p.RealtimeRuntime)
		set(&o.RealtimePeriod, p.RealtimePeriod)
		turn(&o.Idle, p.Idle)
		if p.Cpus != "" {
			o.Cpus = p.Cpus
		}
		if p.Mems != "" {
			o.Mems = p.Mems
		}
	}
	if r.Pids != nil {
		set(&part(&old.Pids).Limit, r.Pids.Limit)
	}
	if b := r.BlockIO; b != nil {
		o := part(&old.BlockIO)
		set(&o.Weight, b.Weight)
		mergeList(&o.WeightDevice, b.WeightDevice, func(a, b specs.LinuxWeightDevice) bool { return a.Major == b.Major && a.Minor == b.Minor },
			func(d specs.LinuxWeightDevice) bool { return asks(d.Weight) })
		same := func(a, b specs.LinuxThrottleDevice) bool { return a.Major == b.Major && a.Minor == b.Minor }
		limits := func(d specs.LinuxThrottleDevice) bool { return d.Rate != 0 }
		mergeList(&o.ThrottleReadBpsDevice, b.ThrottleReadBpsDevice, same, limits)
		mergeList(&o.ThrottleWriteBpsDevice, b.ThrottleWriteBpsDevice, same, limits)
		mergeList(&o.ThrottleReadIOPSDevice, b.ThrottleReadIOPSDevice, same, limits)
		mergeList(&o.ThrottleWriteIOPSDevice, b.ThrottleWriteIOPSDevice, same, limits)
	}
	mergeList(&old.HugepageLimits, r.HugepageLimits, func(a, b specs.LinuxHugepageLimit) bool { return a.Pagesize == b.Pagesize },
		func(h specs.LinuxHugepageLimit) bool { return h.Limit != 0 })
	if n := r.Network; n != nil {
		o := part(&old.Network)
		set(&o.ClassID, n.ClassID)
		mergeList(&o.Priorities, n.Priorities, func(a, b specs.LinuxInterfacePriority) bool { return a.Name == b.Name },
			func(p specs.LinuxInterfacePriority) bool { return p.Priority != 0 })
	}
	for name, d := range r.Rdma {
		if old.Rdma == nil {
			old.Rdma = map[string]specs.LinuxRdma{}
		}
		o := old.Rdma[name]
		set(&o.HcaHandles, d.HcaHandles)
		set(&o.HcaObjects, d.HcaObjects)
		if o.HcaHandles != nil || o.HcaObjects != nil {
			old.Rdma[name] = o
		}
	}
	if len(r.Unified) > 0 {
		if old.Unified == nil {
			old.Unified = map[string]string{}
		}
		maps.Copy(old.Unified, r.Unified)
	}
}

func part[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

func set[T comparable](old **T, v *T) {
	if asks(v) {
		*old = v
	}
}

// turn is set for what an explicit zero turns off.
func turn[T any](old **T, v *T) {
	if v != nil {
		*old = v
	}
}

func mergeList[T any](old *[]T, list []T, same func(a, b T) bool, limits func(T) bool) {
	for _, v := range list {
		if !limits(v) {
			continue
		}
		if i := slices.IndexFunc(*old, func(o T) bool { return same(o, v) }); i >= 0 {
			(*old)[i] = v
		} else {
			*old = append(*old, v)
		}
	}
}

// asks tells whether a value is given and not zero.
func asks[T comparable](p *T) bool {
	var zero T
	return p != nil && *p != zero
}
