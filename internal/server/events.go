package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
	"greenroom/specs"
)

const (
	keptEvents   = 1000        // in memory
	queuedEvents = 4096        // changes that wait to become events; what comes beyond is dropped
	maxFollowers = 200         // of the feed, the pages' included
	behind       = 256         // events that a follower may be late by
	maxDetail    = 512         // bytes of an event's detail
	lookRate     = 500         // histories read per second; past that events tell only what the change itself says
	lookTimeout  = time.Second // of one reading
	heartbeat    = 15 * time.Second
)

// Feed is what has happened in the house lately: the changes in the store, each with what the guest's own history says of
// it, and what became of the specs. It is kept in memory only; the histories in the store are what lasts.
//
// The store's notifier only puts changes in line. A worker makes events of them, so that a store that answers slowly holds up
// nobody. Reading histories costs a busy store at most lookRate calls a second. Leases of shelved guests that begin and end, of which
// there are thousands a second, need no reading: while nobody follows they stay in line until somebody asks.
type Feed struct {
	store   *lease.Store
	now     func() time.Time
	closing <-chan struct{}
	beat    time.Duration // between two signs of life in a stream
	log     *slog.Logger

	lineMu sync.Mutex // of what follows
	lineup
	working bool

	watched   atomic.Bool // there are followers
	mu        sync.Mutex  // of what follows
	kept      []entry     // the newest keptEvents count
	last      int64       // id
	gone      int64       // id of the newest that is not kept any more
	followers map[*follower]struct{}
	fault     string // the last spec fault, so that it is told once

	second time.Time // of the worker: when the looks began to count
	looks  int
}

// lineup is what waits to become events.
type lineup struct {
	line    []told
	waiting int  // changes and events in line
	lost    int  // dropped behind them, because too much came at once
	passed  bool // some were dropped in front of them, which nobody had asked for in time
}

// told are changes in the line that came together, or an event that needs no more looking up.
type told struct {
	changes []lease.Change
	fleet   *specs.Fleet // in force then: it says whose the caches were
	event   *client.Event
	at      time.Time
}

func (t told) size() int { return max(1, len(t.changes)) }

// entry is an event with what decides who may see it.
type entry struct {
	client.Event
	owner  string // of its cache
	hidden bool   // its cache is in force no more, so that nobody knows whose it was
	holder string // owner of its lease
}

// NewFeed returns an empty feed; it grows by Notify. closing ends every subscription; nil: never.
func NewFeed(store *lease.Store, now func() time.Time, closing <-chan struct{}) *Feed {
	return newFeed(store, slog.New(slog.DiscardHandler), now, closing)
}

// newFeed returns one that tells log, at debug, what it tells its followers.
func newFeed(store *lease.Store, log *slog.Logger, now func() time.Time, closing <-chan struct{}) *Feed {
	start := now().UnixMicro()
	return &Feed{store: store, now: now, closing: closing, beat: heartbeat, log: log, last: start, gone: start, followers: map[*follower]struct{}{}}
}

// Notify takes changes in the store. It does not block.
func (f *Feed) Notify(changes ...lease.Change) {
	nothing := func(c lease.Change) bool { return c.Kind == lease.StoreLost || c.Kind == lease.Unsure } // there are as many as calls
	if slices.ContainsFunc(changes, nothing) {
		changes = slices.DeleteFunc(slices.Clone(changes), nothing)
	}
	if len(changes) > 0 {
		f.push(told{changes: changes, fleet: f.store.Fleet(), at: f.now()})
	}
}

// InForce tells that a revision of the specs came into force.
func (f *Feed) InForce(revision string) {
	f.mu.Lock()
	f.fault = ""
	f.mu.Unlock()
	f.push(told{event: &client.Event{Kind: client.SpecInForce, Revision: revision}, at: f.now()})
}

// Fault tells why the newest revision of the specs is bad, once.
func (f *Feed) Fault(fault condition.Fault) {
	f.mu.Lock()
	again := f.fault == fault.Message
	f.fault = fault.Message
	f.mu.Unlock()
	if again {
		return
	}
	f.push(told{at: f.now(), event: &client.Event{
		Kind: client.SpecFault, Revision: fault.Revision, Reason: fault.Reason, Detail: cut(fault.Message),
	}})
}

