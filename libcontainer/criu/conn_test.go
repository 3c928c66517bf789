package criu

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"
)

// soon is how long may take what should be so already, or will be in a moment.
const soon = 10 * time.Second

func TestDo(t *testing.T) {
	t.Parallel()
	c := talk(t, func(f *fake) {
		req := f.hear()
		if req.GetType() != rpc.CriuReqType_RESTORE || req.GetOpts().GetLogFile() != "restore.log" {
			f.t.Error("CRIU was asked", req)
		}
		f.notify("setup-namespaces", 42)
		f.answered(true)
		f.notify("post-restore", 0)
		f.answered(true)
		r := result(rpc.CriuReqType_RESTORE, true)
		r.Restore = &rpc.CriuRestoreResp{Pid: new(int32(42))}
		f.tell(r)
	})
	var events []Event
	req := request(rpc.CriuReqType_RESTORE)
	req.Opts = &rpc.CriuOpts{ImagesDirFd: new(int32(5)), LogFile: new("restore.log")}
	resp, err := c.Do(req, func(e Event) error {
		events = append(events, e)
		return nil
	})
	if err != nil || resp.GetRestore().GetPid() != 42 {
		t.Error(resp, err)
	}
	want := []Event{{"setup-namespaces", 42, -1}, {"post-restore", 0, -1}}
	if !slices.Equal(events, want) {
		t.Errorf("events %+v, expected %+v", events, want)
	}
}

// An error of the handler's is what Do returns, whatever CRIU makes of it.
func TestHandlerError(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	begin := func(f *fake) {
		f.hear()
		f.notify("first", 1)
		f.answered(false)
	}
	for _, row := range []struct {
		name   string
		say    func(*fake)
		events string
	}{
		{"hang up", begin, "first"},
		{"hang up before the answer", func(f *fake) { f.hear(); f.notify("first", 1) }, "first"},
		{"failure", func(f *fake) { begin(f); f.tell(result(rpc.CriuReqType_DUMP, false)) }, "first"},
		{"success all the same", func(f *fake) { begin(f); f.tell(dumped()) }, "first"},
		{"another type", func(f *fake) { begin(f); f.tell(result(rpc.CriuReqType_RESTORE, true)) }, "first"},
		{"garbage", func(f *fake) { begin(f); f.raw([]byte("\xff\xff\xff")) }, "first"},
		{"another event", func(f *fake) {
			begin(f)
			f.notify("second", 1)
			f.answered(true)
			f.notify("third", 1)
			f.answered(false)
			f.tell(result(rpc.CriuReqType_DUMP, false))
		}, "first second third"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			hungUp := make(chan struct{})
			c := talk(t, func(f *fake) {
				defer close(hungUp)
				row.say(f)
				unix.Shutdown(f.fd, unix.SHUT_RDWR)
			})
			var events []string
			resp, err := c.Do(dump, func(e Event) error {
				events = append(events, e.Name)
				switch {
				case row.name == "hang up before the answer":
					<-hungUp
					return refused
				case e.Name == "first":
					return refused
				case e.Name == "third":
					return errors.New("refused once more")
				}
				return nil
			})
			if resp != nil || err != refused {
				t.Errorf("got %v, %v", resp, err)
			}
			if got := strings.Join(events, " "); got != row.events {
				t.Errorf("events %q, expected %q", got, row.events)
			}
		})
	}
}

