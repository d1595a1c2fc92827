package watchdog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/specs"
)

const (
	maxDetail     = 400     // bytes of a result's detail
	maxBody       = 4 << 10 // bytes of an http probe's answer that are read
	maxExecOutput = 200     // bytes of an exec probe's output that are kept
)

// prober asks guests whether they are alive.
type prober struct {
	signer ssh.Signer // logs in for exec probes
	client *http.Client
}

func newProber(signer ssh.Signer) prober {
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return prober{signer: signer, client: &http.Client{Transport: transport, CheckRedirect: stay}}
}

// probe runs one probe of one guest within the probe's timeout.
func (p prober) probe(ctx context.Context, g lease.Guest, s specs.Probe) Result {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	kinds := map[string]func(context.Context, lease.Guest, specs.Probe) (string, error){
		specs.ProbeTCP: p.tcp, specs.ProbeSSH: p.ssh, specs.ProbeHTTP: p.http, specs.ProbeExec: p.exec,
	}
	r := Result{Kind: s.Kind, At: time.Now()}
	ask, known := kinds[s.Kind]
	if !known {
		r.Outcome, r.Detail = Unknown, fmt.Sprintf("there is no probe of kind %q", s.Kind)
		return r
	}
	detail, err := ask(ctx, g, s)
	r.Took = time.Since(r.At)
	r.Outcome, r.Detail = outcome(err, r.Took, s.Timeout), clip(detail)
	if err != nil {
		r.Detail = clip(err.Error())
	}
	return r
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}

// errOwn marks what keeps this host from asking, whatever the guest's condition.
var errOwn = errors.New("this host cannot probe")

// ownTrouble are the errors of connect(2) and socket(2) that are about the host that asks. EHOSTUNREACH is not among them:
// it is also what a router says of a machine that is gone.
var ownTrouble = []error{
	errOwn, context.Canceled,
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL,
	syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EPERM, syscall.EACCES,
}

// outcome tells a guest that failed from a host that could not ask. A probe that outlasted its timeout by far means that this
// host stood still meanwhile (stopped, suspended, starved).
func outcome(err error, took, timeout time.Duration) Outcome {
	var dns *net.DNSError
	switch {
	case err == nil:
		return OK
	case took > 2*timeout+10*time.Second:
		return Unknown
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return Failed
		}
		return Unknown
	case slices.ContainsFunc(ownTrouble, func(own error) bool { return errors.Is(err, own) }):
		return Unknown
	}
	return Failed
}

func target(g lease.Guest) ssh.Target {
	return ssh.Target{Host: g.Host, Port: g.Port, User: g.User, HostKey: g.HostKey}
}

func (p prober) tcp(ctx context.Context, g lease.Guest, s specs.Probe) (string, error) {
	address := net.JoinHostPort(g.Host, strconv.Itoa(cmp.Or(s.Port, g.Port)))
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	return "connected to " + address, conn.Close()
}

// ssh needs no login: the handshake includes the banner, and proves that the guest holds the pinned host key. Where the module
// cannot know the host key, the banner has to do.
func (p prober) ssh(ctx context.Context, g lease.Guest, _ specs.Probe) (string, error) {
	if g.HostKey == "" {
		banner, err := ssh.Banner(ctx, g.Host, g.Port)
		return fmt.Sprintf("answered %.80q; no host key is known", banner), err
	}
	return "answered with the pinned host key", ssh.Handshake(ctx, target(g))
}

func (p prober) http(ctx context.Context, g lease.Guest, s specs.Probe) (string, error) {
	path, query, _ := strings.Cut(cmp.Or(s.Path, "/"), "?")
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(g.Host, strconv.Itoa(s.Port)), Path: path, RawQuery: query}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errOwn, err)
	}
	req.Header.Set("User-Agent", "greenroom-watchdog")
	resp, err := p.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case err != nil:
		return "", fmt.Errorf("GET %s: %s, then: %w", u.Path, resp.Status, err)
	case resp.StatusCode < 200 || resp.StatusCode > 399:
		return "", fmt.Errorf("GET %s: %s (want 2xx or 3xx): %.200q", u.Path, resp.Status, body)
	}
	return fmt.Sprintf("GET %s: %s", u.Path, resp.Status), nil
}

func (p prober) exec(ctx context.Context, g lease.Guest, s specs.Probe) (string, error) {
	if p.signer == nil {
		return "", fmt.Errorf("%w: the server has no SSH key for exec probes", errOwn)
	}
	client, err := ssh.Dial(ctx, target(g), p.signer)
	if err != nil {
		return "", err
	}
	defer func() { _ = client.Close() }()
	defer context.AfterFunc(ctx, func() { _ = client.Close() })()
	words := make([]string, len(s.Command))
	for i, w := range s.Command {
		words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	var out head
	exit, err := client.Run(ctx, strings.Join(words, " "), nil, &out, &out, nil)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s did not end within %v: %w", s.Command[0], s.Timeout, ctx.Err())
	case err != nil:
		return "", err
	case exit != 0:
		return "", fmt.Errorf("exit status %d: %s", exit, out.text)
	}
	return "exit status 0", nil
}

// head is a writer that keeps the first bytes. The ssh client writes to it from one goroutine per stream.
type head struct {
	mu   sync.Mutex
	text []byte
}

func (h *head) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = append(h.text, b[:min(len(b), maxExecOutput-len(h.text))]...)
	return len(b), nil
}
