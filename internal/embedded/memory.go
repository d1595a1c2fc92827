package embedded

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// memory is the state in RAM: a miniredis that is driven by its owner's clock, and the scripts
// that it knows. It is not safe for concurrent use.
type memory struct {
	mini    *miniredis.Miniredis
	scripts map[string]string // by SHA-1; miniredis can't list its own
	millis  int64             // the time of the last command; never goes back
	swept   int64             // expiry has been worked out up to here
	cost    time.Duration     // of the last sweep
}

func newMemory() (*memory, error) {
	m := &memory{mini: miniredis.NewMiniRedis(), scripts: map[string]string{}}
	c, err := m.mini.Dial() // the only way to start it without a listener
	if err != nil {
		return nil, fmt.Errorf("starting the embedded Redis: %w", err)
	}
	_ = c.Close()
	// The hook sees the calls inside scripts too.
	m.mini.Server().SetPreHook(func(p *server.Peer, cmd string, args ...string) bool {
		refusal := refuse(cmd, args)
		if refusal != "" {
			p.WriteError(refusal)
		}
		return refusal != ""
	})
	return m, nil
}

// advance moves the clock to now, or leaves it where the host's clock went backwards.
//
// A sweep of expired keys walks over all keys, so it is done at most once a millisecond and takes
// at most a tenth of the time: a TTL may end early by ten times what a sweep takes.
func (m *memory) advance(now time.Time) {
	m.millis = max(m.millis, now.UnixMilli())
	m.mini.SetTime(time.UnixMilli(m.millis).UTC())
	if due := m.swept + (10 * m.cost).Milliseconds(); m.millis > due {
		start := time.Now()
		m.sweep(m.millis)
		m.cost = time.Since(start)
	}
}

// sweep takes the time since the last sweep off every TTL and deletes what has expired.
func (m *memory) sweep(until int64) {
	if m.swept > 0 && until > m.swept {
		m.mini.FastForward(time.Duration(until-m.swept) * time.Millisecond)
	}
	m.swept = max(m.swept, until)
}

// replay executes a record of the journal as it was executed then.
func (m *memory) replay(r record) error {
	m.millis = max(m.millis, r.Millis)
	m.mini.SetTime(time.UnixMilli(m.millis).UTC())
	m.sweep(r.Swept)
	p := server.NewPeer(bufio.NewWriter(io.Discard))
	for _, args := range r.Commands {
		if len(args) == 0 {
			return errPayload
		}
		m.dispatch(p, args)
	}
	return nil
}

// dispatch executes one command and writes its reply to p.
func (m *memory) dispatch(p *server.Peer, args []string) {
	if body, ok := scriptBody(args); ok {
		m.loadScript(p, body)
		return
	}
	m.mini.Server().Dispatch(p, args)
}

func (m *memory) loadScript(p *server.Peer, body string) {
	var reply bytes.Buffer
	w := server.NewPeer(bufio.NewWriter(&reply))
	m.mini.Server().Dispatch(w, []string{"SCRIPT", "LOAD", body})
	w.Flush()
	if strings.HasPrefix(reply.String(), "$") {
		m.scripts[scriptSHA(body)] = body
	}
	p.Block(func(w *server.Writer) { w.WriteRaw(reply.String()) })
}

// scriptBody returns the script of a SCRIPT LOAD.
func scriptBody(args []string) (string, bool) {
	if len(args) == 3 && strings.EqualFold(args[0], "SCRIPT") && strings.EqualFold(args[1], "LOAD") {
		return args[2], true
	}
	return "", false
}

// changes says whether the command may change something: reads don't, nor do scripts that are not
// known or known already.
func (m *memory) changes(args []string) bool {
	name := strings.ToUpper(args[0])
	body, isLoad := scriptBody(args)
	switch {
	case isLoad:
		return m.scripts[scriptSHA(body)] == ""
	case name == "EVALSHA" && len(args) > 1:
		return m.scripts[args[1]] != ""
	}
	return writes[name] && name != "SCRIPT"
}

func scriptSHA(body string) string {
	sum := sha1.Sum([]byte(body))
	return hex.EncodeToString(sum[:])
}
