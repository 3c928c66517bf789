package engines

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"testing"
)

// The images of the archive, one layer for all.
const (
	imageRoot = "busybox:root" // runs as root: `echo image command`, with IMAGE_ENV=set
	imageUser = "busybox:user" // the same as user 1000, group 1000
)

// applets are the links to busybox in the image's /bin.
var applets = []string{
	"cat", "chmod", "date", "echo", "env", "false", "grep", "hostname", "id", "kill", "ls", "mkdir", "mknod", "mount",
	"ps", "pwd", "readlink", "sh", "sleep", "stty", "test", "touch", "true", "tty", "wc",
}

// buildImages writes an OCI image layout (image-spec, image-layout.md) as a tar
// archive to path: Debian's static busybox and the few files around it.
func buildImages(t *testing.T, path, busybox string) {
	t.Helper()
	layer := buildLayer(t, busybox)
	var archive archive
	archive.file("oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	var manifests []descriptor
	for name, user := range map[string]string{imageRoot: "", imageUser: "1000:1000"} {
		config := toJSON(t, map[string]any{
			"architecture": runtime.GOARCH, "os": "linux",
			"config": map[string]any{
				"User": user,
				"Env":  []string{"PATH=/usr/bin:/bin", "IMAGE_ENV=set"},
				"Cmd":  []string{"echo", "image command"},
			},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
		})
		manifest := toJSON(t, map[string]any{
			"schemaVersion": 2,
			"mediaType":     "application/vnd.oci.image.manifest.v1+json",
			"config":        archive.blob("application/vnd.oci.image.config.v1+json", config),
			"layers":        []descriptor{archive.blob("application/vnd.oci.image.layer.v1.tar", layer)},
		})
		d := archive.blob("application/vnd.oci.image.manifest.v1+json", manifest)
		// The first names the image for containerd, the second for others.
		d.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
		manifests = append(manifests, d)
	}
	archive.file("index.json", 0o644, toJSON(t, map[string]any{"schemaVersion": 2, "manifests": manifests}))
	if err := os.WriteFile(path, archive.bytes(t), 0o644); err != nil {
		t.Fatal(err)
	}
}

func buildLayer(t *testing.T, busybox string) []byte {
	t.Helper()
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	var a archive
	for _, dir := range []string{"bin", "dev", "etc", "mnt", "proc", "root", "run", "sys"} {
		a.add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	a.add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	a.add(tar.Header{Typeflag: tar.TypeDir, Name: "home/user/", Mode: 0o755, Uid: 1000, Gid: 1000}, nil)
	a.file("bin/busybox", 0o755, program)
	for _, name := range applets {
		a.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}, nil)
	}
	a.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"))
	a.file("etc/group", 0o644, []byte("root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"))
	return a.bytes(t)
}

// descriptor is a content descriptor (image-spec, descriptor.md).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// archive is a tar file in the making; the first error sticks.
type archive struct {
	buf   bytes.Buffer
	tar   *tar.Writer
	blobs map[string]bool
	err   error
}

func (a *archive) add(h tar.Header, data []byte) {
	if a.tar == nil {
		a.tar = tar.NewWriter(&a.buf)
	}
	if a.err == nil {
		h.Size = int64(len(data))
		a.err = a.tar.WriteHeader(&h)
	}
	if a.err == nil {
		_, a.err = a.tar.Write(data)
	}
}

func (a *archive) file(name string, mode int64, data []byte) {
	a.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, data)
}

func (a *archive) blob(mediaType string, data []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest(data), Size: len(data)}
	if !a.blobs[d.Digest] {
		if a.blobs == nil {
			a.blobs = make(map[string]bool)
		}
		a.blobs[d.Digest] = true
		a.file("blobs/sha256/"+d.Digest[len("sha256:"):], 0o644, data)
	}
	return d
}

func (a *archive) bytes(t *testing.T) []byte {
	t.Helper()
	if a.err == nil {
		a.err = a.tar.Close()
	}
	if a.err != nil {
		t.Fatalf("write archive: %v", a.err)
	}
	return a.buf.Bytes()
}

func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
