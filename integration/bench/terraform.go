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

// log is a file to which others write the time, a line each.
type log struct{ path string }

// after is how long after a time the first line was written.
func (f log) after(t time.Time) (time.Duration, error) {
	lines, err := f.lines()
	for _, line := range lines {
		micros, err := strconv.ParseInt(strings.Replace(line, ".", "", 1), 10, 64) // bash's EPOCHREALTIME
		if err != nil {
			return 0, fmt.Errorf("%s has the line %q: %w", f.path, line, err)
		}
		if at := time.UnixMicro(micros); at.After(t) {
			return at.Sub(t), nil
		}
	}
	if err == nil {
		err = fmt.Errorf("%s has no time after %v", f.path, t)
	}
	return 0, err
}

func (f log) lines() ([]string, error) {
	text, err := os.ReadFile(f.path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}

// spy puts a script in front of Terraform that writes down when each of its processes starts.
func (l *lab) spy() (path string, started log, err error) {
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		return "", log{}, fmt.Errorf("terraform is missing (make install): %w", err)
	}
	dir, err := l.place()
	if err != nil {
		return "", log{}, err
	}
	path, started = filepath.Join(dir, "terraform"), log{filepath.Join(dir, "started")}
	script := fmt.Sprintf("#!/bin/bash\necho $EPOCHREALTIME >> %q\nexec %q \"$@\"\n", started.path, terraform)
	return path, started, os.WriteFile(path, []byte(script), 0o700)
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
