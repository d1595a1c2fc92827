package server

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"greenroom/reconcile/gitops"
)

// maxHook is the most bytes of a webhook's body.
const maxHook = 5 << 20

// hooks is what the API needs to know a forge's webhook from a forged one.
type hooks interface {
	Verify(forge string, header http.Header, body []byte) (gitops.Delivery, error)
}

// source is what the API needs of where the specs come from.
type source interface {
	// Ref is what it follows; empty: the remote's default branch, or a directory.
	Ref() string
	// Poke makes it look soon. It does not block.
	Poke()
}

// hooked is the answer to a webhook.
type hooked struct {
	Event   string `json:"event"`
	Ref     string `json:"ref,omitempty"`
	Ignored string `json:"ignored,omitempty"` // why the source need not look
}

// hook takes a webhook, which has a signature in place of a bearer token.
func (a *api) hook(w http.ResponseWriter, r *http.Request) {
	forge := r.PathValue("forge")
	out, err := a.deliver(w, r, forge)
	if errors.Is(err, gitops.ErrForged) || errors.Is(err, gitops.ErrReplayed) {
		if n, now := a.refused.tell(a.Now()); now {
			a.Log.Warn(fmt.Sprintf("webhooks of %s were refused: %d since the last such line", forge, n), "remote", r.RemoteAddr, "err", err)
		}
	}
	switch {
	case err != nil:
		a.fail(w, r, err)
	case out.Ignored != "":
		write(w, http.StatusOK, jsonMedia, out)
	default:
		write(w, http.StatusAccepted, jsonMedia, out)
	}
}

func (a *api) deliver(w http.ResponseWriter, r *http.Request, forge string) (hooked, error) {
	if a.Hooks == nil {
		return hooked{}, gitops.ErrHooksOff
	}
	var buf bytes.Buffer
	if err := readAll(&buf, w, r, maxHook); err != nil {
		return hooked{}, err
	}
	d, err := a.Hooks.Verify(forge, r.Header, buf.Bytes())
	if err != nil {
		return hooked{}, err
	}
	out := hooked{Event: d.Event, Ref: d.Ref, Ignored: a.unmoved(d)}
	if out.Ignored == "" {
		a.Source.Poke()
	}
	return out, nil
}

// unmoved says why a delivery cannot have moved what is followed; empty: it may have.
func (a *api) unmoved(d gitops.Delivery) string {
	if a.Source == nil {
		return "no specs are followed here"
	}
	if !d.Push {
		return "it is no push"
	}
	followed := a.Source.Ref()
	if followed == "" { // the remote's default branch, which only the remote knows
		if strings.HasPrefix(d.Ref, "refs/heads/") {
			return ""
		}
		return "what is followed is a branch"
	}
	switch d.Ref {
	case followed, "refs/heads/" + followed, "refs/tags/" + followed:
		return ""
	}
	return "what is followed is " + followed
}

// rarely lets one line a second through, so that whoever may send something can't fill the log with it.
type rarely struct {
	mu   sync.Mutex
	last time.Time
	n    int // since then
}

// tell says whether to tell of this one now, and how many there were since the last that was told.
func (r *rarely) tell(now time.Time) (n int, tell bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if now.Sub(r.last) < time.Second {
		return 0, false
	}
	n, r.n, r.last = r.n, 0, now
	return n, true
}
