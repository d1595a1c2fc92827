package gitops

import (
	"bytes"
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Why a delivery is not taken.
var (
	ErrHooksOff     = errors.New("webhooks are off: no secret is configured for them")
	ErrUnknownForge = errors.New("unknown forge; known are github, gitlab and gitea")
	// ErrForged is one and the same answer to a signature that is missing, malformed or wrong.
	ErrForged = errors.New("the delivery is not signed with the secret of the webhooks")
	// ErrReplayed answers "Redeliver" at GitHub and "Resend" at GitLab too, which keep the id of the delivery. That is
	// harmless: all that a delivery can do is to have the repository looked at earlier than the next poll does it.
	ErrReplayed   = errors.New("the delivery was taken before, or was signed too long ago")
	ErrForm       = errors.New("the delivery is form-encoded; set the content type of the webhook to application/json")
	ErrUnreadable = errors.New("the delivery is no JSON of an event")
)

const (
	minSecret  = 16              // bytes; what is shorter can be guessed from one signature
	maxPayload = 5 << 20         // bytes of a body
	maxRef     = 255             // bytes; git itself allows hardly more
	maxName    = 64              // bytes of an event's name
	skew       = 5 * time.Minute // between the clock of a forge that signs the time and ours
	remembered = 2 * 4096        // marks; a delivery leaves two
)

// Forge is the kind of server that a delivery comes from.
type Forge string

// The forges. Forgejo speaks as Gitea does.
const (
	GitHub Forge = "github"
	GitLab Forge = "gitlab"
	Gitea  Forge = "gitea"
)

// Delivery is what a webhook says. It is a hint to look at the repository, never a thing to be believed about it.
type Delivery struct {
	Event string // as the forge names it
	Ref   string // "refs/heads/main"; a short name where a branch or tag came or went; empty: of no ref
	Push  bool   // a ref has moved
}

// Hooks checks deliveries against one secret and remembers those that it took. It is used concurrently.
type Hooks struct {
	secret  []byte
	signing []byte // key of GitLab's signatures; nil: the secret is no signing token of GitLab's
	memory  []byte // key of the marks, so that nobody can compute which of them collide
	now     func() time.Time

	mu    sync.Mutex
	marks map[hookMark]*list.Element
	order *list.List // of hookMark, newest first
}

type hookMark = [sha256.Size]byte

// NewHooks takes the secret as it stands in its file. None turns webhooks off.
func NewHooks(secret []byte) (*Hooks, error) {
	h := &Hooks{secret: bytes.TrimSpace(secret), memory: []byte(rand.Text()), now: time.Now, marks: map[hookMark]*list.Element{}, order: list.New()}
	if n := len(h.secret); n > 0 && n < minSecret {
		return nil, fmt.Errorf("the secret of the webhooks has %d bytes, and must have %d at least (openssl rand -hex 32 makes a good one)", n, minSecret)
	}
	token, ok := bytes.CutPrefix(h.secret, []byte("whsec_"))
	if !ok {
		return h, nil
	}
	var err error
	if h.signing, err = base64.StdEncoding.DecodeString(string(token)); err != nil || len(h.signing) < minSecret {
		return nil, fmt.Errorf("the secret of the webhooks begins like a signing token of GitLab's, and is none: whsec_ is followed by the base64 of %d bytes at least", minSecret)
	}
	return h, nil
}

// Verify checks the signature of a delivery in constant time and tells what it says. One that was taken is never taken again.
func (h *Hooks) Verify(forge string, header http.Header, body []byte) (Delivery, error) {
	f := Forge(forge)
	switch {
	case len(h.secret) == 0:
		return Delivery{}, ErrHooksOff
	case f != GitHub && f != GitLab && f != Gitea:
		return Delivery{}, ErrUnknownForge
	case isForm(header): // before the signature, because Gitea does not sign the form but what is in it
		return Delivery{}, ErrForm
	case len(body) > maxPayload:
		return Delivery{}, fmt.Errorf("%w: it has %d bytes, and %d are allowed", ErrUnreadable, len(body), maxPayload)
	}
	marks, err := h.check(f, header, body)
	if err != nil {
		return Delivery{}, err
	}
	d, err := readPayload(f, header, body)
	if err != nil {
		return Delivery{}, err
	}
	if !h.remember(marks) {
		return Delivery{}, ErrReplayed
	}
	return d, nil
}

func isForm(header http.Header) bool {
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	return kind == "application/x-www-form-urlencoded"
}

// check returns the marks by which a well signed delivery is known again: of its id, which most forges do not sign, and of
// what they do sign.
func (h *Hooks) check(f Forge, header http.Header, body []byte) ([]hookMark, error) {
	switch f {
	case GitHub:
		return h.signedBody(f, header.Get("X-Hub-Signature-256"), header.Get("X-GitHub-Delivery"), body)
	case Gitea:
		signature := header.Get("X-Gitea-Signature")
		if signature == "" {
			signature = header.Get("X-Hub-Signature-256")
		}
		return h.signedBody(f, signature, header.Get("X-Gitea-Delivery"), body)
	}
	if h.signing != nil && header.Get("Webhook-Signature") != "" {
		return h.signedMessage(header, body)
	}
	return h.bearer(header, body)
}

// signedBody checks the hexadecimal HMAC-SHA256 of the body that GitHub and Gitea send.
func (h *Hooks) signedBody(f Forge, signature, id string, body []byte) ([]hookMark, error) {
	want := macOf(h.secret, body)
	got, err := hex.DecodeString(strings.TrimPrefix(signature, "sha256="))
	if err != nil || !hmac.Equal(got, want[:]) {
		return nil, ErrForged
	}
	return h.marksOf(f, id, want[:]), nil
}

// signedMessage checks a signature after the Standard Webhooks, as GitLab makes it when the hook has a signing token: over
// the id, the time and the body, in a list of which one must be right.
func (h *Hooks) signedMessage(header http.Header, body []byte) ([]hookMark, error) {
	id, at := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	want := macOf(h.signing, []byte(id), []byte("."), []byte(at), []byte("."), body)
	right := false
	for signature := range strings.FieldsSeq(header.Get("Webhook-Signature")) {
		version, text, _ := strings.Cut(signature, ",")
		got, err := base64.StdEncoding.DecodeString(text)
		right = right || version == "v1" && err == nil && hmac.Equal(got, want[:])
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if !right || id == "" || err != nil {
		return nil, ErrForged
	}
	if age := h.now().Sub(time.Unix(seconds, 0)); age.Abs() > skew {
		return nil, fmt.Errorf("%w: the clocks of GitLab and of this server are %s apart, and %s are allowed", ErrReplayed, age.Abs().Round(time.Second), skew)
	}
	return h.marksOf(GitLab, id, want[:]), nil
}

// bearer checks the secret token that GitLab sends as it is. Both sides are hashed, so that not even the length can be timed.
// Who has seen such a delivery has the secret, so that a mark of its body would keep nobody out; but it would take the second
// of two pushes that look the same, to and fro and to, for a replay. Only a delivery without an id is marked by its body.
func (h *Hooks) bearer(header http.Header, body []byte) ([]hookMark, error) {
	got, want := macOf(h.memory, []byte(header.Get("X-Gitlab-Token"))), macOf(h.memory, h.secret)
	if !hmac.Equal(got[:], want[:]) {
		return nil, ErrForged
	}
	id := header.Get("Idempotency-Key")
	if id == "" {
		id = header.Get("X-Gitlab-Event-Uuid")
	}
	if id == "" {
		return h.marksOf(GitLab, "", body), nil
	}
	return h.marksOf(GitLab, id, nil), nil
}

func macOf(key []byte, parts ...[]byte) hookMark {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		mac.Write(p)
	}
	return hookMark(mac.Sum(nil))
}

func (h *Hooks) marksOf(f Forge, id string, signed []byte) []hookMark {
	var marks []hookMark
	if id != "" {
		marks = append(marks, macOf(h.memory, []byte("id of "+f+" "), []byte(id)))
	}
	if signed != nil { // whatever forge it is said to be of: one secret is for all of them
		marks = append(marks, macOf(h.memory, []byte("signed "), signed))
	}
	return marks
}

// remember tells that none of the marks is known, and knows them from then on. What was met longest ago is forgotten first.
func (h *Hooks) remember(marks []hookMark) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	fresh := true
	for _, m := range marks {
		if e := h.marks[m]; e != nil {
			h.order.MoveToFront(e)
			fresh = false
		}
	}
	if !fresh {
		return false
	}
	for _, m := range marks {
		h.marks[m] = h.order.PushFront(m)
	}
	for h.order.Len() > remembered {
		delete(h.marks, h.order.Remove(h.order.Back()).(hookMark))
	}
	return true
}