func (f *Feed) push(t told) {
	f.lineMu.Lock()
	defer f.lineMu.Unlock()
	late := !f.working && !f.watched.Load() && t.plain() && !f.log.Enabled(context.Background(), slog.LevelDebug)
	if !late && f.waiting+t.size() > queuedEvents {
		f.lost += t.size()
		return
	}
	f.line = append(f.line, t)
	f.waiting += t.size()
	switch {
	case late:
		f.pass()
	case !f.working:
		f.working = true
		go f.work()
	}
}

// plain says that nothing must be read to make events of it.
func (t told) plain() bool {
	other := func(c lease.Change) bool { _, turn := c.Turn(); return !turn }
	return t.event == nil && !slices.ContainsFunc(t.changes, other)
}

// pass needs f.lineMu. It drops what would not be kept anyway.
func (f *Feed) pass() {
	for f.waiting-f.line[0].size() >= keptEvents {
		f.waiting -= f.line[0].size()
		f.line[0], f.line, f.passed = told{}, f.line[1:], true
	}
}

// catchUp makes events of what waits for somebody to ask.
func (f *Feed) catchUp() {
	f.lineMu.Lock()
	if f.working || len(f.line) == 0 {
		f.lineMu.Unlock()
		return
	}
	f.working = true
	now := f.take()
	f.lineMu.Unlock()
	f.makeAll(now)
	f.lineMu.Lock()
	defer f.lineMu.Unlock()
	if f.working = len(f.line) > 0; f.working {
		go f.work() // more has come, which may take long
	}
}

// work makes events of the line until nothing waits.
func (f *Feed) work() {
	for {
		f.lineMu.Lock()
		now := f.take()
		f.working = len(now.line) > 0
		f.lineMu.Unlock()
		if len(now.line) == 0 {
			return
		}
		f.makeAll(now)
	}
}

// take needs f.lineMu. It returns what is in line, and begins anew.
func (f *Feed) take() lineup {
	now := f.lineup
	f.lineup = lineup{}
	return now
}

// makeAll makes events of all that was in line.
func (f *Feed) makeAll(now lineup) {
	if now.passed {
		f.skip()
	}
	for _, t := range now.line {
		if t.event != nil {
			t.event.Time = t.at
			f.publish(entry{Event: *t.event})
		}
		for i := range t.changes {
			f.make(&t.changes[i], t.fleet, t.at)
		}
	}
	if now.lost > 0 {
		f.publish(entry{Event: client.Event{
			Kind: client.EventsDropped, Time: f.now(), Reason: fmt.Sprintf("%d events are missing here: too much happened at once", now.lost),
		}})
	}
}

// skip notes that events are missing before the next, which nobody asked for while they were kept.
func (f *Feed) skip() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = max(f.last+1, f.now().UnixMicro())
	f.gone = f.last
}

// make makes an event of one change.
func (f *Feed) make(c *lease.Change, fleet *specs.Fleet, at time.Time) {
	e := entry{Event: client.Event{Time: at, Kind: c.Kind, Cache: c.Cache, Guest: c.Guest, To: c.State}}
	e.Pool, _, _ = lease.ParseGuestName(c.Guest) // a change without a guest has no pool
	if settings := fleet.Cache(c.Cache); settings != nil {
		e.owner = settings.Owner
	} else {
		e.hidden = true
	}
	tell := true
	switch c.Kind {
	case lease.Granted, lease.LeaseEnded:
		f.leased(&e, c.Lease)
	case lease.GuestMoved:
		tell = f.moved(&e, c.Since)
	case lease.CacheToggle:
		f.toggled(&e)
	}
	if tell {
		f.publish(e)
	}
}

// leased fills in what a lease says, which is all there is to say of a hit.
func (f *Feed) leased(e *entry, l *lease.Lease) {
	if l == nil {
		return
	}
	e.Lease, e.By, e.holder, e.Incarnation, e.Source = l.ID, l.Holder, l.Owner, l.Incarnation, l.Source
	if e.Kind == lease.Granted {
		e.Time, e.To = l.Granted, lease.Leased
		if l.Hit {
			e.From = lease.Shelved
		} else if h, ok := f.look(e, l.Granted, func(h lease.Event) bool { return h.To == lease.Leased && h.Lease == l.ID }); ok {
			e.From = h.From
		}
		return
	}
	e.Source, e.How, e.Outcome, e.Time = "", l.How, l.Outcome, l.EndedAt
	if l.Guest == "" {
		return
	}
	e.From = lease.Leased
	if e.To == lease.Shelved || e.To == lease.Resetting { // there is no more to say of that
		return
	}
	if h, ok := f.look(e, l.EndedAt, func(h lease.Event) bool { return h.From == lease.Leased && h.To != lease.Leased && h.Lease == l.ID }); ok {
		e.To, e.Reason = h.To, h.Reason
	}
}

