// Package demo walks through Greenroom's main job on real parts: it starts a server with the embedded defaults on the
// bundled example fleet and does, as its users would, what they come for. Each step is measured.
package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"greenroom/internal/server"
	"greenroom/internal/session"
	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// Options of a demo; the zero value is useful.
type Options struct {
	Dir       string // for state and specs; empty: a temporary one that is removed at the end
	Exit      bool   // end after the walk instead of serving on
	JSON      bool   // one JSON object a step
	Listen    string // TCP address of the API; default 127.0.0.1:0
	Terraform string // path of the binary; empty: found or installed
	Out       io.Writer
	Notes     io.Writer // for people: where it is served, that it is cleaning up
	Log       *slog.Logger
}

// Step is one thing that the demo has shown.
type Step struct {
	Step    string  `json:"step"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail"`
	Guest   string  `json:"guest,omitempty"`
	Hit     *bool   `json:"hit,omitempty"`
}

// demo is one walk.
type demo struct {
	Options
	specs, state string
	client       *client.Client
	patience     time.Duration // how long a step may take
	former       bool          // a demo was in the directory before
	left         bool          // there may be guests
	unread       bool          // nothing can be told any more
}

// What the example fleet has: a cache, and so many guests warm in it.
const (
	cache = "ci"
	warm  = 2
)

// cleanUp is how long retiring every guest may take.
const cleanUp = 3 * time.Minute

// Run runs the demo until it is through, or ctx ends. Whatever happens, it retires every guest that it made before it returns.
func Run(ctx context.Context, o Options) (err error) {
	d := &demo{Options: o, patience: patience}
	if d.Dir == "" {
		if d.Dir, err = os.MkdirTemp("", "greenroom-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.remove()) }()
	}
	if err := d.enter(); err != nil {
		return err
	}
	srv, err := server.New(server.Options{StateDir: d.state, Specs: d.specs, Listen: o.Listen, Terraform: terraform.Options{Binary: o.Terraform}, Log: o.Log})
	if err != nil {
		return err
	}
	if d.client, err = client.New(client.Options{Addr: filepath.Join(d.state, "greenroom.sock"), Retry: time.Minute}); err != nil {
		return err
	}
	defer d.client.Close()
	fmt.Fprintf(o.Notes, "greenroom serves on http://%s, state and specs are in %s\n", srv.Addr(), d.Dir)
	fmt.Fprintf(o.Notes, "should this process be killed, its guests live on; this retires them: greenroom demo --exit --dir %s\n", d.Dir)
	return d.inHouse(ctx, srv)
}

// mark is the file that says that a directory is a demo's: everything in it may be overwritten, and every guest retired.
const mark = "greenroom-demo"

// enter makes the directory the demo's. One with state or specs that are no demo's stays as it is.
func (d *demo) enter() (err error) {
	if d.Dir, err = filepath.Abs(d.Dir); err != nil { // a socket needs it so
		return err
	}
	d.specs, d.state = filepath.Join(d.Dir, "specs"), filepath.Join(d.Dir, "state")
	if _, err := os.Lstat(filepath.Join(d.Dir, mark)); err == nil {
		d.former = true
	}
	for _, own := range []string{d.specs, d.state} {
		if _, err := os.Lstat(own); err == nil && !d.former {
			return fmt.Errorf("%s is there already and not of a demo, which would overwrite it: name another directory with --dir", own)
		}
	}
	if err := os.MkdirAll(d.specs, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.Dir, mark), []byte("The state and specs beside this are those of greenroom demo.\n"), 0o600)
}

// remove takes the directory away, unless what is left of the guests needs it.
func (d *demo) remove() error {
	if d.left {
		return nil
	}
	return os.RemoveAll(d.Dir)
}