// readPayload takes the ref out of a payload and nothing else; what it skips costs no memory, and encoding/json bounds the depth.
func readPayload(f Forge, header http.Header, body []byte) (Delivery, error) {
	d := Delivery{Event: header.Get(map[Forge]string{GitHub: "X-GitHub-Event", GitLab: "X-Gitlab-Event", Gitea: "X-Gitea-Event"}[f])}
	if d.Event == "" || !printable(d.Event, maxName) {
		return Delivery{}, fmt.Errorf("%w: no header names the event", ErrUnreadable)
	}
	var payload struct {
		Ref string `json:"ref"`
	}
	switch d.Event {
	case "push", "create", "delete", "Push Hook", "Tag Push Hook":
		d.Push = true
	default: // what other events call a ref may be anything
		if !json.Valid(body) {
			return Delivery{}, ErrUnreadable
		}
		return d, nil
	}
	if err := json.Unmarshal(body, &payload); err != nil {
		return Delivery{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if payload.Ref == "" || !printable(payload.Ref, maxRef) {
		return Delivery{}, fmt.Errorf("%w: a push names a ref of %d printable bytes at most", ErrUnreadable, maxRef)
	}
	d.Ref = payload.Ref
	return d, nil
}

// printable tells that a text from outside may be logged and shown.
func printable(text string, most int) bool {
	return len(text) <= most && strings.ToValidUTF8(text, "\x00") == text && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}
