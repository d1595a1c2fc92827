package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"greenroom/specs"
)

// Request is a wish for a guest. The zero value asks for any guest of any pool's spares.
type Request struct {
	Cache   string             // empty: the spares of a pool that satisfies the rest
	Labels  map[string]string  // exact
	AtLeast map[string]float64 // capacity
	TTL     time.Duration      // zero: the cache's; never more than the cache's longest lease
	Wait    time.Duration      // longest time in the queue; Forever for as long as somebody asks for it
	Key     string             // idempotency key, at most 128 characters
	// PublicKey, in authorized_keys format, is certified for the guest while the lease is active.
	PublicKey string
}

// Forever waits for as long as the request is asked for.
const Forever time.Duration = -1

// Acquire asks for a guest. The lease comes back active (a hit) or queued; the same key gives the same lease again.
// Errors: ErrUnknownCache, ErrImpossible, ErrNotYours, ErrNoneReady, ErrQueueFull, ErrReplay, ErrInvalid, ErrUnavailable.
func (s *Store) Acquire(ctx context.Context, caller Caller, r Request) (Lease, error) {
	c, pools, err := s.choose(ctx, caller, r)
	if err != nil {
		return Lease{}, err
	}
	wait := int64(-1)
	if r.Wait >= 0 {
		wait = r.Wait.Milliseconds()
	}
	invisible := ""
	if c.Invisible {
		invisible = c.Name
	}
	id, ttl := r.id(caller, c.Name), min(cmp.Or(r.TTL, c.Lease.TTL), c.Lease.Max).Truncate(time.Millisecond)
	wish := make(lines, 0, 256).line(id).line(caller.Name).line(strings.Join(pools, ",")).number(ttl.Milliseconds()).number(c.Lease.Max.Milliseconds()).
		number(s.options.Patience.Milliseconds()).line(r.Key).line(fingerprint(r)).last(r.PublicKey)
	t := &turning{id: id, wish: wish, longest: c.Lease.Max.Truncate(time.Millisecond), wait: wait, line: s.options.MaxQueue, spares: invisible, caller: caller, lease: Lease{
		ID: id, Cache: c.Name, Holder: caller.Name, Owner: caller.Owner, Phase: Active, Pools: pools, TTL: ttl, PublicKey: r.PublicKey, Hit: true,
	}}
	t.call = call{name: "acquire", turning: t}
	reply, err := s.carry(ctx, c.Name, &t.call)
	switch {
	case err != nil:
		return Lease{}, err
	case reply == nil:
		return t.lease, nil
	case text(reply[0]) == "hit":
		l := readLease(text(reply[1]), c.Name)
		l.Leased = l.leased(text(reply[2]), "")
		s.tell(Change{Kind: Granted, Cache: c.Name, Guest: l.Guest, Lease: &l})
		return l, nil
	}
	l := parseLease(reply[1:], c.Name)
	l.Replayed = text(reply[3]) == "replayed"
	switch {
	case l.Replayed:
		s.tell(Change{Kind: Unsure, Cache: c.Name, Guest: l.Guest})
	case l.Phase == Active:
		s.tell(Change{Kind: Granted, Cache: c.Name, Guest: l.Guest, Lease: &l})
	default:
		s.tell(Change{Kind: Missed, Cache: c.Name})
	}
	return l, nil
}

// choose finds the cache of a request and the pools that satisfy it.
func (s *Store) choose(ctx context.Context, caller Caller, r Request) (*specs.Cache, []string, error) {
	if err := r.check(); err != nil {
		return nil, nil, err
	}
	fleet := s.Fleet()
	if fleet.Revision == "" {
		return nil, nil, fmt.Errorf("%w: no specs are in force yet", ErrUnavailable)
	}
	if r.Cache == "" {
		return s.chooseSpare(ctx, caller, r)
	}
	c := fleet.Cache(r.Cache)
	switch {
	case c == nil:
		return nil, nil, fmt.Errorf("%w: %q is not in revision %s", ErrUnknownCache, r.Cache, fleet.Revision)
	case !caller.May(c.Owner):
		return nil, nil, fmt.Errorf("%w: cache %s belongs to %s, you are of %s", ErrNotYours, c.Name, c.Owner, cmp.Or(caller.Owner, "nobody"))
	}
	pools := fleet.Eligible(c, r.Labels, r.AtLeast)
	if len(pools) == 0 || c.Max == 0 {
		return nil, nil, fmt.Errorf("%w: no pool of cache %s (%s) has the labels and capacity asked for", ErrImpossible, c.Name, strings.Join(c.Pools, ", "))
	}
	return c, pools, nil
}