// moved fills in what the guest's history says of a move; false: it is told otherwise, or was told before.
func (f *Feed) moved(e *entry, since time.Time) bool {
	h, ok := f.look(e, since, func(h lease.Event) bool { return h.To == e.To })
	if !ok {
		return e.To != lease.Leased // a grant, which is told as such
	}
	if e.To == lease.Leased && h.Reason == "" {
		return false
	}
	e.Time, e.Incarnation, e.From, e.Reason, e.Detail = h.Time, h.Incarnation, h.From, h.Reason, cut(h.Detail)
	if !byHolder(h) {
		e.By = h.Actor
	}
	return !f.known(e.Event)
}

func (f *Feed) toggled(e *entry) {
	e.How = "as the spec says"
	if !f.mayLook() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	st, err := f.store.Stock(ctx, e.Cache)
	switch {
	case err != nil:
		e.How = ""
	case st.Override != nil:
		e.How = map[bool]string{true: "enabled", false: "disabled"}[st.Override.Enabled]
		e.By, e.Reason = st.Override.By, st.Override.Reason
	}
}

// look finds the entry of a guest's history that fits, among the last few: the one of that time, or the newest where the time is
// not known.
func (f *Feed) look(e *entry, at time.Time, fits func(lease.Event) bool) (found lease.Event, ok bool) {
	if !f.mayLook() {
		return lease.Event{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	history, err := f.store.EventsIn(ctx, e.Guest, 8, e.Cache)
	if err != nil {
		return lease.Event{}, false
	}
	for _, h := range history {
		if fits(h) && (!ok || !at.IsZero() && h.Time.Sub(at).Abs() < found.Time.Sub(at).Abs()) {
			found, ok = h, true
		}
	}
	return found, ok
}

// mayLook keeps the worker's calls on the store within lookRate.
func (f *Feed) mayLook() bool {
	if now := f.now(); now.Sub(f.second) >= time.Second {
		f.second, f.looks = now, 0
	}
	f.looks++
	return f.looks <= lookRate
}

// known tells whether the feed has told of a move: an order that is given twice is one move.
func (f *Feed) known(e client.Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.kept, func(old entry) bool {
		return old.Guest == e.Guest && old.Kind == e.Kind && old.Time.Equal(e.Time) && old.From == e.From && old.To == e.To
	})
}

func cut(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetail], "") + "…"
}

