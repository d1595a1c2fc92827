package browser

import (
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

var (
	update = flag.Bool("update", false, "write the screenshots that the docs show")
	look   = flag.String("look", "", "write a picture of every page that is audited to this `directory`")
)

// audit finds what keeps people from a page, as far as a script can tell. It returns sentences.
//
//go:embed audit.js
var audit string

// busy gives the pages something to show: leases, a queue, and why it stands still.
func busy(t *testing.T) {
	t.Helper()
	home.lease(t, home.jenkins, "ci")
	for range 4 {
		home.lease(t, home.carol, "nightly")
	}
	noError(t, home.call(home.admin, "POST", "/v1/pools/large/pause", `{"reason": "moving racks"}`, nil))
	t.Cleanup(func() { noError(t, home.call(home.admin, "POST", "/v1/pools/large/resume", "", nil)) })
}

func TestEveryPageCanBeUsedInEachThemeAndOnAPhone(t *testing.T) {
	busy(t)
	b := open(t, home.admin, "/")
	for _, path := range []string{"/", "/pools/local", "/pools/large?all=1", "/caches/ci", "/caches/nightly", "/caches/local", "/guests/local-1", "/queue", "/plans", plan(t, more), "/guests/local-99"} {
		b.audited(path)
	}
	b.forgive("404")
}

// more is the fleet as somebody may want it: with another cache, more guests and another owner.
var more = strings.NewReplacer("warm  = 2", "warm  = 3", `owner = "research"`, `owner = "`+hostile+`"`).Replace(fleet) +
	"cache \"weekly\" {\n  owner = \"research\"\n  pools = [pool.large]\n  size  = 1\n  max   = 1\n}\n"

// plan asks what a spec would change, and returns the path of the answer's page.
func plan(t *testing.T, spec string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(dir, "fleet.hcl"), []byte(spec), 0o600))
	var p struct{ ID string }
	cmd := home.command(t.Context(), append([]string{"plan", dir, "-o", "json"}, args...)...)
	out, _ := cmd.Output() // it exits with 2 for changes
	noError(t, json.Unmarshal(out, &p))
	return "/plans/" + p.ID
}

func TestTheSignInPageCanBeUsed(t *testing.T) {
	b := stranger(t)
	b.audited("/caches/ci")
	if got := eval[string](b, "document.activeElement.id"); got != "token" {
		t.Errorf("the focus is on %q, want the token", got)
	}
}

// audited looks at a page in each theme, and on a phone.
func (b *tab) audited(path string) {
	b.Helper()
	for width, theme := range map[int64]string{1280: "light", 390: "dark"} {
		b.looks(width, theme)
		b.visit(path)
		for _, fault := range eval[[]string](b, audit) {
			b.Errorf("%s, %s, %d px: %s", path, theme, width, fault)
		}
		if *look != "" {
			name := fmt.Sprintf("%s-%d.png", strings.NewReplacer("/", "_", "?", "_").Replace(path), width)
			noError(b.T, os.WriteFile(filepath.Join(*look, name), b.picture(), 0o644))
		}
	}
}

// picture shows a page, or where that is too long as much of it as a window does.
func (b *tab) picture() (png []byte) {
	b.Helper()
	take := chromedp.FullScreenshot(100)
	if eval[int](b, "document.body.scrollHeight") > 2400 {
		take = chromedp.CaptureScreenshot()
	}
	png, err := chromedp.Run(b.ctx, take)
	noError(b.T, err)
	return png
}

// leased waits until the page says how many guests are.
func (b *tab) leased(n int) {
	b.Helper()
	b.until(fmt.Sprintf(`document.querySelector(".lead").textContent.includes(" %d leased")`, n))
}

func TestAPageUpdatesItselfWhenAGuestIsLeased(t *testing.T) {
	b := open(t, home.admin, "/caches/ci")
	b.leased(0)
	eval[bool](b, `window.loaded = true; window.link = document.querySelector('a[href^="/guests/"]'); link.focus(); true`)
	b.do(chromedp.Click(chromedp.CSS("details summary")), chromedp.SendKeys(chromedp.CSS("#disable-reason"), "an upgr"))
	home.lease(t, home.jenkins, "ci")
	b.leased(1)
	b.until(`document.querySelector("[data-key^=lease-]").textContent.includes("jenkins")`)
	b.press("a", "d", "e")
	for what, kept := range map[string]string{
		"the page itself":    `window.loaded`,
		"what is unfolded":   `document.querySelector("details").open`,
		"what is typed":      `document.querySelector("#disable-reason").value === "an upgrade"`,
		"the focus":          `document.activeElement.id === "disable-reason"`,
		"the link of a row":  `window.link.isConnected && window.link.closest("tr").textContent.length > 0`,
		"where words are":    `document.querySelector("[aria-live=polite]").textContent.includes("1 leased")`,
		"that it is alive":   `document.querySelector("#pulse").textContent === "Updates by itself."`,
		"that there is time": `document.querySelector("#made time").dateTime.length > 0`,
	} {
		if !eval[bool](b, kept) {
			t.Errorf("the update has lost %s: %s", what, kept)
		}
	}
}

func TestTheFleetIsUpdatedWithoutJumps(t *testing.T) {
	b := open(t, home.carol, "/")
	b.shows("Updates by itself.")
	eval[bool](b, `window.shift = 0; new PerformanceObserver((seen) => seen.getEntries().forEach((e) => shift += e.value)).observe({ type: "layout-shift", buffered: true }); true`)
	before := eval[string](b, `document.querySelector("[data-key=cache-ci]").textContent`)
	home.lease(t, home.jenkins, "ci") // of another team than the one that looks
	b.until(fmt.Sprintf(`document.querySelector("[data-key=cache-ci]").textContent !== %q`, before))
	if shift := eval[float64](b, `window.shift`); shift > 0.1 {
		t.Errorf("the layout has shifted by %.3f", shift)
	}
}

