package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
)

// following is a site whose page follows news, with the request of its stream. known says whether the token is still one.
func following(known *bool) (*Site, *http.Request) {
	s := New(Options{Lookup: func(string) (lease.Caller, bool) { return lease.Caller{Name: "bob"}, *known }})
	r := httptest.NewRequest(http.MethodGet, "/live?cache=ci", nil)
	r.AddCookie(&http.Cookie{Name: "greenroom-session", Value: s.sessions.begin("token")})
	return s, r
}

// heard is what a page was told.
type heard struct {
	*httptest.ResponseRecorder
	mu sync.Mutex
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ResponseRecorder.Write(b)
}

// changes is how often it was told to look again.
func (h *heard) changes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.Body.String(), "event: changed")
}

func TestAPageIsToldAtOnceAndThenFourTimesASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := true
		s, r := following(&known)
		news, w := make(chan client.Event), &heard{ResponseRecorder: httptest.NewRecorder()}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.follow(word{w}, r, news)
		}()
		time.Sleep(time.Second) //nolint:forbidigo // of the bubble
		news <- client.Event{Cache: "ci"}
		synctest.Wait()
		if n := w.changes(); n != 1 {
			t.Fatalf("after one event the page was told %d times", n)
		}
		for range 1000 {
			news <- client.Event{Cache: "ci"}
			time.Sleep(2 * time.Millisecond) //nolint:forbidigo // of the bubble
		}
		time.Sleep(pace) //nolint:forbidigo // of the bubble
		synctest.Wait()
		if n := w.changes(); n < 8 || n > 10 {
			t.Errorf("in two seconds the page was told %d times", n-1)
		}
		for range 100 {
			news <- client.Event{Cache: "other"}
		}
		synctest.Wait()
		before := w.changes()
		time.Sleep(pulse) //nolint:forbidigo // of the bubble
		synctest.Wait()
		if n := w.changes() - before; n != 1 {
			t.Errorf("in the time between two looks the page was told %d times, want once", n)
		}
		close(news)
		<-done
	})
}

func TestWhoMayLookNoMoreIsToldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := true
		s, r := following(&known)
		news, w := make(chan client.Event, 1), &heard{ResponseRecorder: httptest.NewRecorder()}
		known = false
		news <- client.Event{}
		s.follow(word{w}, r, news) // returns
		if w.changes() > 0 {
			t.Errorf("it was told: %s", w.Body)
		}
	})
}

func TestAnEventConcernsThePagesThatMayChangeByIt(t *testing.T) {
	for about, c := range map[string]struct {
		event client.Event
		want  bool
	}{
		"":               {client.Event{Cache: "ci", Pool: "local", Guest: "local-1"}, true},
		"cache=ci":       {client.Event{Cache: "ci", Pool: "local", Guest: "local-1"}, true},
		"cache=lab":      {client.Event{Cache: "ci"}, false},
		"cache=x":        {client.Event{Kind: client.SpecInForce}, true},
		"pool=local":     {client.Event{Cache: "ci", Pool: "local"}, true},
		"pool=large":     {client.Event{Cache: "ci", Pool: "local"}, false},
		"pool=l":         {client.Event{Kind: lease.CacheToggle, Cache: "ci"}, true},
		"guest=local-1":  {client.Event{Cache: "ci", Pool: "local", Guest: "local-1"}, true},
		"guest=local-11": {client.Event{Cache: "ci", Pool: "local", Guest: "local-1"}, false},
	} {
		query, err := url.ParseQuery(about)
		if err != nil {
			t.Fatal(err)
		}
		if got := concerns(query, c.event); got != c.want {
			t.Errorf("%q is concerned by %+v: %v, want %v", about, c.event, got, c.want)
		}
	}
}

func TestATokenFollowsSoManyPagesOnly(t *testing.T) {
	f := &followers{byToken: map[string]int{}}
	for n := range maxPages {
		if !f.come("mine") {
			t.Fatalf("page %d is refused", n)
		}
	}
	if f.come("mine") || !f.come("other") {
		t.Error("one more page is let in, or another's is not")
	}
	f.leave("mine")
	if !f.come("mine") {
		t.Error("there is no room after a page was closed")
	}
	for range maxPages {
		f.leave("mine")
	}
	f.leave("other")
	if len(f.byToken) > 0 {
		t.Errorf("kept: %v", f.byToken)
	}
}