// inHouse runs the walk beside the server, and ends the server last: guests are retired by it.
func (d *demo) inHouse(ctx context.Context, srv *server.Server) error {
	if err := d.firstSpecs(); err != nil { // no sooner: the specs may be those of a demo that is under way, and then there is no server
		return err
	}
	d.left = true
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group errgroup.Group
	failed := make(chan error, 1)
	group.Go(func() error {
		err := srv.Run(serving)
		failed <- err
		return err
	})
	walking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // a server that ends too early ends the walk
		select {
		case err := <-failed:
			cancel(errors.Join(errors.New("the server ended"), err))
		case <-walking.Done():
		}
	}()
	err := d.visit(walking)
	if ctx.Err() != nil {
		fmt.Fprintln(d.Notes, "retiring all guests…")
		if errors.Is(err, context.Canceled) {
			err = nil // it was asked to end
		}
	}
	err = errors.Join(err, d.retireAll(context.WithoutCancel(ctx)))
	stop()
	return errors.Join(err, group.Wait())
}

// firstSpecs are those that the server begins with. Where only the guests of a former demo may have to be retired, no others are
// to be made meanwhile.
func (d *demo) firstSpecs() error {
	if d.former && d.Exit {
		return d.wantNothing()
	}
	return specs.Init(d.specs, true)
}

func (d *demo) wantNothing() error {
	empty := []byte("# Nothing is wanted: every guest is retired.\n")
	return os.WriteFile(filepath.Join(d.specs, "fleet.hcl"), empty, 0o600)
}

// visit walks through, and serves on where that is wanted.
func (d *demo) visit(ctx context.Context) error {
	if d.former && d.Exit {
		guests, err := d.client.Guests(ctx, "")
		if err != nil {
			return err
		}
		if len(guests) > 0 {
			fmt.Fprintf(d.Notes, "guests of a former demo are left (%d): they are retired, and nothing else is done; the walk comes when you run this again\n", len(guests))
			return nil
		}
		if err := specs.Init(d.specs, true); err != nil {
			return err
		}
	}
	err := d.walk(ctx)
	if err == nil && !d.Exit {
		fmt.Fprintf(d.Notes, "serving on; try: greenroom --help, with GREENROOM_STATE_DIR=%s; Ctrl-C retires all guests and ends\n", d.state)
		<-ctx.Done()
	}
	return err
}

// walk does the steps in order and ends at the first that fails.
func (d *demo) walk(ctx context.Context) error {
	var first string
	steps := []struct {
		name string
		do   func(context.Context, *Step) error
	}{
		{"guests ready", d.ready},
		{"acquire", func(ctx context.Context, s *Step) error { return d.use(ctx, s, &first) }},
		{"acquire again", func(ctx context.Context, s *Step) error { return d.again(ctx, s, first) }},
		{"guest killed and replaced", func(ctx context.Context, s *Step) error { return d.kill(ctx, s, first) }},
		{"warm raised", d.raise},
	}
	for _, s := range steps {
		step := Step{Step: s.name}
		start := time.Now()
		if err := s.do(ctx, &step); err != nil {
			return fmt.Errorf("step %q: %w", s.name, err)
		}
		if err := d.tell(step, start); err != nil {
			return err
		}
	}
	return nil
}

// tell prints a step; one that has measured itself keeps its own figure. What cannot be written fails once.
func (d *demo) tell(s Step, start time.Time) (err error) {
	if d.unread {
		return nil
	}
	if s.Seconds == 0 {
		s.Seconds = time.Since(start).Seconds()
	}
	if d.JSON {
		err = json.NewEncoder(d.Out).Encode(s)
	} else {
		_, err = fmt.Fprintf(d.Out, "%9s  %-26s %s\n", readable(s.Seconds), s.Step, s.Detail)
	}
	if d.unread = err != nil; d.unread {
		return fmt.Errorf("the output could not be written: %w", err)
	}
	return nil
}

func readable(seconds float64) string {
	if seconds < 1 {
		return fmt.Sprintf("%.1f ms", seconds*1000)
	}
	return fmt.Sprintf("%.2f s", seconds)
}

