package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
	"greenroom/lease/client"
)

// follow follows in the background; the channel of events ends with Follow, whose error comes last.
func follow(ctx context.Context, c *client.Client, f client.EventFilter, to client.Follower) (<-chan client.Event, <-chan struct{}, <-chan error) {
	events, open, ended := make(chan client.Event, 1000), make(chan struct{}, 100), make(chan error, 1)
	to.Event = func(e client.Event) error { events <- e; return nil }
	to.Open = func() { open <- struct{}{} }
	go func() { ended <- c.Follow(ctx, f, to) }()
	return events, open, ended
}

func TestAFollowerMissesNothingAndHearsNothingTwiceThoughItsConnectionBreaks(t *testing.T) {
	h := newHouse(t, time.Minute)
	var calls atomic.Int32
	c := h.client(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 2 {
			w.WriteHeader(http.StatusBadGateway) // some proxy's
			return
		}
		h.handler.ServeHTTP(&brittle{ResponseWriter: w, left: 3}, r)
	}, client.Options{})
	broken := make(chan error, 100)
	ctx, cancel := context.WithCancel(t.Context())
	events, open, ended := follow(ctx, c, client.EventFilter{Cache: "ci"}, client.Follower{Broken: func(err error) { broken <- err }})
	<-open
	h.shelve()
	h.shelve()
	var told []string
	for range 8 {
		e := <-events
		told = append(told, fmt.Sprint(e.Guest, " ", e.To))
	}
	want := []string{
		"local-1 planned", "local-1 provisioning", "local-1 booting", "local-1 shelved",
		"local-2 planned", "local-2 provisioning", "local-2 booting", "local-2 shelved",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the end: %v", err)
	}
	if err := <-broken; !strings.HasSuffix(err.Error(), " went away in the middle of the stream") {
		t.Errorf("the break: %v", err)
	}
	all, err := c.Feed(t.Context(), client.EventFilter{Guest: "local-2", Number: 2})
	h.must(err)
	if len(all.Events) != 2 || all.Events[1].ID != all.Last || all.Events[1].To != lease.Shelved {
		t.Errorf("the list: %+v", all)
	}
}

// brittle breaks the connection after some writes.
type brittle struct {
	http.ResponseWriter
	left int
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return b.ResponseWriter.Write(p)
}

func (b *brittle) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func TestAStreamThatSaysNothingIsTakenUpAgain(t *testing.T) {
	h := newHouse(t, time.Minute)
	var calls atomic.Int32
	c := h.client(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		h.handler.ServeHTTP(w, r)
	}, client.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	broken := make(chan error, 10)
	_, open, ended := follow(ctx, c, client.EventFilter{}, client.Follower{Silence: 50 * time.Millisecond, Broken: func(err error) { broken <- err }})
	<-open
	if err := <-broken; !strings.Contains(err.Error(), "said nothing") {
		t.Errorf("the break: %v", err)
	}
	<-open
	cancel()
	<-ended
}

func TestFollowingEndsWhereTryingAgainWouldNotHelp(t *testing.T) {
	h := newHouse(t, time.Minute)
	c := h.client(nil, client.Options{})
	err := c.Follow(t.Context(), client.EventFilter{Cache: "typo"}, client.Follower{})
	if !errors.Is(err, lease.ErrUnknownCache) {
		t.Errorf("an unknown cache: %v", err)
	}
	away, err := client.New(client.Options{Addr: "http://127.0.0.1:1", Retry: -1})
	h.must(err)
	if err := away.Follow(t.Context(), client.EventFilter{}, client.Follower{}); err == nil || !strings.Contains(err.Error(), "cannot reach") {
		t.Errorf("a server that is away from the start: %v", err)
	}
	open := func() { h.shelve() }
	enough := errors.New("enough")
	if err := c.Follow(t.Context(), client.EventFilter{}, client.Follower{Open: open, Event: func(client.Event) error { return enough }}); !errors.Is(err, enough) {
		t.Errorf("a follower that has enough: %v", err)
	}
}
