package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
)

// streamTime is what one write to a follower may take.
const streamTime = 20 * time.Second

// feed answers what has happened lately, or a stream of what happens (server-sent events, as the HTML standard has them).
func (a *api) feed(_ context.Context, who lease.Caller, r request[none]) (answer, error) {
	by, err := a.filter(who, r)
	if err != nil {
		return answer{}, err
	}
	follow, err := strconv.ParseBool(cmp.Or(r.query("follow"), "false"))
	if err != nil {
		return answer{}, malformed("follow is %.20q, want true or false", r.query("follow"))
	}
	if !follow && !strings.Contains(r.http.Header.Get("Accept"), "text/event-stream") {
		return answer{body: a.Feed.List(who, by)}, nil
	}
	// The stream outlives the time that other calls have.
	to, missed, err := a.Feed.follow(r.http.Context(), who, by)
	if err != nil {
		return answer{}, err
	}
	return answer{stream: func(w http.ResponseWriter) {
		s := stream{api: a, http: r.http, out: w, to: to}
		if s.open() == nil && s.send(missed...) == nil {
			s.run()
		}
	}}, nil
}

func (a *api) filter(who lease.Caller, r request[none]) (client.EventFilter, error) {
	by := client.EventFilter{Guest: r.query("guest"), Cache: r.query("cache"), Pool: r.query("pool")}
	after := cmp.Or(r.http.Header.Get("Last-Event-ID"), r.query("after"), "0")
	var err error
	if by.After, err = strconv.ParseInt(after, 10, 64); err != nil || by.After < 0 {
		return by, malformed("after is %.40q, want the id of an event", after)
	}
	by.Number, err = strconv.Atoi(cmp.Or(r.query("n"), strconv.Itoa(keptEvents)))
	if err != nil || by.Number < 1 || by.Number > keptEvents {
		return by, malformed("n is %.20q, want 1 to %d", r.query("n"), keptEvents)
	}
	return by, a.mayFilter(who, by)
}

// mayFilter refuses what would only ever find nothing.
func (a *api) mayFilter(who lease.Caller, by client.EventFilter) error {
	if by.Guest != "" {
		if _, _, err := lease.ParseGuestName(by.Guest); err != nil {
			return err
		}
	}
	if by.Pool != "" {
		if err := a.known(by.Pool); err != nil {
			return err
		}
	}
	if by.Cache == "" {
		return nil
	}
	c, err := a.cache(by.Cache)
	if err == nil && !who.May(c.Owner) {
		err = fmt.Errorf("%w: cache %s belongs to %s, you are of %s", lease.ErrNotYours, c.Name, c.Owner, cmp.Or(who.Owner, "nobody"))
	}
	return err
}

// stream writes events to one follower.
type stream struct {
	api  *api
	http *http.Request
	out  http.ResponseWriter
	to   *follower
}

// open sends the header, and lifts the limits on the time of a whole call: from now on each write has its own.
func (s stream) open() error {
	if err := http.NewResponseController(s.out).SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	h := s.out.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events back
	s.out.WriteHeader(http.StatusOK)
	return s.write(": events follow\n\n")
}

// run hands on what happens until the follower goes, is dropped, may look no more, or the server ends.
func (s stream) run() {
	tick := time.NewTicker(s.api.Feed.beat)
	defer tick.Stop()
	for {
		var err error
		select {
		case e, ok := <-s.to.events:
			if !ok {
				return
			}
			err = s.send(e)
		case <-tick.C:
			err = s.beat()
		}
		if err != nil {
			return
		}
	}
}

// beat is the sign of life. An id without data moves the place from which the follower goes on after a break, though
// nothing happened that it chose.
func (s stream) beat() error {
	if _, err := s.api.identify(s.http); err != nil {
		return err // the token was revoked
	}
	if id, ok := s.api.Feed.reached(s.to); ok {
		return s.write(fmt.Sprintf(": still here\nid: %d\n\n", id))
	}
	return s.write(": still here\n\n")
}

func (s stream) send(events ...client.Event) error {
	for _, e := range events {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := s.write(fmt.Sprintf("id: %d\ndata: %s\n\n", e.ID, data)); err != nil {
			return err
		}
	}
	return nil
}

func (s stream) write(text string) error {
	rc := http.NewResponseController(s.out)
	if err := rc.SetWriteDeadline(time.Now().Add(streamTime)); err != nil {
		return err
	}
	if _, err := s.out.Write([]byte(text)); err != nil {
		return err
	}
	return rc.Flush()
}
