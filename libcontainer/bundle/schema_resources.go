package bundle

import specs "github.com/opencontainers/runtime-spec/specs-go"

func readResources(d *decoder, r *specs.LinuxResources) {
	d.object(
		member{"devices", list(&r.Devices, maxList, readDeviceRule)},
		member{"memory", structure(&r.Memory, readMemory)},
		member{"cpu", structure(&r.CPU, readCPU)},
		member{"pids", structure(&r.Pids, readPids)},
		member{"blockIO", structure(&r.BlockIO, readBlockIO)},
		member{"hugepageLimits", list(&r.HugepageLimits, maxList, readHugepage)},
		member{"network", structure(&r.Network, readNetwork)},
		member{"rdma", byName(&r.Rdma, readRdma)},
		member{"unified", &r.Unified},
	)
}

func readDeviceRule(d *decoder, r *specs.LinuxDeviceCgroup) {
	seen := d.object(
		member{"allow", &r.Allow},
		member{"type", &r.Type},
		member{"major", &r.Major},
		member{"minor", &r.Minor},
		member{"access", &r.Access},
	)
	d.require(seen, 1<<0, "allow")
}

func readMemory(d *decoder, m *specs.LinuxMemory) {
	d.object(
		member{"limit", &m.Limit},
		member{"reservation", &m.Reservation},
		member{"swap", &m.Swap},
		// Deprecated, read to warn of it.
		member{"kernel", &m.Kernel},
		member{"kernelTCP", &m.KernelTCP},
		member{"swappiness", &m.Swappiness},
		member{"disableOOMKiller", &m.DisableOOMKiller},
		member{"useHierarchy", &m.UseHierarchy},
		member{"checkBeforeUpdate", &m.CheckBeforeUpdate},
	)
}

func readCPU(d *decoder, c *specs.LinuxCPU) {
	d.object(
		member{"shares", &c.Shares},
		member{"quota", &c.Quota},
		member{"burst", &c.Burst},
		member{"period", &c.Period},
		member{"realtimeRuntime", &c.RealtimeRuntime},
		member{"realtimePeriod", &c.RealtimePeriod},
		member{"cpus", &c.Cpus},
		member{"mems", &c.Mems},
		member{"idle", &c.Idle},
	)
}

func readPids(d *decoder, p *specs.LinuxPids) {
	d.object(member{"limit", &p.Limit})
}

func readBlockIO(d *decoder, b *specs.LinuxBlockIO) {
	d.object(
		member{"weight", &b.Weight},
		member{"leafWeight", &b.LeafWeight},
		member{"weightDevice", list(&b.WeightDevice, maxList, readWeightDevice)},
		member{"throttleReadBpsDevice", list(&b.ThrottleReadBpsDevice, maxList, readThrottle)},
		member{"throttleWriteBpsDevice", list(&b.ThrottleWriteBpsDevice, maxList, readThrottle)},
		member{"throttleReadIOPSDevice", list(&b.ThrottleReadIOPSDevice, maxList, readThrottle)},
		member{"throttleWriteIOPSDevice", list(&b.ThrottleWriteIOPSDevice, maxList, readThrottle)},
	)
}

func readWeightDevice(d *decoder, w *specs.LinuxWeightDevice) {
	d.object(
		member{"major", &w.Major},
		member{"minor", &w.Minor},
		member{"weight", &w.Weight},
		member{"leafWeight", &w.LeafWeight},
	)
}

func readThrottle(d *decoder, t *specs.LinuxThrottleDevice) {
	d.object(
		member{"major", &t.Major},
		member{"minor", &t.Minor},
		member{"rate", &t.Rate},
	)
}

func readHugepage(d *decoder, h *specs.LinuxHugepageLimit) {
	d.object(
		member{"pageSize", &h.Pagesize},
		member{"limit", &h.Limit},
	)
}

func readNetwork(d *decoder, n *specs.LinuxNetwork) {
	d.object(
		member{"classID", &n.ClassID},
		member{"priorities", list(&n.Priorities, maxList, readPriority)},
	)
}

func readPriority(d *decoder, p *specs.LinuxInterfacePriority) {
	d.object(
		member{"name", &p.Name},
		member{"priority", &p.Priority},
	)
}

func readRdma(d *decoder, r *specs.LinuxRdma) {
	d.object(
		member{"hcaHandles", &r.HcaHandles},
		member{"hcaObjects", &r.HcaObjects},
	)
}
