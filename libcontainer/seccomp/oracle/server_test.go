package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// libseccomp 2.5 does not come back from some combinations of conditions. So it works
// in processes of its own, which can be ended.

type request struct {
	Profile  *specs.LinuxSeccomp
	Native   string
	Optimize bool
}

type reply struct {
	Filter   []byte
	Error    string
	Conflict bool
}

// errStuck: libseccomp does not come back. Nearly all profiles take it less than 10 ms.
var errStuck = errors.New("libseccomp does not come back")

const patience = 5 * time.Second

const served = "RT_ORACLE_SERVER"

func TestMain(m *testing.M) {
	if how := os.Getenv(silent); how != "" {
		beSilent(how)
	}
	if os.Getenv(served) == "" {
		os.Exit(m.Run())
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var q request
		if in.Decode(&q) != nil {
			return
		}
		var r reply
		var err error
		if r.Filter, err = build(q.Profile, targetOf(q.Native), q.Optimize); err != nil {
			r.Error, r.Conflict = err.Error(), errors.Is(err, errConflict)
		}
		if out.Encode(&r) != nil {
			return
		}
	}
}

// server is such a process.
type server struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *os.File
	dec *json.Decoder
}

var idle struct {
	sync.Mutex
	servers []*server
}

func start() (*server, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	s := &server{cmd: exec.Command("/proc/self/exe"), out: r, dec: json.NewDecoder(r)}
	s.cmd.Env = append(os.Environ(), served+"=1")
	s.cmd.Stdout, s.cmd.Stderr = w, os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return s, s.cmd.Start()
}

// ask returns the filter for q.
func ask(q *request) ([]byte, error) {
	var s *server
	idle.Lock()
	if n := len(idle.servers); n > 0 {
		s, idle.servers = idle.servers[n-1], idle.servers[:n-1]
	}
	idle.Unlock()
	if s == nil {
		var err error
		if s, err = start(); err != nil {
			return nil, err
		}
	}
	var r reply
	err := json.NewEncoder(s.in).Encode(q)
	if err == nil {
		err = s.out.SetReadDeadline(time.Now().Add(patience))
	}
	if err == nil {
		err = s.dec.Decode(&r)
	}
	if err != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.out.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errStuck
		}
		return nil, fmt.Errorf("ask libseccomp: %w", err)
	}
	idle.Lock()
	idle.servers = append(idle.servers, s)
	idle.Unlock()
	switch {
	case r.Conflict:
		return nil, errConflict
	case r.Error != "":
		return nil, errors.New(r.Error)
	}
	return r.Filter, nil
}