func TestAnErrorThatIsNoneOfTheAPIMeansNotJustNow(t *testing.T) {
	if status, text := problem(errors.New("cut off")); status != http.StatusServiceUnavailable || text != "cut off" {
		t.Error(status, text)
	}
}

func TestTimesReadAsPeopleSayThem(t *testing.T) {
	c := times{func() time.Time { return time.Date(2026, 11, 20, 13, 4, 0, 0, time.UTC) }}
	for d, want := range map[time.Duration][2]string{
		0: {"just now", "within a minute"}, -5 * time.Second: {"just now", "within a minute"}, 59 * time.Second: {"just now", "within a minute"},
		time.Minute: {"1 min ago", "in 1 min"}, 61 * time.Minute: {"1 h 1 min ago", "in 1 h 1 min"}, 49 * time.Hour: {"2 d 1 h ago", "in 2 d 1 h"},
	} {
		if got := c.ago(c.now().Add(-d)); got != want[0] {
			t.Errorf("%v: %q, want %q", d, got, want[0])
		}
		if got := c.until(c.now().Add(d)); got != want[1] {
			t.Errorf("%v: %q, want %q", d, got, want[1])
		}
	}
	for d, want := range map[time.Duration]string{1234 * time.Millisecond: "1.2 s", 59 * time.Second: "59 s", 90 * time.Second: "1 min", -time.Second: "0.0 s"} {
		if got := lasted(d); got != want {
			t.Errorf("%v lasted %q, want %q", d, got, want)
		}
	}
	if got := c.clock(c.now()) + ", " + c.clock(c.now().Add(-24*time.Hour)); got != "13:04:00, 2026-11-19 13:04" {
		t.Error(got)
	}
	for d, want := range map[time.Duration]string{0: "0s", 10 * time.Second: "10s", time.Minute: "1m", 90 * time.Minute: "1h30m", 24 * time.Hour: "24h"} {
		if got := brief(d); got != want {
			t.Errorf("%v is brief as %q, want %q", d, got, want)
		}
	}
}

func TestCredentialsInASourceAreNotTold(t *testing.T) {
	for source, want := range map[string]string{
		"local": "local", "./modules/vm": "./modules/vm", "hashicorp/x/aws": "hashicorp/x/aws",
		"git::https://robot:hunter2@git.example.org/m.git//sub?ref=v1": "git::https://…@git.example.org/m.git//sub?ref=v1",
		"git::https://token@git.example.org/m.git":                     "git::https://…@git.example.org/m.git",
		"git::ssh://git@git.example.org/m.git":                         "git::ssh://git@git.example.org/m.git",
		"https://a:b@x/y@z.zip":                                        "https://…@x/y@z.zip",
	} {
		if got := withoutPassword(source); got != want {
			t.Errorf("%s is told as %s, want %s", source, got, want)
		}
	}
}

func TestABarIsAsWideAsWhatItStandsFor(t *testing.T) {
	b := stacked(map[lease.State]int{lease.Shelved: 2, lease.Leased: 1, lease.Booting: 0}, lease.States, 6)
	if got, want := fmt.Sprint(b.Parts, b.Of), "[{shelved 2 0 333} {leased 1 333 167}] 6"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if b := stacked(nil, lease.States, 0); b.Of != 1 || len(b.Parts) > 0 {
		t.Errorf("of nothing: %+v", b)
	}
	over := shelved(client.Cache{Size: 2, Warm: 1, Guests: map[lease.State]int{lease.Shelved: 3, lease.Preparing: 1}})
	if got, want := fmt.Sprint(over.Bar.Parts, over.Bar.Marks), "[{shelved 3 0 750} {preparing 1 750 250}] [{warm 250} {size 500}]"; got != want {
		t.Errorf("over the size: %s, want %s", got, want)
	}
}
