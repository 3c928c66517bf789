// Package oracle holds tests that compare package seccomp with libseccomp, over
// the profiles that container engines ship and random ones. It is a module of
// its own because it needs cgo and, at run time, Debian's libseccomp-dev and gcc
// (and golang-github-containers-common for Podman's profile).
//
// `make test` runs them in the unit lane; alone they are run by
//
//	CGO_ENABLED=1 go -C libcontainer/seccomp/oracle test ./...
package oracle
