package prepare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/specs"
)

const (
	// maxEvidence leaves the end of the output its room in what the store keeps of a taint's evidence, 2 KiB.
	maxEvidence = 1700
	maxBroken   = 3 // sessions that break off before a script is given up
	maxBackoff  = 5 * time.Second
)

// script is one visit to a guest.
type script struct {
	kind  string // prepare or reset
	spec  specs.Script
	limit time.Duration
	part  string // the command by which the guest's module parts it from its last holder, run first; empty: none
}

func (s script) empty() bool { return len(s.spec.Body) == 0 && s.part == "" }

// partCommand is what the guest's module offers in the attribute "reset", if it does.
func partCommand(g lease.Guest) string {
	var offered struct {
		Reset string `json:"reset"`
	}
	if json.Unmarshal(g.Attributes, &offered) != nil {
		return ""
	}
	return offered.Reset
}

// failure is the end of a command that the guest itself reported.
type failure struct {
	what   string
	exit   int
	output string
}

func (f *failure) Error() string {
	return fmt.Sprintf("%s ended with exit status %d; %s", f.what, f.exit, end(f.output))
}

// errBroken says that a session began and was cut off.
var errBroken = errors.New("broke off")

func end(output string) string {
	if strings.TrimSpace(output) == "" {
		return "it printed nothing"
	}
	if len(output) > maxEvidence {
		output = "…" + strings.ToValidUTF8(output[len(output)-maxEvidence:], "")
	}
	return "its output ends:\n" + output
}

// tail keeps the end of a stream.
type tail []byte

func (t *tail) Write(b []byte) (int, error) {
	*t = append(*t, b...)
	*t = (*t)[max(0, len(*t)-maxEvidence-1):] // one more, so that end says that there was more
	return len(b), nil
}

// visit runs the script to its end. A guest that cannot be reached is tried again for a while: that the network is slow to
// come up, or is away for a moment, is no fault of the guest's.
func (p *Preparer) visit(ctx context.Context, g lease.Guest, s script) error {
	if s.empty() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("%s did not end within %v", s.kind, s.limit))
	defer cancel()
	start := time.Now()
	wait, broken := 100*time.Millisecond, 0
	for {
		err := p.once(ctx, g, s)
		var said *failure
		if errors.Is(err, errBroken) {
			broken++
			start = time.Now()
		}
		switch {
		case err == nil || errors.As(err, &said) || errors.Is(err, ssh.ErrHostKey) || ctx.Err() != nil || broken == maxBroken:
			return err
		case time.Since(start) >= p.o.Reach:
			return fmt.Errorf("%s: the guest could not be reached for %v: %w", s.kind, p.o.Reach, err)
		}
		if !pause(ctx, wait) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		wait = min(2*wait, maxBackoff)
	}
}

// once logs in and runs everything.
func (p *Preparer) once(ctx context.Context, g lease.Guest, s script) error {
	client, err := ssh.Dial(ctx, ssh.Target{Host: g.Host, Port: g.Port, User: g.User, HostKey: g.HostKey}, p.o.Signer)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if s.part != "" {
		if err := part(ctx, client, s.part); err != nil {
			return err
		}
	}
	if len(s.spec.Body) == 0 {
		return nil
	}
	output, exit, err := client.Script(ctx, s.spec.Body, map[string]string{
		"GREENROOM_GUEST": g.Name, "GREENROOM_CACHE": g.Cache, "GREENROOM_POOL": g.Pool,
	})
	return judge(s.kind+" script "+s.spec.Path, output, exit, err)
}

// part runs the module's command as it is, because a guest may know it by its name. Its errors are kept apart, so that nothing else
// that it prints pushes them out.
func part(ctx context.Context, client *ssh.Client, command string) error {
	var out, errs tail
	exit, err := client.Run(ctx, command, nil, &out, &errs, nil)
	return judge(command, string(out)+string(errs), exit, err)
}

func judge(what, output string, exit int, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("%s %w: %w; %s", what, errBroken, err, end(output))
	case exit != 0:
		return &failure{what: what, exit: exit, output: output}
	}
	return nil
}
