package libcontainer

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sys/unix"
)

// A container without a mount namespace has its mounts in the host's, all of them
// on one mount that the stage puts over the root file system. To take that one
// away again, and nothing else, create writes down which mount was there before.
const (
	extraRootfs  = "host_rootfs"
	extraMountID = "host_mount_id"
)

func hostRootMount(rootfs string) (map[string]jsontext.Value, error) {
	id, err := mountID(rootfs)
	if err != nil {
		return nil, fmt.Errorf("look at mount of rootfs %q: %w", rootfs, err)
	}
	quoted, err := jsontext.AppendQuote(nil, rootfs)
	if err != nil {
		return nil, fmt.Errorf("record rootfs %q: %w", rootfs, err)
	}
	return map[string]jsontext.Value{
		extraRootfs:  quoted,
		extraMountID: jsontext.Value(strconv.FormatUint(id, 10)),
	}, nil
}

// unmountHostRoot detaches the container's root mount with all that is mounted
// on it.
func unmountHostRoot(extra map[string]jsontext.Value) error {
	raw, ok := extra[extraRootfs]
	if !ok {
		return nil
	}
	b, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return fmt.Errorf("read record of the root mount: %w", err)
	}
	before, err := strconv.ParseUint(string(extra[extraMountID]), 10, 64)
	if err != nil {
		return fmt.Errorf("read record of the root mount: %w", err)
	}
	rootfs := string(b)
	now, err := mountID(rootfs)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at mount of rootfs %q: %w", rootfs, err)
	}
	if now == before {
		return nil
	}
	if err := unix.Unmount(rootfs, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount rootfs %q: %w", rootfs, err)
	}
	return nil
}

func mountID(path string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, err
}
