package criu

import (
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
)

// Inherited lists those of rt's descriptors 0 to 2 that take the place of the container's. What they were
// is all that is believed of the images: not what they are to become.
func Inherited(descriptors []string) []*rpc.InheritFd {
	var list []*rpc.InheritFd
	seen := map[string]bool{}
	for i, d := range descriptors {
		if seen[d] || !strings.HasPrefix(d, "pipe:[") && !strings.HasPrefix(d, "file[") {
			continue
		}
		seen[d] = true
		list = append(list, Inherit(d, i))
	}
	return list
}

// Inherit gives CRIU its descriptor fd for what the images call key.
func Inherit(key string, fd int) *rpc.InheritFd {
	n := int32(fd)
	return &rpc.InheritFd{Key: &key, Fd: &n}
}