// publish gives an event its number, keeps it and hands it to every follower.
func (f *Feed) publish(e entry) {
	if f.log.Enabled(context.Background(), slog.LevelDebug) {
		f.log.Debug(string(e.Kind), "cache", e.Cache, "guest", e.Guest, "lease", e.Lease, "from", e.From, "to", e.To,
			"reason", cmp.Or(e.Reason, e.How, e.Source), "by", e.By)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e.ID = max(f.last+1, f.now().UnixMicro())
	e.Time = e.Time.UTC()
	f.last = e.ID
	f.kept = append(f.kept, e)
	if n := len(f.kept); n >= 2*keptEvents {
		copy(f.kept, f.kept[n-keptEvents:])
		clear(f.kept[keptEvents:])
		f.kept = f.kept[:keptEvents]
	}
	if n := len(f.kept) - keptEvents; n > 0 {
		f.gone = max(f.gone, f.kept[n-1].ID)
	}
	for to := range f.followers {
		f.send(to, e)
	}
}

// mayKnow tells whether who may know a lease of owner: its id, and who holds it.
func mayKnow(who lease.Caller, owner string) bool {
	return who.Role == lease.Admin || who.Role == lease.System || owner != "" && owner == who.Owner
}

// byHolder tells the entries of a history whose actor may be the holder of a lease: its grant and its end. A guest that stays
// leased was handed on, or ordered to be replaced, which has a reason.
func byHolder(h lease.Event) bool {
	if h.From == lease.Leased && h.To == lease.Leased {
		return h.Reason == ""
	}
	return h.From == lease.Leased || h.To == lease.Leased
}

// seenBy returns the event as who may see it; false: not at all.
func (e entry) seenBy(who lease.Caller) (client.Event, bool) {
	out := e.Event
	all := who.Role == lease.Admin || who.Role == lease.System
	own := mayKnow(who, e.holder)
	switch {
	case all:
		return out, true
	case e.Cache != "" && !own && (e.hidden || !who.May(e.owner)):
		return client.Event{}, false
	}
	if e.Kind != client.SpecFault {
		out.Detail = ""
	}
	if e.Lease != "" && !own {
		out.Lease, out.By = "", ""
	}
	return out, true
}

// wants tells whether a filter chooses the event. What says that events are missing is for everybody.
func wants(by client.EventFilter, e client.Event) bool {
	fits := func(want, have string) bool { return want == "" || want == have }
	return e.ID > by.After &&
		(e.Kind == client.EventsDropped || fits(by.Guest, e.Guest) && fits(by.Cache, e.Cache) && fits(by.Pool, e.Pool))
}

// List returns the newest of the events that who may see, oldest first; at most by.Number.
func (f *Feed) List(who lease.Caller, by client.EventFilter) client.Feed {
	f.catchUp()
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.since(who, by)
	n := cmp.Or(by.Number, keptEvents)
	return client.Feed{Events: out[max(0, len(out)-n):], Last: f.last}
}

// since needs f.mu. It begins with a word on what is missing.
func (f *Feed) since(who lease.Caller, by client.EventFilter) []client.Event {
	out := []client.Event{}
	if by.After > 0 && by.After < f.gone {
		out = append(out, client.Event{
			ID: f.gone, Time: f.now().UTC(), Kind: client.EventsDropped, Reason: "events are missing here: the server keeps the last " + fmt.Sprint(keptEvents) + " since its start",
		})
	}
	for _, e := range f.kept[max(0, len(f.kept)-keptEvents):] {
		if seen, ok := e.seenBy(who); ok && e.ID > f.gone && wants(by, seen) { // older ones are on their way out
			out = append(out, seen)
		}
	}
	return out
}

// follower is one subscription. Its channel has room for one more than behind: the last word.
type follower struct {
	who    lease.Caller
	by     client.EventFilter
	events chan client.Event
	sent   int64 // id of the newest event that it was given, or that is not for it
}

// send needs f.mu. A follower that is too far behind is told so and dropped.
func (f *Feed) send(to *follower, e entry) {
	seen, ok := e.seenBy(to.who)
	if !ok || !wants(to.by, seen) {
		return
	}
	if len(to.events) < behind {
		to.events <- seen
		to.sent = e.ID
		return
	}
	f.drop(to, "too slow: more than "+fmt.Sprint(behind)+" events wait to be read; go on after this id")
}

// drop needs f.mu. It ends a subscription, with a last word unless that is empty.
func (f *Feed) drop(to *follower, why string) {
	if _, ok := f.followers[to]; !ok {
		return
	}
	delete(f.followers, to)
	f.watched.Store(len(f.followers) > 0)
	if why != "" {
		to.events <- client.Event{ID: to.sent, Time: f.now().UTC(), Kind: client.FeedEnded, Reason: why}
	}
	close(to.events)
}

var errFollowers = &fault{http.StatusServiceUnavailable, "too_many_followers", fmt.Sprintf("%d follow the events already; try again later", maxFollowers)}

// Subscribe hands on the events that who may see from now on, until ctx ends or the server does, which closes the channel. A
// reader that is too slow gets a last event FeedEnded.
func (f *Feed) Subscribe(ctx context.Context, who lease.Caller) (<-chan client.Event, error) {
	to, _, err := f.follow(ctx, who, client.EventFilter{})
	if err != nil {
		return nil, err
	}
	return to.events, nil
}

// follow subscribes, and returns what a filter with an After has missed.
func (f *Feed) follow(ctx context.Context, who lease.Caller, by client.EventFilter) (*follower, []client.Event, error) {
	f.catchUp()
	defer f.catchUp() // with what came before it was known that somebody follows
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.followers) >= maxFollowers {
		return nil, nil, errFollowers
	}
	var missed []client.Event
	if by.After > 0 {
		missed = f.since(who, by)
	}
	to := &follower{who: who, by: by, events: make(chan client.Event, behind+1), sent: f.last}
	to.by.After = 0 // all that comes is newer
	f.followers[to] = struct{}{}
	f.watched.Store(true)
	go func() {
		select {
		case <-ctx.Done():
		case <-f.closing:
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drop(to, "")
	}()
	return to, missed, nil
}

// reached is the id that a follower has got to, when nothing waits for it to be read.
func (f *Feed) reached(to *follower) (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, len(to.events) == 0
}
