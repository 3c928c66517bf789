package cgroup

import (
	"errors"
	"math"
	"strconv"
)

func value[T int64 | uint64 | uint32 | uint16](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}

func decimal[T int64 | uint64 | uint32 | uint16](n T) string {
	if n < 0 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(uint64(n), 10)
}

// bytesOrMax is how cgroup2 writes an amount, -1 being none.
func bytesOrMax(v int64) string {
	if v < 0 {
		return "max"
	}
	return decimal(v)
}

// memorySwap checks and completes the pair of limits: swap is memory and swap together,
// -1 is unlimited and 0 not set. Memory without limit means swap without.
func memorySwap(limit, swap int64) (int64, int64, error) {
	if limit == -1 && swap == 0 {
		swap = -1
	}
	if swap > 0 && (limit > swap || limit == -1) {
		return 0, 0, errors.New(decimal(swap) + " is memory and swap together: it must not be below the memory limit, " + decimal(limit))
	}
	return limit, swap, nil
}

// weight converts cpu.shares (2 to 262144, default 1024) to cpu.weight (1 to
// 10000, default 100) by the curve that all runtimes agreed on, through these
// three points (spec, config-linux.md, "cpu").
func weight(shares uint64) uint64 {
	if shares <= 2 {
		return 1
	}
	if shares >= 262144 {
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// ioWeight converts blkio.weight (10 to 1000) to io.weight (1 to 10000).
func ioWeight(w uint16) uint64 {
	w = min(max(w, 10), 1000)
	return 1 + uint64(w-10)*9999/990
}

// cpuMax returns the value of cpu.max and the member it comes from: µs of CPU time per
// period of µs. A quota alone leaves the period as it is, a period alone the
// quota, as the two files of v1 do.
func cpuMax(quota int64, period uint64, present func() string) (v, pointer string) {
	if quota == 0 && period == 0 {
		return "", ""
	}
	pointer = "/cpu/quota"
	switch {
	case quota > 0:
		v = decimal(quota)
	case quota < 0:
		v = "max"
	default:
		pointer = "/cpu/period"
		if v = present(); v == "" {
			v = "max"
		}
	}
	if period != 0 {
		v += " " + decimal(period)
	}
	return v, pointer
}

// device is the number of a block device as the kernel writes it.
func device(major, minor int64) string { return decimal(major) + ":" + decimal(minor) }
