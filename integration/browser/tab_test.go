package browser

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	browserlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// openBrowser starts a Chromium with a profile of its own.
func openBrowser(dir string) (context.Context, func() error, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, nil, fmt.Errorf("chromium is missing (apt-get install chromium): %w", err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.UserDataDir(filepath.Join(dir, "profile")))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator) // it ends by Cancel
	end := func() error {
		err := chromedp.Cancel(ctx) // waits for the process
		cancel()
		return err
	}
	return ctx, end, chromedp.Do(ctx)
}

// tab is one page that is open, with everything that went wrong in it.
type tab struct {
	*testing.T
	ctx context.Context

	mu     sync.Mutex
	faults []string
	hosts  map[string]bool // that it has asked anything
}

// open opens a page in a tab of its own, signed in with a token.
func open(t *testing.T, token, path string) *tab {
	t.Helper()
	session, known := home.sessions[token]
	if !known {
		session, _ = chromedp.NewContext(home.browser, chromedp.WithNewBrowserContext()) // it ends with the browser
		home.sessions[token] = session
		noError(t, chromedp.Do(session, chromedp.Navigate(home.url+"/signin"),
			chromedp.SendKeys(chromedp.CSS("#token"), token+"\r"), chromedp.WaitReady(chromedp.CSS("#live"))))
	}
	b := blank(session, t)
	b.visit(path)
	return b
}

// stranger is an empty tab of somebody who has never been here.
func stranger(t *testing.T) *tab {
	t.Helper()
	session, cancel := chromedp.NewContext(home.browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	noError(t, chromedp.Do(session))
	return blank(session, t)
}

// blank is an empty tab of a session. At the end of the test nothing may have gone wrong in it, and it may have asked nobody
// but the server.
func blank(session context.Context, t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(session)
	b := &tab{T: t, ctx: ctx, hosts: map[string]bool{}}
	t.Cleanup(func() {
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, fault := range b.faults {
			t.Errorf("in the browser: %s", fault)
		}
		delete(b.hosts, home.url)
		for host := range b.hosts {
			t.Errorf("the page asked %s", host)
		}
	})
	noError(t, chromedp.Listen(ctx, b.listen))
	send(b, network.Enable, network.EnableParams{})
	send(b, browserlog.Enable, cdp.Empty{})
	b.looks(1280, "light")
	return b
}

// listen notes what goes wrong, and whom the page asks for anything.
func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		b.faults = append(b.faults, fmt.Sprintf("console.%s %v", e.Type, e.Args))
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, fmt.Sprintf("exception: %s %v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *browserlog.EventEntryAdded:
		b.faults = append(b.faults, fmt.Sprintf("%s: %s %v", e.Entry.Source, e.Entry.Text, e.Entry.URL))
	case *network.EventRequestWillBeSent:
		scheme, rest, _ := strings.Cut(e.Request.URL, "://")
		host, _, _ := strings.Cut(rest, "/")
		b.hosts[scheme+"://"+host] = true
	}
}

// forgive takes back the faults that a test has caused on purpose.
func (b *tab) forgive(with string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = slices.DeleteFunc(b.faults, func(f string) bool { return strings.Contains(f, with) })
}

// complained tells whether the browser has reported something with a text.
func (b *tab) complained(with string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.faults, func(f string) bool { return strings.Contains(f, with) })
}

// knows takes back that a host was asked, which a test has done on purpose.
func (b *tab) knows(host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.hosts, host)
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	noError(b.T, chromedp.Do(ctx, actions...))
}

func send[P, R any](b *tab, command cdp.Command[P, R], params P) {
	b.Helper()
	_, err := chromedp.Call(b.ctx, command, params)
	noError(b.T, err)
}

// eval runs an expression in the page.
func eval[V any](b *tab, expression string) V {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[V](expression, chromedp.EvalAwaitPromise))
	noError(b.T, err)
	return v
}

func (b *tab) visit(path string) { b.Helper(); b.do(chromedp.Navigate(home.url + path)) }

// until waits until an expression is true in the page, or in the one that comes after it.
func (b *tab) until(expression string) {
	b.Helper()
	err := home.until(expression, func() error {
		is, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err == nil && !is {
			err = errors.New("it is not")
		}
		return err
	})
	if err != nil {
		b.Fatalf("%v\n%s", err, eval[string](b, "document.body.innerText"))
	}
}

// click clicks on something as soon as it is there, and where it stays.
func (b *tab) click(selector string) {
	b.Helper()
	b.until(fmt.Sprintf(`document.readyState === "complete" && document.querySelector(%q)`, selector))
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// shows waits until the page has a text.
func (b *tab) shows(text string) {
	b.Helper()
	b.until(fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// press presses keys, one after the other.
func (b *tab) press(keys ...string) {
	b.Helper()
	for _, key := range keys {
		b.do(chromedp.KeyEvent(key))
	}
}

// looks sets how wide the window is, and which theme its user prefers.
func (b *tab) looks(width int64, theme string) {
	b.Helper()
	send(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width < 600})
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}
	send(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
}
