package client

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"greenroom/lease"
)

// Kinds of feed entries beside those of package lease.
const (
	SpecInForce   lease.Kind = "spec in force"  // a revision of the specs came into force
	SpecFault     lease.Kind = "spec fault"     // the newest revision is bad; the last good one stays
	EventsDropped lease.Kind = "events dropped" // some are missing here; the reason says why
	FeedEnded     lease.Kind = "feed ended"     // the last of a stream that is cut off; the reason says why
)

// Event is one entry of the feed: what has happened in one server. Ids grow, also over its restarts; gaps mean nothing.
type Event struct {
	ID          int64       `json:"id"`
	Time        time.Time   `json:"time"`
	Kind        lease.Kind  `json:"kind"`
	Cache       string      `json:"cache,omitempty"`
	Pool        string      `json:"pool,omitempty"`
	Guest       string      `json:"guest,omitempty"`
	Incarnation int         `json:"incarnation,omitempty"`
	From        lease.State `json:"from,omitempty"` // of the guest; empty: it was not there, or that is not known
	To          lease.State `json:"to,omitempty"`
	Lease       string      `json:"lease,omitempty"`    // for the lease's owner and admins
	By          string      `json:"by,omitempty"`       // who did it; of a lease its holder, for its owner and admins
	Source      string      `json:"source,omitempty"`   // of a grant: shelf, spare or new
	How         string      `json:"how,omitempty"`      // the lease ended; of a cache toggle enabled, disabled or as the spec says
	Outcome     string      `json:"outcome,omitempty"`  // of a lease: pass, fail or empty
	Revision    string      `json:"revision,omitempty"` // of the specs
	Reason      string      `json:"reason,omitempty"`
	Detail      string      `json:"detail,omitempty"` // evidence, cut to a bounded length; for admins
}

// EventFilter chooses from the feed; the zero value chooses all that the server still has.
type EventFilter struct {
	Guest, Cache, Pool string
	After              int64 // only those with a greater id
	Number             int   // the newest so many, 1 to 1000; 0: as many as the server likes
}

func (f EventFilter) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{"guest": f.Guest, "cache": f.Cache, "pool": f.Pool} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if f.After > 0 {
		q.Set("after", strconv.FormatInt(f.After, 10))
	}
	if f.Number > 0 {
		q.Set("n", strconv.Itoa(f.Number))
	}
	return q
}

// Feed is a part of what has happened, oldest first. Last is the newest id there is, so that a follower who begins after it
// misses nothing.
type Feed struct {
	Events []Event `json:"events"`
	Last   int64   `json:"last"`
}

// Feed returns what the server still has of the events that the caller may see: those of the caches of its owner, and for an
// admin all.
func (c *Client) Feed(ctx context.Context, f EventFilter) (Feed, error) {
	return fetch[Feed](ctx, c, get("/v1/events", f.query()))
}