func TestAPageTellsWhenItsVisitorIsSignedOut(t *testing.T) {
	var token struct{ ID, Token string }
	noError(t, home.call(home.admin, "POST", "/v1/tokens", `{"name": "dave", "owner": "platform", "role": "user"}`, &token))
	b := open(t, token.Token, "/queue")
	b.shows("Updates by itself.")
	noError(t, home.call(home.admin, "DELETE", "/v1/tokens/"+token.ID, "", nil))
	home.lease(t, home.jenkins, "ci") // something to tell
	b.shows("You are signed out.")
	b.forgive("401")
}

// order presses Tab so often, and tells what has the focus each time.
func (b *tab) order(n int) (names []string) {
	b.Helper()
	for range n {
		b.press(kb.Tab)
		names = append(names, eval[string](b, `document.activeElement.textContent.trim()`))
		if eval[string](b, `getComputedStyle(document.activeElement).outlineStyle`) == "none" {
			b.Errorf("the focus on %q is not seen", names[len(names)-1])
		}
	}
	return names
}

// until presses Tab until the focus is on what has a text.
func (b *tab) tabTo(text string) {
	b.Helper()
	for range 60 {
		b.press(kb.Tab)
		if strings.HasPrefix(eval[string](b, `document.activeElement.textContent.trim()`), text) {
			return
		}
	}
	b.Fatalf("Tab does not lead to %q", text)
}

func TestEverythingIsDoneByTheKeyboard(t *testing.T) {
	const guest = "single-1"
	b := open(t, home.admin, "/guests/"+guest)
	want := []string{"Skip to the content", "Greenroom", "Fleet", "Queue", "Plans", "Sign out"}
	if got := b.order(len(want)); strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("Tab leads to %q, want %q", got, want)
	}
	b.visit("/guests/" + guest)
	b.press(kb.Tab, kb.Enter)
	b.until(`document.activeElement.id === "main"`)
	machine := eval[int](b, `Number(document.querySelector("[data-key^=life-]").dataset.key.slice(5))`)
	b.tabTo("Probe now")
	b.press(kb.Enter)
	b.shows("It is alive")
	b.tabTo("Taint…")
	b.press(kb.Enter)
	b.until(`document.activeElement.parentElement.open`)
	b.press(kb.Tab, "s", "m", "e", "l", "l", "s")
	b.press(kb.Tab, kb.Enter)
	b.shows("It is ordered to be replaced now.")
	b.shows(fmt.Sprintf("%s.%d the current machine", guest, machine+1)) // by itself
	b.shows("It is shelved.")
	b.shows("replaced: manual")
	b.shows("smells, says admin")
}

func TestPagesAreOfUseWithoutJavaScript(t *testing.T) {
	busy(t)
	b := open(t, home.admin, "/")
	send(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.visit("/")
	b.click(".made .manual a") // Refresh, which is there for them
	b.click(`a[href="/pools/large"]`)
	b.click(`form[action="/pools/large/resume"] button`)
	b.shows("The pool goes on.")
	b.until(`!document.querySelector('form[action="/pools/large/resume"]')`)
	b.click("details summary")
	b.until(`document.querySelector("#pause-reason").checkVisibility()`)
}

// storied gives a guest something to tell, and returns the path of its page.
func storied(t *testing.T) string {
	t.Helper()
	var l lease
	noError(t, home.call(home.jenkins, "POST", "/v1/leases", `{"cache": "release"}`, &l))
	noError(t, home.call(home.jenkins, "DELETE", "/v1/leases/"+l.ID, `{"outcome": "fail"}`, nil))
	noError(t, home.post("/v1/guests/single-1/taint", map[string]string{"reason": "its disk is full"}))
	noError(t, home.until("it is replaced", func() error {
		var g struct {
			State       string
			Incarnation int
		}
		err := home.call(home.admin, "GET", "/v1/guests/single-1", "", &g)
		if err == nil && (g.State != "shelved" || g.Incarnation == 1) {
			err = fmt.Errorf("it is %+v", g)
		}
		return err
	}))
	return "/guests/single-1"
}

// The screenshots of the docs are written when asked for; each is looked at before it is committed.
func TestScreenshotsAreSmallEnoughForTheDocs(t *testing.T) {
	busy(t)
	b := open(t, home.admin, "/")
	for _, shot := range []struct {
		name, path, theme string
		width             int64
	}{
		{"fleet-light", "/", "light", 1080},
		{"fleet-dark", "/", "dark", 1080},
		{"fleet-narrow", "/", "light", 390},
		{"pool", "/pools/local", "light", 1080},
		{"cache", "/caches/nightly", "dark", 1080},
		{"guest", storied(t), "light", 1080},
		{"queue", "/queue", "light", 1080},
		{"plan", plan(t, strings.ReplaceAll(more, hostile, "science"), "--name", "pull/12"), "dark", 1080},
	} {
		b.looks(shot.width, shot.theme)
		b.visit(shot.path)
		if shot.name != "plan" {
			b.shows("Updates by itself.")
		}
		png := b.picture()
		if len(png) > 300<<10 {
			t.Errorf("%s has %d bytes, want at most 300 KiB", shot.name, len(png))
		}
		if *update {
			noError(t, os.WriteFile(filepath.Join("..", "..", "docs", "screenshots", shot.name+".png"), png, 0o644))
		}
	}
}