func (d *demo) ready(ctx context.Context, s *Step) error {
	c, err := d.shelved(ctx, warm)
	s.Detail = fmt.Sprintf("%d shelved in cache %s", c.Guests[lease.Shelved], cache)
	return err
}

// shelved waits until the cache has so many guests on its shelf.
func (d *demo) shelved(ctx context.Context, n int) (c client.Cache, err error) {
	err = d.until(ctx, func() (done bool, err error) {
		if c, err = d.client.Cache(ctx, cache); isUnknown(err) {
			return false, nil // the specs are not in force yet
		}
		return err == nil && c.Guests[lease.Shelved] >= n, err
	})
	return c, err
}

func isUnknown(err error) bool { return errors.Is(err, lease.ErrUnknownCache) }

// why says what the reconciler has to say when nothing comes of waiting.
func (d *demo) why(ctx context.Context) error {
	st, err := d.client.Status(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	var lines []string
	for _, c := range st.Conditions {
		if c.Status && c.Reason != "Serving" {
			lines = append(lines, c.Reason+": "+c.Message)
		}
	}
	for _, p := range st.Pools {
		if p.Brake != "" {
			lines = append(lines, fmt.Sprintf("pool %s: brake: %s", p.Pool, p.Brake))
		}
		for _, c := range p.Conditions {
			if c.Status && c.Type != condition.Ready {
				lines = append(lines, fmt.Sprintf("pool %s: %s: %s", p.Pool, c.Reason, c.Message))
			}
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "\n"))
}

// patience is how long a step may take at most, an installation of Terraform included.
const patience = 5 * time.Minute

func (d *demo) until(ctx context.Context, ok func() (bool, error)) error {
	return d.within(ctx, d.patience, ok)
}

// within waits until ok, or says what keeps it from being so.
func (d *demo) within(ctx context.Context, limit time.Duration, ok func() (bool, error)) error {
	late := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late:
			return errors.Join(fmt.Errorf("not done within %v", limit), d.why(ctx))
		case <-tick.C:
		}
	}
}

// open leases a guest and says how.
func (d *demo) open(ctx context.Context, s *Step) (*session.Session, error) {
	start := time.Now()
	request := client.Request{Cache: cache, Wait: new(client.Duration(d.patience))}
	open, err := session.Open(ctx, d.client, session.Options{Request: request, Loud: func(text string) { fmt.Fprintln(d.Notes, text) }})
	if errors.Is(err, lease.ErrOver) {
		err = errors.Join(err, d.why(ctx))
	}
	if err != nil {
		return nil, err
	}
	l := open.Lease()
	s.Seconds, s.Guest, s.Hit = time.Since(start).Seconds(), l.Guest.Name, &l.Hit
	s.Detail = fmt.Sprintf("%s, a %s", l.Guest.Name, map[bool]string{true: "hit", false: "miss"}[l.Hit])
	return open, nil
}

// use is a job: a lease, a command in its guest, and the release. Each part is a step of its own.
func (d *demo) use(ctx context.Context, s *Step, guest *string) error {
	open, err := d.open(ctx, s)
	if err != nil {
		return err
	}
	*guest = s.Guest
	if err := d.job(ctx, open, *s); err != nil {
		return errors.Join(err, open.Close(ctx, client.Release{Outcome: "fail"}))
	}
	start := time.Now()
	if err := open.Close(ctx, client.Release{Outcome: "pass"}); err != nil {
		return err
	}
	if err := d.settled(ctx, *guest, lease.Shelved); err != nil {
		return err
	}
	*s = Step{Step: "release", Guest: *guest, Detail: *guest + " is reset and shelved", Seconds: time.Since(start).Seconds()}
	return nil
}