func TestFailed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		asked, answered rpc.CriuReqType
		errno           *int32
		log             []string
		want            string
	}{
		{rpc.CriuReqType_DUMP, rpc.CriuReqType_DUMP, new(int32(22)), nil, "criu failed: type DUMP errno 22"},
		{rpc.CriuReqType_DUMP, rpc.CriuReqType_DUMP, nil, nil, "criu failed: type DUMP errno 0"},
		{rpc.CriuReqType_PRE_DUMP, rpc.CriuReqType_PRE_DUMP, new(int32(3)), []string{"a", "b: c"}, "criu failed: type PRE_DUMP errno 3: a: b: c"},
		// What CRIU cannot even read it answers so.
		{rpc.CriuReqType_RESTORE, rpc.CriuReqType_EMPTY, new(int32(74)), nil, "criu failed: type RESTORE errno 74"},
	} {
		t.Run(row.want, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(f *fake) {
				f.hear()
				r := result(row.answered, false)
				r.CrErrno = row.errno
				f.tell(r)
			})
			resp, err := c.Do(request(row.asked), noEvent(t))
			failed, ok := errors.AsType[*Failed](err)
			if !ok || resp != nil {
				t.Fatalf("got %v, %T %v", resp, err, err)
			}
			if failed.Log != nil {
				t.Error("a log that nobody has read:", failed.Log)
			}
			failed.Log = row.log
			if got := err.Error(); got != row.want {
				t.Errorf("got %q", got)
			}
			if failed.Type != row.asked.String() || row.errno != nil && failed.Errno != *row.errno {
				t.Errorf("got %+v", failed)
			}
		})
	}
}

