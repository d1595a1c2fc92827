package web_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// stream opens the stream of a page.
func (b *browser) stream(about string) (status int, kind string, lines *bufio.Reader) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.url+"/live?"+about, nil)
	must(b.t, err)
	res, err := b.http.Do(req)
	must(b.t, err)
	b.t.Cleanup(func() { res.Body.Close() })
	return res.StatusCode, res.Header.Get("Content-Type"), bufio.NewReader(res.Body)
}

func TestAnOpenPageIsToldWhenAGuestIsLeased(t *testing.T) {
	h := busy(t)
	for _, token := range []string{h.user.Secret, h.stranger.Secret} { // what it then sees is another matter
		b, _ := h.as(token, "/caches/ci")
		_, kind, lines := b.stream("cache=ci")
		if kind != "text/event-stream" {
			t.Fatalf("the stream is %s", kind)
		}
		h.release(bob, h.acquire(bob, "ci"), "")
		for line := ""; line != "event: changed\n"; {
			var err error
			line, err = lines.ReadString('\n')
			must(t, err)
		}
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	h := busy(t)
	b, _ := h.as(h.user.Secret, "/")
	_, _, lines := b.stream("")
	close(h.closing)
	if _, err := io.ReadAll(lines); err != nil {
		t.Error(err)
	}
}

func TestAStreamIsForThoseWhoAreSignedIn(t *testing.T) {
	h := newHouse(t)
	status, _, lines := h.browser().stream("")
	body, err := io.ReadAll(lines)
	must(t, err)
	if status != http.StatusUnauthorized || strings.Contains(string(body), "event") {
		t.Errorf("answers %d %s", status, body)
	}
	b, _ := h.as(h.user.Secret, "/")
	if head := b.do(http.MethodHead, "/live", nil); head.StatusCode != http.StatusOK || head.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD answers %d", head.StatusCode)
	}
}

func TestOnlySoManyPagesAreFollowedWithOneToken(t *testing.T) {
	h := newHouse(t)
	b, _ := h.as(h.user.Secret, "/")
	for range 20 {
		if status, _, _ := b.stream(""); status != http.StatusOK {
			t.Fatalf("answers %d", status)
		}
	}
	if status, _, _ := b.stream(""); status != http.StatusServiceUnavailable {
		t.Errorf("one more is answered %d", status)
	}
	other, _ := h.as(h.stranger.Secret, "/")
	if status, _, _ := other.stream(""); status != http.StatusOK {
		t.Errorf("somebody else is answered %d", status)
	}
}