// chooseSpare picks the pool for a request that names no cache: the one that knows its idempotency key, else one with a
// spare on its shelf, else the one with most room.
func (s *Store) chooseSpare(ctx context.Context, caller Caller, r Request) (*specs.Cache, []string, error) {
	fleet := s.Fleet()
	var best, ready *specs.Cache
	room := -1 << 31
	for _, p := range fleet.Pools {
		c := fleet.Cache(p.Name)
		if len(fleet.Eligible(c, r.Labels, r.AtLeast)) == 0 {
			continue
		}
		known, shelved, taken, err := s.spares(ctx, p.Name, r.id(caller, p.Name))
		if err != nil {
			return nil, nil, err
		}
		if known {
			return c, c.Pools, nil
		}
		if shelved > 0 && ready == nil {
			ready = c
		}
		if p.Max-taken > room {
			best, room = c, p.Max-taken
		}
	}
	if best == nil {
		return nil, nil, fmt.Errorf("%w: no pool has the labels and capacity asked for", ErrImpossible)
	}
	if ready != nil {
		best = ready
	}
	return best, best.Pools, nil
}

func (s *Store) spares(ctx context.Context, pool, id string) (known bool, shelved, taken int, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	pipe := s.rdb.Pipeline()
	seen := pipe.Exists(ctx, s.base(pool)+":lease:"+id)
	shelf := pipe.ZCard(ctx, s.base(pool)+":in:"+pool+":shelved")
	slots := pipe.HLen(ctx, s.base(pool)+":slots")
	queued := pipe.ZCard(ctx, s.base(pool)+":queue")
	if _, err := pipe.Exec(ctx); err != nil {
		return false, 0, 0, outage(err)
	}
	return seen.Val() == 1, int(shelf.Val()), int(slots.Val() + queued.Val()), nil
}

func (r Request) check() error {
	size := len(r.Key)
	for k, v := range r.Labels {
		size += len(k) + len(v)
	}
	switch {
	case len(r.Key) > 128 || strings.IndexByte(r.Key, '\r') >= 0 || strings.IndexByte(r.Key, '\n') >= 0:
		return fmt.Errorf("%w: an idempotency key is one line of at most 128 characters", ErrInvalid)
	case len(r.Labels) > 64 || len(r.AtLeast) > 64 || size > 16<<10:
		return fmt.Errorf("%w: at most 64 labels and 64 capacities, 16 KiB in all", ErrInvalid)
	case len(r.PublicKey) > 4<<10:
		return fmt.Errorf("%w: a public key is at most 4 KiB", ErrInvalid)
	case r.TTL < 0 || r.TTL > 0 && r.TTL < time.Second:
		return fmt.Errorf("%w: ttl %v, want at least 1s", ErrInvalid, r.TTL)
	}
	return nil
}

