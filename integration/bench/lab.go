package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/lease/client"
	"greenroom/reconcile/condition"
)

// patience bounds what the lab waits for a process to answer or to end.
const patience = 30 * time.Second

// lab is where one run of the benchmarks takes place: a directory, the built server, and what the benchmarks report.
type lab struct {
	dir    string
	binary string // of greenroom, as it is released
	self   string // this program, for the baselines
	sizes  sizes
	say    io.Writer // progress, for people
	made   int
}

// place makes a new directory for a part of a benchmark. Its path is short enough for a unix socket.
func (l *lab) place() (string, error) {
	l.made++
	dir := filepath.Join(l.dir, strconv.Itoa(l.made))
	return dir, os.Mkdir(dir, 0o700)
}

func (l *lab) sayf(format string, args ...any) { fmt.Fprintf(l.say, format+"\n", args...) }

// build builds the server as a release is built.
func (l *lab) build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", l.binary, "greenroom/cmd/greenroom")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build greenroom: %w\n%s", err, out)
	}
	return nil
}

// environ is this process's, with no trace of another Greenroom or of a Terraform's settings.
func environ(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "GREENROOM_") || strings.HasPrefix(v, "TF_")
	})
	return append(env, more...)
}

// process is a child with what it writes.
type process struct {
	cmd   *exec.Cmd
	log   string // file
	ended chan struct{}
	err   error // after ended
}

func start(dir, name string, cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, dir
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process and waits until it is gone.
func (p *process) stop() {
	p.thaw()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// freeze stops the process where it stands; thaw lets it go on.
func (p *process) freeze() { p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) thaw()   { p.cmd.Process.Signal(syscall.SIGCONT) }

// says waits until the process has written a word that begins with prefix and ends with a space, and returns the rest of it.
func (p *process) says(ctx context.Context, prefix string) (word string, err error) {
	err = until(ctx, patience, func() error {
		text, err := os.ReadFile(p.log)
		if err != nil {
			return err
		}
		select {
		case <-p.ended:
			return fatal{fmt.Errorf("%s has ended: %w\n%s", p.cmd.Path, p.err, text)}
		default:
		}
		_, rest, _ := bytes.Cut(text, []byte(prefix))
		found, _, ok := bytes.Cut(rest, []byte(" "))
		if word = string(found); !ok {
			return fmt.Errorf("%s does not say %q:\n%s", p.cmd.Path, prefix, text)
		}
		return nil
	})
	return word, err
}

// cpu is the processor time that the process has used so far.
func (p *process) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(text, []byte(") ")) // the name before it may hold anything
	fields := strings.Fields(string(rest))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc has %q of the process", text)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100), errors.Join(err1, err2) // USER_HZ is 100; see proc(5)
}

// memory is what the process has in memory, in bytes, and the most that it ever had.
func (p *process) memory() (now, peak int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			now = n << 10
		case "VmHWM":
			peak = n << 10
		}
	}
	return now, peak, nil
}

// fatal is an error that no more waiting mends.
type fatal struct{ error }

// until waits until ok returns nil, for at most a time.
func until(ctx context.Context, limit time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if _, hopeless := errors.AsType[fatal](err); err == nil || hopeless {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %v: %w", limit, err)
		case <-tick.C:
		}
	}
}

// pause waits for a time, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// redisServer is a real Redis on a port of its own, which keeps nothing.
type redisServer struct {
	*process
	addr string
	rdb  *redis.Client
}

func (l *lab) redis(ctx context.Context) (*redisServer, error) {
	dir, err := l.place()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &redisServer{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	r.process, err = start(dir, "redis", exec.Command("redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(port),
		"--dir", dir, "--save", "", "--appendonly", "no"))
	if err != nil {
		return nil, fmt.Errorf("redis-server is missing (make install): %w", err)
	}
	r.rdb = redis.NewClient(&redis.Options{Addr: r.addr, ReadTimeout: patience})
	if err := until(ctx, patience, func() error { return r.rdb.Ping(ctx).Err() }); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *redisServer) close() {
	_ = r.rdb.Close()
	r.stop()
}

// freePort finds a port that nobody has just now.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// server is greenroom serve in a directory of its own.
type server struct {
	*process
	target
	api *client.Client
	dir string
}

// serve starts the server on specs and waits until it answers; redisAddr is empty for the embedded store.
func (l *lab) serve(ctx context.Context, specs, redisAddr string, args ...string) (*server, error) {
	dir, err := l.place()
	if err != nil {
		return nil, err
	}
	state := filepath.Join(dir, "state")
	cmd := exec.Command(l.binary, append([]string{"serve", "--state-dir", state, "--specs", specs, "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Env = environ()
	if redisAddr != "" {
		cmd.Env = append(cmd.Env, "GREENROOM_REDIS_URL=redis://"+redisAddr)
	}
	s := &server{dir: dir}
	if s.process, err = start(dir, "server", cmd); err != nil {
		return nil, err
	}
	if err := s.reach(ctx, state); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// reach finds out where the server listens and how it is asked.
func (s *server) reach(ctx context.Context, state string) (err error) {
	if s.addr, err = s.says(ctx, " addr="); err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(state, "admin.token"))
	if err != nil {
		return err
	}
	s.token = strings.TrimSpace(string(token))
	s.api, err = client.New(client.Options{Addr: "http://" + s.addr, Token: s.token, Retry: patience})
	return err
}

// ready waits until every pool of the revision is as the specs want it.
func (s *server) ready(ctx context.Context, pools int, limit time.Duration) error {
	return until(ctx, limit, func() error {
		st, err := s.api.Status(ctx)
		if err != nil {
			return err
		}
		if len(st.Pools) != pools {
			return fmt.Errorf("%d pools, want %d: %+v", len(st.Pools), pools, st.Conditions)
		}
		for _, p := range st.Pools {
			if c := condition.Of(p.Conditions, condition.Ready); !c.Status {
				return fmt.Errorf("pool %s: %+v", p.Pool, p.Conditions)
			}
		}
		return nil
	})
}