// job tells of the lease, and runs a command in its guest.
func (d *demo) job(ctx context.Context, open *session.Session, leased Step) (err error) {
	if err := d.tell(leased, time.Now()); err != nil {
		return err
	}
	start := time.Now()
	ran := Step{Step: "command inside the guest", Guest: leased.Guest}
	if ran.Detail, err = d.command(ctx, open); err != nil {
		return err
	}
	return d.tell(ran, start)
}

func (d *demo) command(ctx context.Context, open *session.Session) (string, error) {
	guest, err := open.Dial(ctx)
	if err != nil {
		return "", err
	}
	defer guest.Close()
	var out, complaints bytes.Buffer // two, because they are written at the same time
	const line = `echo "$GREENROOM_GUEST says hello from $(pwd)"`
	code, err := guest.Run(ctx, line, nil, &out, &complaints, nil)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d: %s", code, complaints.String())
	}
	return strings.TrimSpace(out.String()), err
}

func (d *demo) settled(ctx context.Context, guest string, state lease.State) error {
	return d.until(ctx, func() (bool, error) {
		g, err := d.client.Guest(ctx, guest)
		return g.State == state, err
	})
}

func (d *demo) again(ctx context.Context, s *Step, guest string) error {
	open, err := d.open(ctx, s)
	if err != nil {
		return err
	}
	if err := open.Close(ctx, client.Release{Outcome: "pass"}); err != nil {
		return err
	}
	if s.Guest != guest {
		return fmt.Errorf("got %s, want %s again", s.Guest, guest)
	}
	s.Detail += ": the same guest"
	return d.settled(ctx, guest, lease.Shelved)
}

// raise changes the spec, as a commit would.
func (d *demo) raise(ctx context.Context, s *Step) error {
	file := filepath.Join(d.specs, "fleet.hcl")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	raised := bytes.Replace(text, []byte("warm = 2"), []byte("warm = 4"), 1)
	if bytes.Equal(raised, text) {
		return errors.New("the example fleet has no \"warm = 2\" to raise")
	}
	if err := os.WriteFile(file, raised, 0o600); err != nil {
		return err
	}
	if _, err := d.shelved(ctx, 4); err != nil {
		return err
	}
	s.Detail = "from 2 to 4 in the spec, and so many are shelved"
	return nil
}

// retireAll empties the fleet and waits until no guest is left.
func (d *demo) retireAll(ctx context.Context) error {
	start := time.Now()
	if err := d.wantNothing(); err != nil {
		return err
	}
	err := d.within(ctx, cleanUp, func() (bool, error) {
		guests, err := d.client.Guests(ctx, "")
		if err == nil {
			err = d.letGo(ctx, guests)
		}
		return len(guests) == 0 && err == nil, err
	})
	if err != nil {
		return fmt.Errorf("retiring all guests: %w\nwhat is left is in %s; try again with: greenroom demo --exit --dir %s", err, d.Dir, d.Dir)
	}
	d.left = false
	return d.tell(Step{Step: "guests retired", Detail: "nothing is left behind"}, start)
}

// letGo ends the leases and holds that a demo which was killed, or whoever tries one, has left: their guests are not retired before.
func (d *demo) letGo(ctx context.Context, guests []lease.Guest) error {
	for _, g := range guests {
		if g.State != lease.Held {
			continue
		}
		if _, err := d.client.Taint(ctx, g.Name, "the demo ends"); err != nil && !errors.Is(err, lease.ErrUnknownGuest) && !errors.Is(err, lease.ErrConflict) {
			return err
		}
	}
	if slices.ContainsFunc(guests, func(g lease.Guest) bool { return g.State == lease.Leased }) {
		return d.releaseAll(ctx)
	}
	return nil
}

func (d *demo) releaseAll(ctx context.Context) error {
	leases, err := d.client.Leases(ctx, "")
	for _, l := range leases {
		if _, failed := d.client.Release(ctx, l.ID, client.Release{}); failed != nil && !errors.Is(failed, lease.ErrUnknownLease) && !errors.Is(failed, lease.ErrOver) {
			err = errors.Join(err, failed)
		}
	}
	return err
}