// The ptmx of a container is the handler's until it returns, and nobody's when CRIU goes on.
func TestDescriptor(t *testing.T) {
	t.Parallel()
	kept, given := pipe(t)
	c := talk(t, func(f *fake) {
		f.hear()
		f.notify("orphan-pts-master", 0, given)
		f.answered(true)
		if !isClosed(kept, 0) {
			f.t.Error("the descriptor is open after its event")
		}
		f.tell(dumped())
	})
	got := -1
	_, err := c.Do(dump, func(e Event) error {
		got = e.FD
		if e.Name != "orphan-pts-master" {
			t.Error("event", e.Name)
		}
		if flags, err := unix.FcntlInt(uintptr(e.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Error("a program that rt starts would get the descriptor:", flags, err)
		}
		_, err := unix.Write(e.FD, []byte("hello"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if n, err := unix.Read(kept, b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("through descriptor %d came %q, %v", got, b[:max(n, 0)], err)
	}
}

// Descriptors that nobody asked for are closed.
func TestExtraDescriptors(t *testing.T) {
	t.Parallel()
	ok := marshal(t, dumped())
	for _, row := range []struct {
		name   string
		say    func(f *fake, fds []int)
		number int
		fails  bool
	}{
		{"event with four", func(f *fake, fds []int) { f.notify("orphan-pts-master", 0, fds...); f.answered(true); f.tell(dumped()) }, 4, false},
		{"event with more than fit", func(f *fake, fds []int) { f.notify("orphan-pts-master", 0, fds...) }, 20, true},
		{"event that is refused", func(f *fake, fds []int) { f.notify("refuse", 0, fds...); f.answered(false); f.tell(dumped()) }, 2, true},
		{"result", func(f *fake, fds []int) { f.tell(dumped(), fds...) }, 3, false},
		{"failure", func(f *fake, fds []int) { f.tell(result(rpc.CriuReqType_DUMP, false), fds...) }, 1, true},
		{"another type", func(f *fake, fds []int) { f.tell(result(rpc.CriuReqType_RESTORE, true), fds...) }, 1, true},
		{"garbage", func(f *fake, fds []int) { f.raw([]byte("\xff\xff\xff"), fds...) }, 2, true},
		{"oversized", func(f *fake, fds []int) { f.raw(padded(ok, maxAnswer+2), fds...) }, 2, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var kept, given []int
			for range row.number {
				k, g := pipe(t)
				kept, given = append(kept, k), append(given, g)
			}
			c := talk(t, func(f *fake) { f.hear(); row.say(f, given) })
			_, err := c.Do(dump, func(e Event) error {
				if row.number > 4 {
					t.Error("an event of which not all has come:", e)
				}
				if e.FD < 0 || isClosed(kept[0], 0) {
					t.Error("the handler has no descriptor:", e.FD)
				}
				for i, k := range kept[1:] {
					if !isClosed(k, soon) {
						t.Errorf("descriptor %d of %d is open meanwhile", 1+i, row.number)
					}
				}
				if e.Name == "refuse" {
					return errors.New("refused")
				}
				return nil
			})
			if (err != nil) != row.fails {
				t.Error(err)
			}
			for i, k := range kept {
				if !isClosed(k, soon) {
					t.Errorf("descriptor %d of %d is open", i, row.number)
				}
			}
		})
	}
}

func TestEnded(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		say  func(*fake)
	}{
		{"after the request", func(f *fake) { f.hear() }},
		// The kernel has another error for that.
		{"with the request unread", func(f *fake) {
			_, _, err := unix.Recvfrom(f.fd, make([]byte, 1), unix.MSG_PEEK)
			f.check(err)
		}},
		{"after an event", func(f *fake) { f.hear(); f.notify("network-lock", 1); f.answered(true) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := talk(t, row.say)
			if resp, err := c.Do(dump, func(Event) error { return nil }); resp != nil || err != ErrEnded {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
	// The processes that it has made keep its end of the connection open.
	t.Run("without hanging up", func(t *testing.T) {
		t.Parallel()
		c := silent(t)
		c.Pidfd = eventfd(t, 1) // a pidfd is as readable
		if resp, err := c.Do(dump, noEvent(t)); resp != nil || err != ErrEnded {
			t.Errorf("got %v, %v", resp, err)
		}
	})
	t.Run("after the answer", func(t *testing.T) {
		t.Parallel()
		c := talk(t, func(f *fake) { f.tell(dumped()); f.hear() })
		c.Pidfd = eventfd(t, 1)
		waitReadable(t, c.fd)
		if resp, err := c.Do(dump, noEvent(t)); err != nil || !resp.GetSuccess() {
			t.Errorf("got %v, %v", resp, err)
		}
	})
	t.Run("before the request", func(t *testing.T) {
		t.Parallel()
		c, peer, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		unix.Close(peer)
		if resp, err := c.Do(dump, noEvent(t)); resp != nil || err != ErrEnded {
			t.Errorf("got %v, %v", resp, err)
		}
	})
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	ok := marshal(t, dumped())
	for _, row := range []struct {
		name   string
		answer []byte
		want   string // "": it is good
	}{
		{"good", ok, ""},
		{"with fields of a newer CRIU", padded(ok, 100), ""},
		{"as long as may be", padded(ok, maxAnswer), ""},
		{"longer", padded(ok, maxAnswer+2), "more than 65536 bytes"},
		{"much longer", padded(ok, 2*maxAnswer), "more than 65536 bytes"},
		{"half", ok[:len(ok)-1], "read CRIU: "},
		{"without the result", ok[:2], "read CRIU: "},
		{"garbage", []byte("\xff\xff\xff\xff"), "read CRIU: "},
		{"text", []byte("criu: cannot\n"), "read CRIU: "},
		{"another type", marshal(t, result(rpc.CriuReqType_RESTORE, true)), "an answer to RESTORE, expected one to DUMP"},
		{"unknown type", marshal(t, result(99, true)), "an answer to 99, expected one to DUMP"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(f *fake) { f.hear(); f.raw(row.answer) })
			resp, err := c.Do(dump, noEvent(t))
			switch {
			case row.want == "":
				if err != nil || !resp.GetSuccess() {
					t.Error(resp, err)
				}
			case resp != nil || err == nil || !strings.Contains(err.Error(), row.want):
				t.Errorf("got %v, %v, expected an error with %q", resp, err, row.want)
			}
		})
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	t.Run("before", func(t *testing.T) {
		t.Parallel()
		c := silent(t)
		c.Interrupt = eventfd(t, 1)
		if resp, err := c.Do(dump, noEvent(t)); resp != nil || err != ErrInterrupted {
			t.Errorf("got %v, %v", resp, err)
		}
	})
	t.Run("meanwhile", func(t *testing.T) {
		t.Parallel()
		fd := eventfd(t, 0)
		c := talk(t, func(f *fake) {
			f.hear()
			f.notify("network-lock", 1)
			f.answered(true)
			_, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			f.check(err)
			<-f.over
		})
		c.Interrupt = fd
		if resp, err := c.Do(dump, func(Event) error { return nil }); resp != nil || err != ErrInterrupted {
			t.Errorf("got %v, %v", resp, err)
		}
	})
	// Whoever asks CRIU to give up wants to know why.
	t.Run("after a refusal", func(t *testing.T) {
		t.Parallel()
		c := talk(t, func(f *fake) { f.hear(); f.notify("first", 1); f.answered(false); <-f.over })
		refused := errors.New("refused")
		if _, err := c.Do(dump, func(Event) error { c.Interrupt = eventfd(t, 1); return refused }); err != refused {
			t.Error(err)
		}
	})
	// The handler may take it back; what CRIU has said is not lost to it.
	t.Run("taken back", func(t *testing.T) {
		t.Parallel()
		c := talk(t, func(f *fake) {
			f.notify("pre-resume", 1) // there is no moment without something to read
			f.hear()
			f.answered(true)
			f.tell(dumped())
		})
		c.Interrupt = eventfd(t, 1)
		waitReadable(t, c.fd)
		if resp, err := c.Do(dump, func(Event) error { c.Interrupt = 0; return nil }); err != nil || !resp.GetSuccess() {
			t.Error(resp, err)
		}
	})
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]int64{"no progress known": -1, "none at all": 0, "as it was": 7} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := silent(t)
			c.Wait = time.Second
			if looks := 0; value >= 0 {
				c.Progress = func() int64 {
					if looks++; looks == 10 {
						t.Error("that is no progress")
						unix.Shutdown(c.fd, unix.SHUT_RDWR)
					}
					return value
				}
			}
			resp, err := c.Do(dump, noEvent(t))
			if resp != nil || !errors.Is(err, ErrTimeout) || !strings.Contains(fmt.Sprint(err), "no progress for 1s") {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
	// It has been looked at often enough that it would have been given up, were it not for the progress.
	t.Run("progress", func(t *testing.T) {
		t.Parallel()
		enough := make(chan struct{})
		c := talk(t, func(f *fake) { f.hear(); f.await(enough); f.tell(dumped()) })
		looks := int64(0)
		begin := time.Now()
		c.Wait = time.Second
		c.Progress = func() int64 {
			if looks++; time.Since(begin) > 2*c.Wait && enough != nil {
				close(enough)
				enough = nil
			}
			return looks
		}
		if resp, err := c.Do(dump, noEvent(t)); err != nil || !resp.GetSuccess() {
			t.Error(resp, err)
		}
	})
	// CRIU may wait for ever, as a server of pages does.
	t.Run("no limit", func(t *testing.T) {
		t.Parallel()
		looked := make(chan struct{}, 1)
		c := talk(t, func(f *fake) { f.hear(); f.await(looked); f.await(looked); f.tell(dumped()) })
		c.Wait = 0
		c.Progress = func() int64 {
			select {
			case looked <- struct{}{}:
			default:
			}
			return 7
		}
		if resp, err := c.Do(dump, noEvent(t)); err != nil || !resp.GetSuccess() {
			t.Error(resp, err)
		}
	})
}

// The two ends are nobody else's.
func TestPair(t *testing.T) { // not in parallel: it is about numbers of descriptors
	c, peer, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(peer)
	for _, fd := range []int{c.fd, peer} {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Error("a program that rt starts would get a descriptor:", flags, err)
		}
	}
	number := c.fd
	c.Close()
	if !isClosed(peer, 0) {
		t.Fatal("CRIU is not told of the end")
	}
	if fd, err := unix.FcntlInt(uintptr(peer), unix.F_DUPFD_CLOEXEC, number); err != nil || fd != number {
		t.Fatal(fd, err)
	}
	c.Close()
	if err := unix.Close(number); err != nil {
		t.Error("the second Close has closed somebody else's descriptor:", err)
	}
}

// A descriptor that comes with nothing else is closed as any other.
func TestDescriptorAlone(t *testing.T) {
	t.Parallel()
	kept, given := pipe(t)
	c := talk(t, func(f *fake) {
		f.hear()
		oob := unix.UnixRights(given)
		m := unix.Msghdr{Control: &oob[0], Controllen: uint64(len(oob))}
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(f.fd), uintptr(unsafe.Pointer(&m)), 0)
		unix.Close(given)
		if errno != 0 {
			f.check(errno)
		}
	})
	if _, err := c.Do(dump, noEvent(t)); err != ErrEnded {
		t.Error(err)
	}
	if !isClosed(kept, soon) {
		t.Error("the descriptor is open")
	}
}
