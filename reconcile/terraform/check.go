package terraform

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// CheckStep is one step of a module's check.
type CheckStep struct {
	Name    string  `json:"step"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

// ErrLeft means that a check could not destroy what it had made.
var ErrLeft = errors.New("what was made is still there")

// Check holds a module against the contract: what it declares, and then by really making guests
// of it with d, in a shard named "check": create two, plan again, replace one, destroy all. report gets each
// step as it ends. After a failure it still tries to destroy what was made; the error is ErrLeft too when it could not.
func Check(ctx context.Context, d *Driver, dir string, vars json.RawMessage, report func(CheckStep)) error {
	key, err := checkKey()
	if err != nil {
		return err
	}
	c := &check{driver: d, dir: dir, vars: vars, key: key, report: report, guests: map[string]Guest{}}
	if err := c.step("declarations", func() error { return checkDir(dir, vars) }); err != nil {
		return err
	}
	err = c.life(ctx)
	if err == nil || c.empty(ctx) {
		return err
	}
	undo := c.step("destroy what was made", func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.opts.Budgets.Total)
		defer cancel()
		return c.destroy(ctx)
	})
	if undo != nil && !c.empty(ctx) {
		err = fmt.Errorf("%w; %w, with its state in %s", err, ErrLeft, d.shard(checkShard).work())
	}
	return err
}

// empty tells that the state has nothing, as where not even a plan could be made. What cannot be read may have something.
func (c *check) empty(ctx context.Context) bool {
	err := c.driver.Remove(context.WithoutCancel(ctx), checkShard)
	return err == nil || errors.Is(err, ErrNoShard)
}

const (
	checkShard = "check"
	checkOne   = "check-1"
	checkTwo   = "check-2"
)

type check struct {
	driver *Driver
	dir    string
	vars   json.RawMessage
	key    string
	report func(CheckStep)
	guests map[string]Guest
	first  Outcome
	runs   int
}

// checkKey is a throw-away public key, for modules that insist on one.
func checkKey() (string, error) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), nil
}

func checkDir(dir string, vars json.RawMessage) error {
	if info, err := os.Stat(dir); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a directory: the directory of a Terraform module is needed", dir)
	}
	mod, err := readModule(dir)
	if err != nil {
		return err
	}
	in := intent{Job: Job{Shard: checkShard, Run: checkShard, Variables: vars}}
	if err := in.Job.check(); err != nil {
		return err
	}
	return checkModule(mod, in.variables())
}

func (c *check) step(name string, do func() error) error {
	began := time.Now()
	err := do()
	step := CheckStep{Name: name, Seconds: time.Since(began).Seconds()}
	if err != nil {
		step.Error = err.Error()
		err = fmt.Errorf("%s: %w", name, err)
	}
	c.report(step)
	return err
}

// life takes two guests from birth to death.
func (c *check) life(ctx context.Context) error {
	steps := []struct {
		name string
		do   func() error
	}{
		{"create two guests", func() error { return c.create(ctx) }},
		{"plan again: no changes", func() error { return c.again(ctx) }},
		{"replace one guest", func() error { return c.replace(ctx) }},
		{"destroy all guests", func() error { return c.destroy(ctx) }},
	}
	for _, s := range steps {
		if err := c.step(s.name, s.do); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) run(ctx context.Context, change func(*Job)) (Outcome, error) {
	c.runs++
	job := Job{
		Shard: checkShard, Run: fmt.Sprintf("run-%d", c.runs), Pool: "check", Module: Module{Dir: c.dir},
		Guests: c.guests, AuthorizedKeys: []string{c.key}, Variables: c.vars,
	}
	change(&job)
	running, err := c.driver.Start(ctx, job)
	if err != nil {
		return Outcome{}, err
	}
	out, err := running.Wait(ctx)
	if err != nil { // the caller gave up: end the run in order
		err = errors.Join(err, running.Interrupt())
		<-running.done
		return Outcome{}, errors.Join(err, c.driver.Ack(job.Shard, job.Run))
	}
	if err := c.driver.Ack(job.Shard, job.Run); err != nil {
		return out, err
	}
	if out.Err != nil {
		return out, out.Err
	}
	return out, nil
}

func (c *check) create(ctx context.Context) error {
	c.guests = map[string]Guest{checkOne: {Incarnation: 1}, checkTwo: {Incarnation: 1}}
	var err error
	c.first, err = c.run(ctx, func(j *Job) { j.Create = []string{checkOne, checkTwo} })
	return err
}

func (c *check) again(ctx context.Context) error {
	out, err := c.run(ctx, func(j *Job) { j.DriftOnly = true })
	if err == nil && out.Changed {
		err = errors.New("a second plan with the same inputs wants to change something again; a module must be stable")
	}
	return err
}

func (c *check) replace(ctx context.Context) error {
	c.guests[checkOne] = Guest{Incarnation: 2}
	out, err := c.run(ctx, func(j *Job) { j.Replace = []string{checkOne} })
	if err == nil && !reflect.DeepEqual(out.Guests[checkTwo], c.first.Guests[checkTwo]) {
		err = fmt.Errorf("replacing guest %s has changed the output of guest %s", checkOne, checkTwo)
	}
	return err
}

func (c *check) destroy(ctx context.Context) error {
	out, err := c.run(ctx, func(j *Job) { j.Guests, j.Destroy = nil, []string{checkOne, checkTwo} })
	if err == nil && len(out.Incarnations) > 0 {
		err = errors.New("guests are left after their destruction")
	}
	return err
}
