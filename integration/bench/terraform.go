package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"greenroom/reconcile/terraform"
)

// spied is a Terraform with a script in front of it that writes down when each of its processes starts. The script costs the
// server that it is given to about two milliseconds a process.
type spied struct{ path, log string }

// spy needs bash, whose clock is there without another process.
func (l *lab) spy() (spied, error) {
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		return spied{}, fmt.Errorf("terraform is missing (make install): %w", err)
	}
	dir, err := l.place()
	if err != nil {
		return spied{}, err
	}
	s := spied{path: filepath.Join(dir, "terraform"), log: filepath.Join(dir, "started")}
	script := fmt.Sprintf("#!/bin/bash\necho \"$1 $EPOCHREALTIME\" >> %q\nexec %q \"$@\"\n", s.log, terraform)
	return s, os.WriteFile(s.path, []byte(script), 0o700)
}

// started is one process of Terraform.
type started struct {
	op string
	at time.Time
}

func (s spied) all() (all []started, err error) {
	text, err := os.ReadFile(s.log)
	if os.IsNotExist(err) {
		return nil, nil
	}
	for line := range strings.Lines(string(text)) {
		op, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		micros, err := strconv.ParseInt(strings.Replace(at, ".", "", 1), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the script in front of Terraform has written %q: %w", line, err)
		}
		all = append(all, started{op, time.UnixMicro(micros)})
	}
	return all, err
}

// after is how long after a time the first process of a kind was started.
func (s spied) after(t time.Time, op string) (time.Duration, error) {
	all, err := s.all()
	for _, p := range all {
		if p.op == op && p.at.After(t) {
			return p.at.Sub(t), nil
		}
	}
	if err == nil {
		err = fmt.Errorf("no terraform %s was started", op)
	}
	return 0, err
}

// root is a Terraform root for people who have no Greenroom: one module, the guests as its input, one local state.
type root struct {
	dir, pool string
	guests    map[string]terraform.Guest
	variables map[string]any
	env       []string
}

// bareRoot makes a root of a module's directory, which is linked, and initializes it.
func (l *lab) bareRoot(ctx context.Context, module, pool string, variables map[string]any, env ...string) (*root, error) {
	dir, err := l.place()
	if err != nil {
		return nil, err
	}
	r := &root{dir: dir, pool: pool, guests: map[string]terraform.Guest{}, variables: variables, env: environ(append(env, "CHECKPOINT_DISABLE=1")...)}
	call := map[string]any{
		"source": "./module", "guests": "${var.guests}", "pool": pool, "ssh_authorized_keys": []string{},
	}
	maps.Copy(call, variables)
	main := map[string]any{
		"variable": map[string]any{"guests": map[string]any{"type": "map(object({incarnation=number,user_data=string}))"}},
		"module":   map[string]any{"guests": call},
		"output":   map[string]any{"guests": map[string]any{"value": "${module.guests.guests}", "sensitive": true}},
	}
	if err := os.Symlink(module, filepath.Join(dir, "module")); err != nil {
		return nil, err
	}
	if err := r.write("main.tf.json", main); err != nil {
		return nil, err
	}
	_, err = r.terraform(ctx, "init", "-input=false")
	return r, err
}

func (r *root) write(name string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, name), body, 0o600)
}

// want changes the input, by how many guests there are to be.
func (r *root) want(guests int) error {
	for n := range guests {
		r.guests[fmt.Sprintf("%s-%d", r.pool, n+1)] = terraform.Guest{Incarnation: 1}
	}
	return r.write("guests.auto.tfvars.json", map[string]any{"guests": r.guests})
}

// apply is what a person would type.
func (r *root) apply(ctx context.Context, args ...string) (time.Duration, error) {
	return r.terraform(ctx, append([]string{"apply", "-input=false", "-auto-approve"}, args...)...)
}

func (r *root) terraform(ctx context.Context, args ...string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "terraform", args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("terraform %s: %w\n%s", strings.Join(args, " "), err, &said)
	}
	return time.Since(start), nil
}

// outputs are the guests as the state has them.
func (r *root) outputs() (map[string]terraform.Output, error) {
	var state struct {
		Outputs struct {
			Guests struct {
				Value map[string]terraform.Output `json:"value"`
			} `json:"guests"`
		} `json:"outputs"`
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "terraform.tfstate"))
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	return state.Outputs.Guests.Value, err
}