// fingerprint is what two requests with one idempotency key must have in common.
func fingerprint(r Request) string {
	if r.Key == "" {
		return ""
	}
	text := append(make([]byte, 0, 128), r.Cache...)
	if len(r.Labels)+len(r.AtLeast) > 0 {
		text = fmt.Append(text, r.Labels, r.AtLeast)
	}
	text = strconv.AppendInt(append(text, ' '), int64(r.TTL), 10)
	text = strconv.AppendInt(append(text, ' '), int64(r.Wait), 10)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// id names the lease of a request. A caller's idempotency key leads to the same one whenever it is sent, so that what is asked for
// twice is granted once.
func (r Request) id(caller Caller, cache string) string {
	if r.Key == "" {
		return cache + "." + rand.Text()
	}
	const random = 26 // characters of an id that is
	sum := sha256.Sum256(append(make(lines, 0, 256).line(caller.Owner).line(caller.Name), r.Key...))
	id := append(make([]byte, 0, 128), cache+"."...)
	return string(base32.StdEncoding.AppendEncode(id, sum[:])[:len(id)+random])
}

// Get returns one lease. Asking for a queued one keeps it in line. Errors: ErrUnknownLease, ErrNotYours, ErrUnavailable.
func (s *Store) Get(ctx context.Context, caller Caller, id string) (Lease, error) {
	l, _, err := s.onLease(ctx, id, &call{name: "get", args: caller.on(id)})
	return *l, err
}

// Wait returns the lease when it is queued no more, or as it stands when ctx ends.
func (s *Store) Wait(ctx context.Context, caller Caller, id string) (Lease, error) {
	changed, stop := s.waiters.watch(id)
	defer stop()
	// Another server on the same Redis may grant it: look again now and then, which also keeps the place in line.
	look := time.NewTicker(2 * time.Second)
	defer look.Stop()
	for {
		l, err := s.Get(context.WithoutCancel(ctx), caller, id)
		if err != nil || l.Phase != Queued {
			return l, err
		}
		select {
		case <-ctx.Done():
			return l, nil
		case <-changed:
		case <-look.C:
		}
	}
}

// Renew is the heartbeat of an active lease: its deadline moves a TTL into the future, never past its cap.
// Errors: ErrOver, ErrQueued, ErrUnknownLease, ErrNotYours, ErrUnavailable.
func (s *Store) Renew(ctx context.Context, caller Caller, id string) (Lease, error) {
	l, _, err := s.onLease(ctx, id, &call{name: "renew", args: caller.on(id)})
	return *l, err
}

// on is how the scripts are told who wants something of a lease, and of which.
func (c Caller) on(id string) []any {
	return []any{id, escape(c.Owner), flag(c.rules())}
}

// onLease does something with one lease and returns it, and the state that its guest was sent to.
func (s *Store) onLease(ctx context.Context, id string, c *call) (*Lease, State, error) {
	cache, err := CacheOf(id)
	if err != nil {
		return &Lease{}, "", err
	}
	reply, err := s.onRecord(ctx, cache, c)
	switch {
	case err != nil:
		return &Lease{}, "", err
	case reply == nil: // a mirror decided it
		return &c.turning.lease, Shelved, nil
	}
	l := parseLease(reply[1:], cache)
	if l.Replayed = text(reply[4]) == "again"; l.Replayed {
		s.tell(Change{Kind: Unsure, Cache: cache, Guest: l.Guest})
	}
	if handed := text(reply[3]); handed != "" {
		s.announce(ctx, cache, handed)
	}
	if len(reply) > 7 {
		return &l, State(text(reply[7])), nil
	}
	return &l, "", nil
}

// onRecord carries out a call on something that should be on record. Where nothing is on record because the store was lost, that is
// ErrUnavailable: who gives up then gives up a guest that is still there.
func (s *Store) onRecord(ctx context.Context, cache string, c *call) ([]any, error) {
	reply, err := s.carry(ctx, cache, c)
	if !errors.Is(err, ErrUnknownLease) {
		return reply, err
	}
	if err := s.lost(ctx); err != nil {
		return nil, err
	}
	return s.run(ctx, c.name, cache, c.args...) // it may have been found meanwhile
}

// lost is an error where the store was lost, or can't be asked.
func (s *Store) lost(ctx context.Context) error {
	empty, err := s.Empty(ctx)
	if err != nil || !empty {
		return err
	}
	s.tell(Change{Kind: StoreLost})
	return fmt.Errorf("%w: the store was lost, or is new; what there was in it is being found again", ErrUnavailable)
}

// Release says how a lease ends; the zero value shelves the guest.
type Release struct {
	Outcome string        // pass, fail or empty
	Hold    time.Duration // keep the guest aside for diagnosis, at most the cache's hold time
	Discard bool          // never shelve this guest again
}

// Release ends a lease, or cancels a request. An ended one is answered as it ended.
// Errors: ErrHoldBudget (nothing is changed), ErrUnknownLease, ErrNotYours, ErrInvalid, ErrUnavailable.
func (s *Store) Release(ctx context.Context, caller Caller, id string, r Release) (Lease, error) {
	if r.Outcome != "" && r.Outcome != "pass" && r.Outcome != "fail" {
		return Lease{}, fmt.Errorf("%w: outcome %.20q, want pass or fail", ErrInvalid, r.Outcome)
	}
	if r.Hold < 0 {
		return Lease{}, fmt.Errorf("%w: hold %v is negative", ErrInvalid, r.Hold)
	}
	t := &turning{id: id, ends: true, caller: caller, outcome: r.Outcome, hold: r.Hold, discard: r.Discard}
	t.call = call{name: "release", turning: t}
	l, state, err := s.onLease(ctx, id, &t.call)
	if err == nil && t.guest == nil && !l.Replayed {
		s.tell(Change{Kind: LeaseEnded, Cache: l.Cache, Guest: l.Guest, State: state, Lease: l})
	}
	return *l, err
}

// announce tells the world of a lease that some other call brought about. Its holder may have been quick and given it back
// by now, and tells of that end itself.
func (s *Store) announce(ctx context.Context, cache, id string) {
	s.waiters.wake(id)
	l, err := s.Get(ctx, system, id)
	if err != nil {
		return
	}
	kind := Granted
	switch l.How {
	case Expired, Abandoned, TimedOut, Removed:
		kind = LeaseEnded
	}
	s.tell(Change{Kind: kind, Cache: cache, Guest: l.Guest, Lease: &l})
}

var system = Caller{Name: "greenroom", Role: System}

func (s *Store) tell(changes ...Change) {
	for _, c := range changes {
		if c.Lease != nil {
			s.waiters.wake(c.Lease.ID)
		}
	}
	s.options.Notify(changes...)
}

// leaseLines are how many a lease has in the store; see lease_of in lib.lua.
const leaseLines = 23

// readLease reads a lease as the store has it. One that can't be read has no ID.
func readLease(record, cache string) Lease {
	var f [leaseLines]string
	for i := range leaseLines - 1 {
		var more bool
		if f[i], record, more = strings.Cut(record, "\n"); !more {
			return Lease{}
		}
	}
	f[leaseLines-1] = record
	if Phase(f[0]) == Ended {
		f[8] = "" // it has come, in one way or the other
	}
	return Lease{
		Cache: cache, Phase: Phase(f[0]), EndedAt: ms(f[1]), How: f[2], Outcome: f[3], Owner: unescape(f[4]), Guest: f[5], Incarnation: int(number(f[6])),
		Granted: ms(f[7]), Deadline: ms(f[8]), Cap: ms(f[9]), Source: f[10], Hit: f[11] == "1", WaitUntil: ms(f[12]), Created: ms(f[13]),
		ID: f[14], Holder: unescape(f[15]), Pools: strings.Split(f[16], ","), TTL: time.Duration(number(f[17])) * time.Millisecond, PublicKey: f[22],
	}
}

// parseLease reads {lease, position, …} and, where a call answers with it, the address of its guest, and its health.
func parseLease(reply []any, cache string) Lease {
	l := readLease(text(reply[0]), cache)
	if l.Phase == Queued {
		l.Position = int(number(reply[1]))
	}
	if len(reply) > 5 && text(reply[4]) != "" {
		l.Leased = l.leased(text(reply[4]), text(reply[5]))
	}
	return l
}

// leased is the guest of an active lease as its holder is told of it.
func (l Lease) leased(address, health string) *Guest {
	g := &Guest{Name: l.Guest, State: Leased, Incarnation: l.Incarnation, Health: health}
	g.readAddress(address)
	return g
}

// lines is a text in the making, with a line for each of its fields. Only the last may have line breaks as they are.
type lines []byte

func (l lines) line(field string) lines { return append(append(l, escape(field)...), '\n') }

func (l lines) number(n int64) lines { return append(strconv.AppendInt(l, n, 10), '\n') }

// last returns the text with its last field, which no line break follows.
func (l lines) last(field string) string { return string(append(l, field...)) }

var escapes, escaped = strings.NewReplacer(`\`, `\\`, "\n", `\n`), strings.NewReplacer(`\\`, `\`, `\n`, "\n")

// escape makes a line of a text.
func escape(text string) string {
	if strings.IndexByte(text, '\\') >= 0 || strings.IndexByte(text, '\n') >= 0 { // quicker than to look for both
		return escapes.Replace(text)
	}
	return text
}

func unescape(line string) string {
	if strings.Contains(line, `\`) {
		return escaped.Replace(line)
	}
	return line
}
