package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease/client"
	"greenroom/lease/leasetest"
	"greenroom/reconcile/gitops"
)

// fakeHooks takes every webhook for what the test says.
type fakeHooks struct {
	delivery gitops.Delivery
	err      error
	seen     []string
}

func (f *fakeHooks) Verify(forge string, header http.Header, body []byte) (gitops.Delivery, error) {
	f.seen = append(f.seen, fmt.Sprintf("%s %s %d", forge, header.Get("X-Github-Event"), len(body)))
	return f.delivery, f.err
}

type fakeSource struct {
	ref   string
	poked int
}

func (f *fakeSource) Ref() string { return f.ref }
func (f *fakeSource) Poke()       { f.poked++ }

func hooksHouse(t *testing.T) (*house, *fakeHooks, *fakeSource) {
	t.Helper()
	h := newHouse(t, leasetest.Embedded(t))
	hooks, src := &fakeHooks{}, &fakeSource{}
	h.parts.Hooks, h.parts.Source = hooks, src
	h.serveAgain()
	return h, hooks, src
}

func TestAPushOfWhatIsFollowedMakesTheSourceLook(t *testing.T) {
	h, hooks, src := hooksHouse(t)
	push := func(ref string) gitops.Delivery { return gitops.Delivery{Event: "push", Ref: ref, Push: true} }
	for name, c := range map[string]struct {
		followed string
		delivery gitops.Delivery
		ignored  string
	}{
		"the branch":                {"main", push("refs/heads/main"), ""},
		"the tag":                   {"v1", push("refs/tags/v1"), ""},
		"the whole name":            {"refs/heads/main", push("refs/heads/main"), ""},
		"another branch":            {"main", push("refs/heads/maintenance"), "what is followed is main"},
		"a branch below it":         {"main", push("refs/heads/main/x"), "what is followed is main"},
		"any branch of the default": {"", push("refs/heads/trunk"), ""},
		"a tag beside the default":  {"", push("refs/tags/v1"), "what is followed is a branch"},
		"no ref at all":             {"", push(""), "what is followed is a branch"},
		"a ping":                    {"main", gitops.Delivery{Event: "ping"}, "it is no push"},
		"another event on it":       {"main", gitops.Delivery{Event: "issues", Ref: "refs/heads/main"}, "it is no push"},
	} {
		src.ref, src.poked, hooks.delivery = c.followed, 0, c.delivery
		status := map[bool]int{true: 202, false: 200}[c.ignored == ""]
		got := ask[hooked](h, status, sent{method: "POST", path: "/v1/hooks/github", body: `{"ref": "x"}`})
		want := hooked{Event: c.delivery.Event, Ref: c.delivery.Ref, Ignored: c.ignored}
		if diff := cmp.Diff(want, got); diff != "" || (src.poked == 1) != (c.ignored == "") {
			t.Errorf("%s: poked %d times; %s", name, src.poked, diff)
		}
	}
}

func TestAWebhookReachesItsForgesCheckAsItWasSent(t *testing.T) {
	h, hooks, _ := hooksHouse(t)
	for _, forge := range []string{"github", "gitlab", "gitea"} {
		h.do(sent{method: "POST", path: "/v1/hooks/" + forge, body: " {} ", header: map[string]string{"X-GitHub-Event": "ping"}, against: true})
	}
	h.do(sent{method: "POST", path: "/v1/hooks/github", body: "payload=%7B%7D", header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, against: true})
	if diff := cmp.Diff([]string{"github ping 4", "gitlab ping 4", "gitea ping 4", "github  14"}, hooks.seen); diff != "" {
		t.Error(diff)
	}
}

func TestWebhooksAreRefusedWithTheirCodesAndLoggedWithoutTheirContent(t *testing.T) {
	h, hooks, src := hooksHouse(t)
	post := sent{method: "POST", path: "/v1/hooks/github", body: `{"secret": "hunter2"}`, against: true}
	large := post
	large.body = strings.Repeat("x", maxHook+1)
	h.refused(413, "too_large", large)
	for err, want := range map[error]struct {
		status int
		code   string
	}{
		gitops.ErrForged: {401, "forged"}, gitops.ErrReplayed: {409, "replayed"}, gitops.ErrHooksOff: {404, "hooks_off"},
		gitops.ErrUnknownForge: {404, "not_found"}, gitops.ErrForm: {415, "unsupported_media"}, gitops.ErrUnreadable: {400, "malformed"},
	} {
		hooks.err = err
		h.refused(want.status, want.code, post)
	}
	hooks.err = gitops.ErrForged
	for range 50 {
		h.do(post)
	}
	text := h.logs.String()
	if lines := strings.Count(text, "level=WARN"); lines < 1 || lines > 5 || strings.Contains(text, "hunter2") || strings.Contains(text, "hooks are off") {
		t.Errorf("%d lines are logged of 52 refused webhooks:\n%s", lines, text)
	}
	if src.poked != 0 {
		t.Errorf("the source was poked %d times", src.poked)
	}
	h.parts.Hooks = nil
	h.serveAgain()
	h.refused(404, "hooks_off", post)
}

func TestRefusedWebhooksAreToldAtMostOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rarely
		told := []int{}
		for range 35 { // ten a second
			if n, now := r.tell(time.Now()); now {
				told = append(told, n)
			}
			<-time.After(100 * time.Millisecond)
		}
		if diff := cmp.Diff([]int{1, 10, 10, 10}, told); diff != "" {
			t.Error(diff)
		}
	})
}

func TestARealSignatureIsTakenOnceAndNoOtherIs(t *testing.T) {
	h, _, src := hooksHouse(t)
	secret := []byte("0123456789abcdef0123456789abcdef")
	checked, err := gitops.NewHooks(secret)
	h.must(err)
	h.parts.Hooks = checked
	h.serveAgain()
	src.ref = "main"
	body := `{"ref": "refs/heads/main"}`
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(body))
	push := sent{method: "POST", path: "/v1/hooks/github", body: body, header: map[string]string{
		"X-GitHub-Event": "push", "X-GitHub-Delivery": "d1", "X-Hub-Signature-256": "sha256=" + hex.EncodeToString(mac.Sum(nil)),
	}}
	forged := push
	forged.body = `{"ref": "refs/heads/main", "x": 1}`
	h.refused(401, "forged", forged)
	if got := ask[hooked](h, 202, push); got != (hooked{Event: "push", Ref: "refs/heads/main"}) || src.poked != 1 {
		t.Errorf("taken: %+v, poked %d times", got, src.poked)
	}
	h.refused(409, "replayed", push)
	if src.poked != 1 {
		t.Errorf("poked %d times", src.poked)
	}
}

func TestAnOrderToReconcileMakesTheSourceLook(t *testing.T) {
	h, _, src := hooksHouse(t)
	ask[client.Reconcile](h, 202, sent{token: h.admin, method: "POST", path: "/v1/reconcile"})
	if src.poked != 1 {
		t.Errorf("the source looked %d times, want once", src.poked)
	}
}
