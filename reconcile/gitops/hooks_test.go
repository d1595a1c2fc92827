package gitops

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const hookSecret = "correct horse battery staple"

// signingToken is the one of the examples of Standard Webhooks.
const signingToken = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func newHooks(t testing.TB, secret string) *Hooks {
	t.Helper()
	h, err := NewHooks([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// headers makes a header of names and values in turn.
func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func hexSignature(secret, body string) string {
	mac := macOf([]byte(secret), []byte(body))
	return hex.EncodeToString(mac[:])
}

func standardSignature(t testing.TB, token, id, at, body string) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(token, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	mac := macOf(key, []byte(id+"."+at+"."+body))
	return "v1," + base64.StdEncoding.EncodeToString(mac[:])
}

const pushToMain = `{"ref": "refs/heads/main", "before": "95790bf8", "after": "da156088", "commits": [{"message": "{\"ref\": \"refs/heads/evil\"}"}]}`

func TestSignaturesThatForgesDocumentAreAccepted(t *testing.T) {
	const everybody, hello = "It's a Secret to Everybody", "Hello, World!"
	const documented = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
	const message, sent = `{"test": 2432232314}`, 1614265330
	for _, c := range []struct {
		name, secret string
		forge        Forge
		header       http.Header
		body         string
	}{
		{"GitHub", everybody, GitHub, headers("X-Hub-Signature-256", "sha256="+documented), hello},
		{"Gitea", everybody, Gitea, headers("X-Gitea-Signature", documented), hello},
		{"Gitea as GitHub does it", everybody, Gitea, headers("X-Hub-Signature-256", "sha256="+documented), hello},
		{"GitLab, secret token", everybody, GitLab, headers("X-Gitlab-Token", everybody), hello},
		{"GitLab, signing token", signingToken, GitLab, headers(
			"Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "Webhook-Timestamp", fmt.Sprint(sent),
			"Webhook-Signature", "v2,AAAA v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="), message},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHooks(t, c.secret)
			h.now = func() time.Time { return time.Unix(sent, 0).Add(skew) }
			if _, err := h.check(c.forge, c.header, []byte(c.body)); err != nil {
				t.Errorf("%v", err)
			}
			if _, err := h.check(c.forge, c.header, []byte(c.body+" ")); c.header.Get("X-Gitlab-Token") == "" && !errors.Is(err, ErrForged) {
				t.Errorf("another body with the same signature: %v", err)
			}
		})
	}
}

func TestDeliveriesTellWhichRefMoved(t *testing.T) {
	const created = `{"ref": "topic", "ref_type": "branch"}`
	for _, c := range []struct {
		name, forge string
		header      http.Header
		body        string
		want        Delivery
	}{
		{"a push at GitHub", "github", headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+hexSignature(hookSecret, pushToMain)), pushToMain, Delivery{"push", "refs/heads/main", true}},
		{"a branch at GitHub", "github", headers("X-GitHub-Event", "create", "X-Hub-Signature-256", "sha256="+hexSignature(hookSecret, created)), created, Delivery{"create", "topic", true}},
		{"a ping of GitHub", "github", headers("X-GitHub-Event", "ping", "X-Hub-Signature-256", "sha256="+hexSignature(hookSecret, `{"zen": "x"}`)), `{"zen": "x"}`, Delivery{Event: "ping"}},
		{"a ref of another kind", "github", headers("X-GitHub-Event", "deployment", "X-Hub-Signature-256", "sha256="+hexSignature(hookSecret, `{"ref": {"a": 1}}`)), `{"ref": {"a": 1}}`, Delivery{Event: "deployment"}},
		{"a push at Gitea", "gitea", headers("X-Gitea-Event", "push", "X-Gitea-Signature", hexSignature(hookSecret, pushToMain)), pushToMain, Delivery{"push", "refs/heads/main", true}},
		{"a push at GitLab", "gitlab", headers("X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", hookSecret), pushToMain, Delivery{"Push Hook", "refs/heads/main", true}},
		{"a tag at GitLab", "gitlab", headers("X-Gitlab-Event", "Tag Push Hook", "X-Gitlab-Token", hookSecret), `{"ref": "refs/tags/v1"}`, Delivery{"Tag Push Hook", "refs/tags/v1", true}},
		{"an issue at GitLab", "gitlab", headers("X-Gitlab-Event", "Issue Hook", "X-Gitlab-Token", hookSecret), `{}`, Delivery{Event: "Issue Hook"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := newHooks(t, hookSecret+"\n").Verify(c.forge, c.header, []byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestForgedDeliveriesAreRefusedAlike(t *testing.T) {
	now := fmt.Sprint(time.Now().Unix())
	right, wrong := hexSignature(hookSecret, pushToMain), hexSignature("another secret of 16", pushToMain)
	for _, c := range []struct {
		name, secret, forge string
		header              http.Header
	}{
		{"no signature", hookSecret, "github", headers("X-GitHub-Event", "push")},
		{"an empty one", hookSecret, "github", headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256=")},
		{"no hexadecimal", hookSecret, "github", headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256=zz")},
		{"half of it", hookSecret, "github", headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+right[:32])},
		{"another secret", hookSecret, "github", headers("X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+wrong)},
		{"the old kind", hookSecret, "github", headers("X-GitHub-Event", "push", "X-Hub-Signature", "sha1="+right[:40])},
		{"the secret itself where it is not asked for", hookSecret, "github", headers("X-GitHub-Event", "push", "X-Gitlab-Token", hookSecret)},
		{"Gitea, another secret", hookSecret, "gitea", headers("X-Gitea-Event", "push", "X-Gitea-Signature", wrong)},
		{"Gitea, a wrong one beside a right one", hookSecret, "gitea", headers("X-Gitea-Event", "push", "X-Gitea-Signature", wrong, "X-Hub-Signature-256", "sha256="+right)},
		{"GitLab, no token", hookSecret, "gitlab", headers("X-Gitlab-Event", "Push Hook")},
		{"GitLab, half of the token", hookSecret, "gitlab", headers("X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", hookSecret[:8])},
		{"GitLab, a wrong signature beside the right token", signingToken, "gitlab", headers("X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", signingToken,
			"Webhook-Id", "1", "Webhook-Timestamp", now, "Webhook-Signature", "v1,AAAA")},
		{"GitLab, a signature without an id", signingToken, "gitlab", headers("X-Gitlab-Event", "Push Hook",
			"Webhook-Timestamp", now, "Webhook-Signature", standardSignature(t, signingToken, "", now, pushToMain))},
		{"GitLab, no time", signingToken, "gitlab", headers("X-Gitlab-Event", "Push Hook",
			"Webhook-Id", "1", "Webhook-Timestamp", "now", "Webhook-Signature", standardSignature(t, signingToken, "1", "now", pushToMain))},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHooks(t, c.secret)
			if _, err := h.Verify(c.forge, c.header, []byte(pushToMain)); err != ErrForged {
				t.Errorf("got %v, want %v and no word more", err, ErrForged)
			}
			if len(h.marks) > 0 {
				t.Error("a forged delivery is remembered")
			}
		})
	}
}

func TestWhatIsNoDeliveryIsRefusedWithAReason(t *testing.T) {
	signed := func(body string, more ...string) http.Header {
		return headers(append([]string{"X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256=" + hexSignature(hookSecret, body)}, more...)...)
	}
	for _, c := range []struct {
		name, secret, forge string
		header              http.Header
		body                string
		want                error
	}{
		{"webhooks are off", "", "github", signed(pushToMain), pushToMain, ErrHooksOff},
		{"an unknown forge", hookSecret, "sourceforge", signed(pushToMain), pushToMain, ErrUnknownForge},
		{"a form", hookSecret, "github", signed("payload=%7B%7D", "Content-Type", "application/x-www-form-urlencoded; charset=utf-8"), "payload=%7B%7D", ErrForm},
		{"no JSON", hookSecret, "github", signed("ref"), "ref", ErrUnreadable},
		{"no object", hookSecret, "github", signed("[1]"), "[1]", ErrUnreadable},
		{"no ref", hookSecret, "github", signed("{}"), "{}", ErrUnreadable},
		{"a ref that would spoil a log", hookSecret, "github", signed(`{"ref": "a\nb"}`), `{"ref": "a\nb"}`, ErrUnreadable},
		{"a ref without end", hookSecret, "github", signed(`{"ref": "` + strings.Repeat("a", 256) + `"}`), `{"ref": "` + strings.Repeat("a", 256) + `"}`, ErrUnreadable},
		{"no event", hookSecret, "github", signed(pushToMain, "X-GitHub-Event", ""), pushToMain, ErrUnreadable},
		{"an event that would spoil a log", hookSecret, "github", signed(pushToMain, "X-GitHub-Event", "push\x1b[2J"), pushToMain, ErrUnreadable},
		{"far too deep", hookSecret, "github", signed(`{"a":` + strings.Repeat("[", 20000)), `{"a":` + strings.Repeat("[", 20000), ErrUnreadable},
		{"far too long", hookSecret, "github", signed(pushToMain), pushToMain + strings.Repeat(" ", maxPayload), ErrUnreadable},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := newHooks(t, c.secret).Verify(c.forge, c.header, []byte(c.body)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestADeliveryIsTakenOnce(t *testing.T) {
	now := fmt.Sprint(time.Now().Unix())
	const other = `{"ref": "refs/heads/other"}`
	github := func(id, body string) http.Header {
		return headers("X-GitHub-Event", "push", "X-GitHub-Delivery", id, "X-Hub-Signature-256", "sha256="+hexSignature(hookSecret, body))
	}
	bearer := func(name, id string) http.Header {
		return headers("X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", hookSecret, name, id)
	}
	message := func(id, at string) http.Header {
		return headers("X-Gitlab-Event", "Push Hook", "Webhook-Id", id, "Webhook-Timestamp", at, "Webhook-Signature", standardSignature(t, signingToken, id, at, pushToMain))
	}
	for _, c := range []struct {
		name, secret  string
		forge, forge2 string
		first, second http.Header
		body2         string
		want          error
	}{
		{"the very same", hookSecret, "github", "github", github("1", pushToMain), github("1", pushToMain), pushToMain, ErrReplayed},
		{"under another id, which is not signed", hookSecret, "github", "github", github("1", pushToMain), github("2", pushToMain), pushToMain, ErrReplayed},
		{"at another forge's door", hookSecret, "github", "gitea", github("1", pushToMain), headers("X-Gitea-Event", "push", "X-Hub-Signature-256", "sha256="+hexSignature(hookSecret, pushToMain)), pushToMain, ErrReplayed},
		{"another body under the same id", hookSecret, "github", "github", github("1", pushToMain), github("1", other), other, ErrReplayed},
		{"another delivery", hookSecret, "github", "github", github("1", pushToMain), github("2", other), other, nil},
		{"GitLab, retried", hookSecret, "gitlab", "gitlab", bearer("Idempotency-Key", "1"), bearer("Idempotency-Key", "1"), pushToMain, ErrReplayed},
		{"GitLab, retried by one of an older release", hookSecret, "gitlab", "gitlab", bearer("X-Gitlab-Event-UUID", "1"), bearer("X-Gitlab-Event-UUID", "1"), pushToMain, ErrReplayed},
		{"GitLab, a second push that looks the same", hookSecret, "gitlab", "gitlab", bearer("Idempotency-Key", "1"), bearer("Idempotency-Key", "2"), pushToMain, nil},
		{"GitLab, without an id", hookSecret, "gitlab", "gitlab", bearer("X", ""), bearer("X", ""), pushToMain, ErrReplayed},
		{"GitLab, signed", signingToken, "gitlab", "gitlab", message("1", now), message("1", now), pushToMain, ErrReplayed},
		{"GitLab, signed, another", signingToken, "gitlab", "gitlab", message("1", now), message("2", now), pushToMain, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHooks(t, c.secret)
			if _, err := h.Verify(c.forge, c.first, []byte(pushToMain)); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Verify(c.forge2, c.second, []byte(c.body2)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestASignatureOfLongAgoIsAReplay(t *testing.T) {
	h := newHooks(t, signingToken)
	for _, age := range []time.Duration{skew + time.Minute, -skew - time.Minute} {
		at := fmt.Sprint(time.Now().Add(-age).Unix())
		_, err := h.Verify("gitlab", headers("X-Gitlab-Event", "Push Hook", "Webhook-Id", "1", "Webhook-Timestamp", at,
			"Webhook-Signature", standardSignature(t, signingToken, "1", at, pushToMain)), []byte(pushToMain))
		if !errors.Is(err, ErrReplayed) || !strings.Contains(err.Error(), "clocks") {
			t.Errorf("signed %s ago: %v", age, err)
		}
	}
}

func TestTheMemoryOfDeliveriesIsBoundedAndForgetsTheOldest(t *testing.T) {
	h := newHooks(t, hookSecret)
	deliver := func(n int) error {
		body := fmt.Sprintf(`{"ref": "refs/heads/b%d"}`, n)
		_, err := h.Verify("github", headers("X-GitHub-Event", "push", "X-GitHub-Delivery", fmt.Sprint(n), "X-Hub-Signature-256", "sha256="+hexSignature(hookSecret, body)), []byte(body))
		return err
	}
	for n := range remembered/2 + 1 {
		if err := deliver(n); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.marks) != remembered || h.order.Len() != remembered {
		t.Errorf("%d marks, %d in order, want %d", len(h.marks), h.order.Len(), remembered)
	}
	if err := deliver(1); !errors.Is(err, ErrReplayed) {
		t.Errorf("the second: %v", err)
	}
	if err := deliver(0); err != nil {
		t.Errorf("the first, which is forgotten: %v", err)
	}
	if err := deliver(1); !errors.Is(err, ErrReplayed) {
		t.Errorf("the second, which was tried again lately: %v", err)
	}
}

func TestSecretsThatCanBeGuessedAreRefused(t *testing.T) {
	for secret, want := range map[string]string{
		"":                      "",
		"  \n":                  "",
		"0123456789abcdef":      "",
		"0123456789abcde\n":     "has 15 bytes",
		signingToken:            "",
		"whsec_not base64, but": "signing token",
		"whsec_c2hvcnQ=aaaaaaa": "signing token",
		"whsec_c2hvcnRlcg==":    "signing token",
	} {
		_, err := NewHooks([]byte(secret))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", secret, err)
		}
		if err != nil && strings.Contains(err.Error(), strings.TrimSpace(secret)) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func FuzzOnlySignedDeliveriesAreTaken(f *testing.F) {
	right := hexSignature(hookSecret, pushToMain)
	f.Add("github", right, "push", "1", "application/json", []byte(pushToMain))
	f.Add("gitea", "sha256="+right, "push", "", "", []byte(pushToMain))
	f.Add("gitlab", hookSecret, "Push Hook", "1", "", []byte(pushToMain))
	f.Add("gitlab", "v1,AAAA v1,=", "Push Hook", "1614265330", "", []byte(`{"ref":1}`))
	f.Add("github", "", "push\n", "", "application/x-www-form-urlencoded", []byte("payload={}"))
	f.Fuzz(func(t *testing.T, forge, signature, event, id, kind string, body []byte) {
		header := headers("Content-Type", kind, "X-GitHub-Event", event, "X-Gitea-Event", event, "X-Gitlab-Event", event,
			"X-Hub-Signature-256", signature, "X-Gitea-Signature", signature, "X-Gitlab-Token", signature, "Webhook-Signature", signature,
			"Webhook-Id", id, "Webhook-Timestamp", id, "X-GitHub-Delivery", id, "Idempotency-Key", id)
		for _, secret := range []string{hookSecret, signingToken} {
			h := newHooks(t, secret)
			d, err := h.Verify(forge, header, body)
			if err != nil {
				if diff := cmp.Diff(Delivery{}, d); diff != "" {
					t.Errorf("a refused delivery says something: %s", diff)
				}
				continue
			}
			signed := strings.EqualFold(strings.TrimPrefix(signature, "sha256="), hexSignature(secret, string(body)))
			bearer := forge == "gitlab" && signature == secret
			message := forge == "gitlab" && secret == signingToken && strings.Contains(signature, standardSignature(t, secret, id, id, string(body)))
			if !signed && !bearer && !message {
				t.Errorf("taken without the secret: %+v", d)
			}
			if !printable(d.Ref, maxRef) || !printable(d.Event, maxName) {
				t.Errorf("not fit for a log: %q %q", d.Event, d.Ref)
			}
			if _, err := h.Verify(forge, header, body); !errors.Is(err, ErrReplayed) {
				t.Errorf("taken twice: %v", err)
			}
		}
	})
}
