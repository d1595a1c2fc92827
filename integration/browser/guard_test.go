package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// paused tells whether pool large is.
func paused(t *testing.T) bool {
	t.Helper()
	var pool struct{ Conditions []struct{ Reason string } }
	var woken any
	noError(t, home.call(home.admin, "POST", "/v1/reconcile", `{"pools": ["large"]}`, &woken))
	noError(t, home.call(home.admin, "GET", "/v1/pools/large", "", &pool))
	for _, c := range pool.Conditions {
		if c.Reason == "Paused" {
			return true
		}
	}
	return false
}

func TestWhoIsNotSignedInSeesNothingAndSignsInByTheKeyboard(t *testing.T) {
	b := stranger(t)
	for _, path := range []string{"/", "/queue", "/plans", "/pools/local", "/guests/local-1", "/caches/ci"} {
		b.visit(path)
		if got := eval[string](b, "document.querySelector('h1').textContent"); got != "Sign in" {
			t.Errorf("%s shows %q to somebody who is not signed in", path, got)
		}
	}
	const ready = `document.readyState === "complete" && document.activeElement.id === "token"`
	b.until(ready)
	b.press("w", "r", "o", "n", "g", kb.Enter)
	b.shows("The token is unknown, revoked or expired.")
	b.until(ready)
	b.forgive("401")
	b.do(chromedp.KeyEvent(home.carol + kb.Enter))
	b.shows("Cache ci") // which was asked for
	if n := eval[int](b, "document.querySelectorAll('.act').length"); n != 0 {
		t.Errorf("a user is shown %d actions", n)
	}
	if status := eval[int](b, `fetch("/pools/large/pause", { method: "POST", body: new URLSearchParams({ csrf: document.querySelector("[name=csrf]").value }) }).then((r) => r.status)`); status != 403 || paused(t) {
		t.Errorf("the order of a user is answered with %d", status)
	}
	b.forgive("403")
}

// A page on another port is of the same site, so that even the strictest of cookies comes with what it sends.
func TestAFormThatWasNotMadeHereIsRefused(t *testing.T) {
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<link rel="icon" href="data:,"><form method="post" action="%s/pools/large/pause"><input name="csrf" value="x"><button>You have won</button></form>`, home.url)
	}))
	t.Cleanup(evil.Close)
	b := open(t, home.admin, "/pools/large")
	b.do(chromedp.Navigate(evil.URL))
	b.click("button")
	b.shows("The form did not come from a page of this server")
	b.visit("/pools/large")
	for what, form := range map[string]string{"without a token": `{}`, "with a token of nobody's": `{ csrf: "x" }`} {
		status := eval[int](b, `fetch("/pools/large/pause", { method: "POST", body: new URLSearchParams(`+form+`) }).then((r) => r.status)`)
		if status != 403 {
			t.Errorf("a form %s is answered with %d, want 403", what, status)
		}
	}
	if paused(t) {
		t.Error("the pool is paused")
	}
	b.forgive("403")
	b.knows(evil.URL)
}

func TestAPageRunsAndLoadsNothingThatIsNotItsOwn(t *testing.T) {
	b := open(t, home.admin, "/caches/ci")
	eval[bool](b, `const s = document.createElement("script"); s.textContent = "pwned = 1"; document.body.append(s); document.body.insertAdjacentHTML("beforeend", "<img src='http://127.0.0.1:1/x.png' onerror='pwned = 1'><p style='color: red'>"); true`)
	b.until("document.images[0].complete")
	if eval[bool](b, `"pwned" in window`) {
		t.Error("a script that was planted has run")
	}
	for _, directive := range []string{"script-src 'self'", "img-src 'self'", "style-src 'self'"} {
		if !b.complained(directive) {
			t.Errorf("the browser was not held back by %q: %q", directive, b.faults)
		}
	}
	b.forgive("violates the following Content Security Policy directive")
	b.knows("http://127.0.0.1:1")
}

func TestHostileWordsAreShownAndDoNothing(t *testing.T) {
	words := map[string]string{"reason": hostile}
	b := open(t, home.admin, "/")
	noError(t, home.post("/v1/pools/large/pause", words))
	t.Cleanup(func() { noError(t, home.post("/v1/pools/large/resume", nil)) })
	noError(t, home.post("/v1/caches/nightly/disable", words))
	t.Cleanup(func() { noError(t, home.call(home.admin, "DELETE", "/v1/caches/nightly/override", "", nil)) })
	home.lease(t, home.carol, "nightly")
	noError(t, home.post("/v1/guests/single-1/taint", words))
	fault := filepath.Join(home.dir, "specs", hostile+".hcl") // what is in it is not told, but its name is
	noError(t, os.WriteFile(fault, []byte("pool {}\n"), 0o600))
	t.Cleanup(func() { noError(t, os.Remove(fault)) })
	for path, place := range map[string]string{
		"/": "[data-key=fault] pre", "/pools/large": ".banner", "/caches/nightly": ".banner", "/queue": ".note", "/guests/single-1": "[data-key=life-1]",
		plan(t, more): "main",
	} {
		b.visit(path)
		b.until(fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", place, hostile))
		if eval[bool](b, `"pwned" in window || document.querySelector("img, main script, [onload]") !== null`) {
			t.Errorf("%s has what was planted as part of the page", path)
		}
		b.audited(path)
	}
}
