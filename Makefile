# `make` builds ./rt. Every target installs, by Debian package name and as root, what it needs.
GO     ?= go
PREFIX ?= /usr/local

AGENT       := libcontainer/agent/program
ORACLE      := libcontainer/seccomp/oracle
# libseccomp, and Podman's seccomp profile.
ORACLE_NEEDS:= libseccomp-dev gcc libc6-dev pkg-config golang-github-containers-common
NEED        := integration/lanes/need
COMMIT      := $(or $(shell git rev-parse HEAD 2>/dev/null),unknown)
LDFLAGS     := -s -w -X main.commit=$(COMMIT)
BUILD       := $(GO) build -trimpath -ldflags "$(LDFLAGS)"
LANES       := $(GO) run ./integration/lanes
# A runtime reads the specification's deprecated fields too (SA1019), and says what callers of runc match (ST1005).
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2 -checks inherit,-SA1019,-ST1005

export CGO_ENABLED := 0
# Without buildvcs a checkout that belongs to another user builds too; COMMIT says what it was.
export GOFLAGS := -buildvcs=false

.PHONY: all rt rt-fault stage stage-fault agent demo test test-unit test-host test-host-v2 test-uml test-vm test-vm-v1 \
	test-needs conformance bench lint install clean

all: rt

# The runtime, and the one with which tests provoke faults.
rt: stage agent
	$(BUILD) -o $@ .
rt-fault: stage-fault agent
	$(BUILD) -tags rtfault -o $@ .
stage stage-fault:
	@$(NEED) musl-tools gcc libc6-dev
	$(MAKE) -C nsenter/stage $@

# The program with which rt speaks D-Bus; rt embeds it too.
agent:
	$(BUILD) -o $(AGENT)/agent ./$(AGENT)

demo: rt
	@$(NEED) busybox-static
	integration/demo.sh

test: rt rt-fault test-needs
	@$(LANES) unit host host-v2 uml
test-unit: stage stage-fault agent
	@$(NEED) $(ORACLE_NEEDS)
	@$(LANES) unit
test-host test-host-v2 test-uml test-vm test-vm-v1: rt rt-fault test-needs
	@$(LANES) $(@:test-%=%)
test-needs:
	@$(NEED) $(ORACLE_NEEDS) busybox-static strace user-mode-linux containerd uidmap iptables qemu-system-x86 mmdebstrap e2fsprogs
	@integration/lanes/criu >/dev/null

# The driver is a module of its own, which ./... of this one does not reach.
conformance: rt
	$(GO) -C integration/conformance test ./...
	integration/conformance/run

# BENCH takes the flags of integration/bench, such as BENCH="-rounds 100 -only run".
bench: rt
	@$(GO) run ./integration/bench $(BENCH)
	@$(NEED) $(ORACLE_NEEDS)
	@CGO_ENABLED=1 $(GO) -C $(ORACLE) test -run '^$$' -bench .

lint: stage stage-fault agent
	@$(NEED) cppcheck $(ORACLE_NEEDS)
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "lint: run gofmt -w on these"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags rtfault ./...
	$(GO) -C integration/conformance vet ./...
	CGO_ENABLED=1 $(GO) -C $(ORACLE) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(MAKE) -C nsenter/stage lint

install: rt
	install -D -m 0755 rt $(DESTDIR)$(PREFIX)/sbin/rt

clean:
	rm -f rt rt-fault $(AGENT)/agent
	$(MAKE) -C nsenter/stage clean
