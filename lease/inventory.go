package lease

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/specs"
)

// Adopt brings the settings of a fleet into force: requests are matched against it from now on. Requests that wait for nothing but
// pools which their cache has no more end as Removed; leases there go on. A store that is not open, see Open, is ErrUnavailable.
func (s *Store) Adopt(ctx context.Context, fleet *specs.Fleet) error {
	known, err := s.Caches(ctx)
	if err != nil {
		return err
	}
	for _, c := range fleet.AllCaches() {
		if err := s.adopt(ctx, c.Name, settings(c)); err != nil {
			return err
		}
		known = slices.DeleteFunc(known, func(name string) bool { return name == c.Name })
	}
	for _, name := range known {
		if err := s.adopt(ctx, name, nil); err != nil {
			return err
		}
	}
	s.fleet.Store(fleet)
	tctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	still, err := s.rdb.SetXX(tctx, s.global("adopted"), cmp.Or(fleet.Revision, "-"), 0).Result() // last, see Empty
	if err == nil && !still {
		err = fmt.Errorf("%w: the store was lost meanwhile, or never opened", ErrUnavailable)
	}
	return outage(err)
}

func (s *Store) adopt(ctx context.Context, cache string, fields []any) error {
	if err := s.remember(ctx, "caches", cache); err != nil {
		return err
	}
	reply, err := s.run(ctx, "adopt", cache, fields...)
	if err != nil {
		return err
	}
	s.announceAll(ctx, cache, reply[2])
	return nil
}

func (s *Store) announceAll(ctx context.Context, cache string, ids any) {
	list, _ := ids.([]any)
	for _, id := range list {
		s.announce(ctx, cache, text(id))
	}
}

func (s *Store) remember(ctx context.Context, set, name string) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	return outage(s.rdb.SAdd(ctx, s.global(set), name).Err())
}

func settings(c *specs.Cache) []any {
	return []any{
		"pools", strings.Join(c.Pools, ","), "size", c.Size, "max", c.Max, "enabled", flag(c.Enabled),
		"uses", c.Reuse.Uses, "age", c.Reuse.Age.Milliseconds(), "prepare", flag(len(c.Prepare.Body) > 0),
		"reset", flag(len(c.Reset.Body) > 0), "hold_for", c.Hold.For.Milliseconds(), "hold_max", c.Hold.Max,
	}
}

// Caches lists every cache that was ever in force or still has guests.
func (s *Store) Caches(ctx context.Context) ([]string, error) { return s.members(ctx, "caches") }

// Pools lists every pool that ever had a slot.
func (s *Store) Pools(ctx context.Context) ([]string, error) { return s.members(ctx, "pools") }

func (s *Store) members(ctx context.Context, set string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	names, err := s.rdb.SMembers(ctx, s.global(set)).Result()
	slices.Sort(names)
	return names, outage(err)
}

// Empty tells that no fleet was ever brought into force here: the store is new, or it was lost.
func (s *Store) Empty(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	revision, err := s.rdb.Get(ctx, s.global("adopted")).Result()
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	return revision == "", outage(err)
}

// Open marks an empty store, before the guests that exist are put on record in it, so that it is known for the same one afterwards. A
// store that is lost at any time since is not open any more: no fleet is brought into force there, and no guest is planned.
func (s *Store) Open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	if err := s.Belong(ctx, ""); err != nil {
		return err
	}
	return outage(s.rdb.SetNX(ctx, s.global("adopted"), "", 0).Err())
}

// Belong makes the store that of [Options].Server, unless it is another's, for good: behind its guests are the machines of that server's
// Terraform states, which no other has. It is taken from a server that is named. From then on a sweep finds out when another has taken
// it. Errors: ErrForeign, which names the other, ErrUnavailable.
func (s *Store) Belong(ctx context.Context, from string) error {
	if s.options.Server == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	mine := s.options.Server + "\n" + s.options.Place
	if err := s.rdb.SetNX(ctx, s.global("server"), mine, 0).Err(); err != nil {
		return outage(err)
	}
	owner, err := s.rdb.Get(ctx, s.global("server")).Result()
	if err != nil {
		return outage(err)
	}
	if name, _, _ := strings.Cut(owner, "\n"); from != "" && name == from {
		return outage(s.rdb.Set(ctx, s.global("server"), mine, 0).Err())
	}
	return s.ours(owner)
}

// ours is an error where the owner on record is another server. Nobody is on record in a store that is new or was lost.
func (s *Store) ours(owner string) error {
	name, place, _ := strings.Cut(owner, "\n")
	if s.options.Server == "" || owner == "" || name == s.options.Server {
		return nil
	}
	return fmt.Errorf("%w: that of server %s, %s", ErrForeign, name, place)
}

// Plan claims the lowest free slot of a pool for a cache and puts its guest on record as planned.
// Errors: ErrFull when the pool or the cache is at max, ErrUnavailable, also where the fleet in force has no such pool or cache.
func (s *Store) Plan(ctx context.Context, pool *specs.Pool, cache *specs.Cache, shard, digest string, demand bool) (Guest, error) {
	if err := s.remember(ctx, "pools", pool.Name); err != nil {
		return Guest{}, err
	}
	reply, err := s.run(ctx, "slot", pool.Name, pool.Max, cache.Name, 0, 0, shard)
	if err != nil {
		return Guest{}, fmt.Errorf("pool %s: %w", pool.Name, err)
	}
	slot, _ := strconv.Atoi(text(reply[1]))
	g := Guest{Name: GuestName(pool.Name, slot), Pool: pool.Name, Cache: cache.Name, Slot: slot, State: Planned, Shard: shard, Digest: digest, Demand: demand}
	g.Incarnation, _ = strconv.Atoi(text(reply[2]))
	made, _, err := s.create(ctx, g, cache.Max)
	switch {
	case errors.Is(err, ErrUnavailable): // it may be on record: Mend finds out
		return Guest{}, err
	case err != nil:
		return Guest{}, errors.Join(fmt.Errorf("cache %s: %w", cache.Name, err), s.freeSlot(context.WithoutCancel(ctx), g.Pool, slot))
	}
	return made, nil
}

func (s *Store) freeSlot(ctx context.Context, pool string, slot int) error {
	_, err := s.run(ctx, "free", pool, slot)
	return err
}

func (s *Store) create(ctx context.Context, g Guest, maximum int, extra ...any) (Guest, string, error) {
	args := append([]any{
		g.Name, g.Pool, g.Slot, g.Incarnation, maximum, system.Name, string(g.State), millis(g.Until),
		"cache", g.Cache, "shard", g.Shard, "digest", g.Digest, "demand", flag(g.Demand), "reason", g.Reason,
	}, extra...)
	reply, err := s.run(ctx, "create", g.Cache, args...)
	if err != nil {
		return Guest{}, "", err
	}
	made := parseGuest(table(reply[1]))
	s.tell(Change{Kind: GuestMoved, Cache: g.Cache, Guest: g.Name, State: made.State, Since: made.Since})
	return made, text(reply[2]), nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Step is one compare-and-set move of a guest.
type Step struct {
	Guest       Guest   // name, cache and incarnation say which
	From        []State // it must be in one of them
	To          State
	Reason      string
	Detail      string
	HoldingRun  string // it must be claimed by this run; empty: by any or none
	claim       *string
	machine     *Machine
	incarnation int
	until       time.Time
	failures    int
	fence       int64
}

// Machine is what a run learned about the machine it made.
type Machine struct {
	ID, Host, User, HostKey string
	Port                    int
	Attributes              json.RawMessage
	Reset                   bool // its module can part it from its last holder, so that it is reset even where its cache has no script
}

func (st Step) fields() []any {
	var f []any
	if st.claim != nil {
		f = append(f, "run", *st.claim)
	}
	if m := st.machine; m != nil {
		f = append(f, "id", m.ID, "address", addressOf(m.Host, m.Port, m.User, m.HostKey),
			"attributes", string(m.Attributes), "reset", flag(m.Reset), "incarnation", st.incarnation,
			"condemned", "", "evidence", "", "health", "", "drawn", "0")
	}
	if !st.until.IsZero() {
		f = append(f, "until", st.until.UnixMilli())
	}
	if st.failures > 0 {
		f = append(f, "failures", st.failures)
	}
	return f
}

// Move carries out one step. Errors: ErrLeased, ErrConflict, ErrUnknownGuest, ErrHoldBudget, ErrUnavailable.
func (s *Store) Move(ctx context.Context, actor Caller, st Step) (Guest, error) {
	g := st.Guest
	reply, err := s.run(ctx, "move", g.Cache, append([]any{
		g.Name, g.Incarnation, list(st.From), string(st.To), escape(actor.Name), clip(st.Reason, 200), clip(st.Detail, 2048), st.HoldingRun, st.fence,
	}, st.fields()...)...)
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrLeased) { // this very step may have been taken before
		s.tell(Change{Kind: Unsure, Cache: g.Cache, Guest: g.Name})
	}
	if err != nil {
		return Guest{}, fmt.Errorf("guest %s: %w", g.Name, asGuest(err))
	}
	after := parseGuest(table(reply[1]))
	if st.To == Gone {
		after = g
		after.State, after.Since = Gone, time.Time{}
		err = s.freeSlot(ctx, g.Pool, g.Slot)
	}
	told := Change{Kind: GuestMoved, Cache: g.Cache, Guest: g.Name, State: after.State, Since: after.Since}
	if ordered := ms(text(reply[3])); !ordered.IsZero() {
		told.Ordered, told.Ready = ordered, after.Since
	}
	s.tell(told)
	if handed := text(reply[2]); handed != "" {
		s.announce(ctx, g.Cache, handed)
	}
	return after, err
}

// list is how the scripts take a set of states.
func list(states []State) string {
	names := make([]string, len(states))
	for i, state := range states {
		names[i] = string(state)
	}
	return strings.Join(names, ",")
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// asGuest says of a guest what the scripts say of leases and guests alike.
func asGuest(err error) error {
	if errors.Is(err, ErrUnknownLease) {
		return ErrUnknownGuest
	}
	return err
}

// Claim takes a guest for a run, into provisioning, replacing or retiring. A leased guest is never claimed: ErrLeased. The
// fencing token is the one that Lock gave for the shard: a writer that has lost it to a later one is refused with
// ErrConflict. It is 0 for an order that no run has taken up yet.
func (s *Store) Claim(ctx context.Context, g Guest, to State, run, reason string, fence int64) (Guest, error) {
	from := map[State][]State{
		Provisioning: {Planned, Provisioning, Failed},
		Replacing:    {Tainted, Failed, Replacing},
		Retiring:     {Planned, Booting, Shelved, Tainted, Failed, Retiring},
	}[to]
	return s.Move(ctx, system, Step{Guest: g, From: from, To: to, Reason: reason, claim: &run, fence: fence})
}

// Publish records the machine that a run made, in its incarnation; the guest is booting until a probe has seen it.
func (s *Store) Publish(ctx context.Context, g Guest, run string, incarnation int, m Machine) (Guest, error) {
	// The number is written down first: were it given again, old certificates and tokens would fit the new machine.
	tctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	if err := s.rdb.HSet(tctx, s.base(g.Pool)+":incarnations", g.Slot, incarnation).Err(); err != nil {
		return Guest{}, outage(err)
	}
	none := ""
	return s.Move(ctx, system, Step{
		Guest: g, From: []State{Provisioning, Replacing}, To: Booting, HoldingRun: run, claim: &none, machine: &m, incarnation: incarnation,
	})
}

// Fail records that a run could not make a guest; the reason is for people.
func (s *Store) Fail(ctx context.Context, g Guest, run, detail string) (Guest, error) {
	none := ""
	return s.Move(ctx, system, Step{
		Guest: g, From: []State{Provisioning, Replacing, Retiring}, To: Failed, Reason: "run_failed", Detail: detail,
		HoldingRun: run, claim: &none, failures: g.Failures + 1,
	})
}

// Unclaim gives a guest that a run was to replace back untouched: it stays tainted.
func (s *Store) Unclaim(ctx context.Context, g Guest, run, detail string) (Guest, error) {
	none := ""
	return s.Move(ctx, system, Step{Guest: g, From: []State{Replacing}, To: Tainted, Reason: g.Reason, Detail: detail, HoldingRun: run, claim: &none})
}

// Remove takes a guest off the record and frees its slot: one that the run has destroyed or could not make, or, without a
// run, one that is merely planned. The reason is the one that it was claimed for.
func (s *Store) Remove(ctx context.Context, g Guest, run, reason string) error {
	from := []State{Retiring, Provisioning}
	if run == "" {
		from = []State{Planned}
	}
	_, err := s.Move(ctx, system, Step{Guest: g, From: from, To: Gone, Reason: reason, HoldingRun: run})
	if errors.Is(err, ErrUnknownGuest) {
		return s.freeSlot(ctx, g.Pool, g.Slot)
	}
	return err
}

// ready is the destination by which a script decides between preparing and shelved.
const ready State = "ready"

// Booted records that a probe has seen a booting guest alive: it goes on to preparing, to the queue or to the shelf.
func (s *Store) Booted(ctx context.Context, g Guest) (Guest, error) {
	return s.Move(ctx, system, Step{Guest: g, From: []State{Booting}, To: ready})
}

// Prepared records that prepare or reset went well: the guest goes to the queue or to the shelf.
func (s *Store) Prepared(ctx context.Context, g Guest) (Guest, error) {
	return s.Move(ctx, system, Step{Guest: g, From: []State{Preparing, Resetting}, To: Shelved})
}

// Hold keeps an idle guest aside for diagnosis, within the cache's budget.
func (s *Store) Hold(ctx context.Context, by Caller, g Guest, until time.Time) (Guest, error) {
	return s.Move(ctx, by, Step{Guest: g, From: []State{Shelved, Tainted, Failed, Held}, To: Held, Reason: "hold", until: until})
}

// Taint says why a guest must be replaced.
type Taint struct {
	Reason   string  // one of few words, for metrics: dead, boot_failed, prepare_failed, reset_failed, drift, manual, forced …
	Evidence string  // what was seen; at most 2 KiB are kept
	Condemn  bool    // a leased guest is tainted when its lease ends; otherwise it is refused with ErrLeased
	Death    bool    // counts in greenroom_guest_deaths_total
	From     []State // it must be in one of them, or leased where Condemn is set; empty: in any that no run has claimed
}

// Taint orders a guest to be replaced at the next apply. The state tells whether it is tainted now or leased and condemned.
func (s *Store) Taint(ctx context.Context, by Caller, g Guest, t Taint) (Guest, error) {
	reply, err := s.run(ctx, "taint", g.Cache, g.Name, g.Incarnation, escape(by.Name), clip(t.Reason, 64), clip(t.Evidence, 2048), flag(t.Condemn), flag(t.Death), list(t.From))
	if err != nil {
		return Guest{}, fmt.Errorf("guest %s: %w", g.Name, asGuest(err))
	}
	after := parseGuest(table(reply[1]))
	s.tell(Change{Kind: GuestMoved, Cache: g.Cache, Guest: g.Name, State: after.State, Since: after.Since})
	return after, nil
}

// SetHealth tells the holder of a leased guest what the watchdog sees; empty is well.
func (s *Store) SetHealth(ctx context.Context, g Guest, health string) error {
	_, err := s.run(ctx, "health", g.Cache, g.Name, g.Incarnation, clip(health, 500))
	return asGuest(err)
}

// Draw brings a shelved spare of a pool into a named cache, where it is prepared. Safe to repeat after a crash: see Mend.
func (s *Store) Draw(ctx context.Context, g Guest, cache *specs.Cache) (Guest, error) {
	to := cache.Name
	st := Step{Guest: g, From: []State{Shelved}, To: Preparing, Reason: "drawn", Detail: "into cache " + to, claim: &to}
	g, err := s.Move(ctx, system, st)
	if err != nil {
		return Guest{}, err
	}
	return s.draw(ctx, g, cache)
}

// Drawing tells the old record of a spare on its way: its run field names the cache that it goes to.
func (g Guest) Drawing() bool { return g.State == Preparing && g.Cache == g.Pool && g.Run != "" }

func (s *Store) draw(ctx context.Context, g Guest, cache *specs.Cache) (Guest, error) {
	moved := g
	moved.Cache, moved.State, moved.Reason = cache.Name, Preparing, "drawn"
	after, handed, err := s.create(ctx, moved, cache.Max, "id", g.ID, "address", addressOf(g.Host, g.Port, g.User, g.HostKey),
		"attributes", string(g.Attributes), "reset", flag(g.Reset), "born", millis(g.Born), "drawn", "1")
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrConflict):
		return Guest{}, errors.Join(err, s.undraw(ctx, g))
	case err != nil: // it may be on record there, and even leased: Mend goes on with it
		return Guest{}, err
	}
	tctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	if err := s.rdb.HSet(tctx, s.base(g.Pool)+":slots", g.Slot, cache.Name).Err(); err != nil {
		return after, outage(err)
	}
	if handed != "" {
		s.announce(ctx, cache.Name, handed)
	}
	return after, s.drawn(ctx, g)
}

// undraw puts a spare back that was not put on record in the cache that it was to go to.
func (s *Store) undraw(ctx context.Context, g Guest) error {
	none := ""
	_, err := s.Move(ctx, system, Step{Guest: g, From: []State{Preparing}, To: Shelved, Reason: "draw failed", claim: &none})
	return err
}

// drawn takes the old record of a spare away, whose slot is its new cache's now and stays taken.
func (s *Store) drawn(ctx context.Context, g Guest) error {
	_, err := s.run(ctx, "move", g.Pool, g.Name, g.Incarnation, string(Preparing), string(Gone), system.Name, "", "drawn into "+g.Run, "", 0)
	return asGuest(err)
}

// Mend finishes what a crash left half done in a pool: spares on their way into a cache, slots without a guest.
func (s *Store) Mend(ctx context.Context, pool string) error {
	drawing := func(g Guest) *Guest {
		if g.Drawing() {
			return &g
		}
		return nil
	}
	guests, missing, err := slotsAs(ctx, s, pool, nil, drawing)
	if err != nil {
		return err
	}
	for _, g := range guests {
		if g != nil {
			if err := s.goOn(ctx, *g); err != nil {
				return err
			}
		}
	}
	for _, slot := range missing {
		if err := s.freeSlot(ctx, pool, slot); err != nil {
			return err
		}
	}
	return s.mendDrawn(ctx, pool)
}

// goOn brings a spare to the cache that it was on its way to, or back where that is not in force any more and has it not.
func (s *Store) goOn(ctx context.Context, g Guest) error {
	cache := s.Fleet().Cache(g.Run)
	if cache == nil {
		tctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
		defer cancel()
		there, err := s.rdb.Exists(tctx, s.base(g.Run)+":guest:"+g.Name).Result()
		if err != nil {
			return outage(err)
		}
		if there == 0 {
			return s.undraw(ctx, g)
		}
		cache = &specs.Cache{Name: g.Run}
	}
	_, err := s.draw(ctx, g, cache)
	return err
}

// mendDrawn takes away the old records of spares that have come into their cache, slot and all: no slot leads to them any more.
func (s *Store) mendDrawn(ctx context.Context, pool string) error {
	tctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	names, err := s.rdb.ZRange(tctx, s.base(pool)+":in:"+pool+":"+string(Preparing), 0, -1).Result()
	if err != nil {
		return outage(err)
	}
	for some := range slices.Chunk(names, readBatch) {
		guests, err := s.readGuests(tctx, s.guestKeys(pool, some), words{}, guestFields)
		if err != nil {
			return err
		}
		for _, g := range guests {
			if !g.Drawing() {
				continue
			}
			in, err := s.cacheOf(ctx, pool, g.Slot)
			if err == nil && in != pool {
				err = s.drawn(ctx, g)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Guests returns every guest of a pool, by slot. All or nothing: what cannot be read whole is an error.
func (s *Store) Guests(ctx context.Context, pool string) ([]Guest, error) {
	return GuestsAs(ctx, s, pool, func(g Guest) Guest { return g })
}

// GuestsAs is Guests for who keeps a part of each: there may be 100 000, which are never in memory whole.
func GuestsAs[T any](ctx context.Context, s *Store, pool string, part func(Guest) T) ([]T, error) {
	return guestsAs(ctx, s, pool, nil, part)
}

// GuestsIn returns those guests of a pool that are in certain slots, by slot. A slot without a guest is left out.
func (s *Store) GuestsIn(ctx context.Context, pool string, slots []int) ([]Guest, error) {
	if len(slots) == 0 {
		return nil, nil
	}
	return guestsAs(ctx, s, pool, slots, func(g Guest) Guest { return g })
}

func guestsAs[T any](ctx context.Context, s *Store, pool string, which []int, part func(Guest) T) ([]T, error) {
	for range 5 {
		guests, missing, err := slotsAs(ctx, s, pool, which, part)
		if err != nil || len(missing) == 0 {
			return guests, err
		}
		// A guest that moved between two caches while it was read is in neither; a slot without a guest stays without.
		again, still, err := slotsAs(ctx, s, pool, which, part)
		if err != nil || slices.Equal(missing, still) {
			return again, err
		}
	}
	return nil, fmt.Errorf("%w: the guests of pool %s move too fast to be read whole", ErrUnavailable, pool)
}

// slotsAs reads what is in slots of a pool; none means all that are taken.
func slotsAs[T any](ctx context.Context, s *Store, pool string, which []int, part func(Guest) T) (guests []T, missing []int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*s.options.Timeout)
	defer cancel()
	taken, err := s.taken(ctx, pool, which)
	if err != nil || len(taken) == 0 {
		return nil, nil, outage(err)
	}
	guests = make([]T, 0, len(taken))
	known := words{}
	for some := range slices.Chunk(taken, readBatch) {
		keys := make([]string, len(some))
		for i, at := range some {
			keys[i] = s.base(at.cache) + ":guest:" + GuestName(pool, at.number)
		}
		read, err := s.readGuests(ctx, keys, known, guestFields)
		if err != nil {
			return nil, nil, err
		}
		for i, g := range read {
			if g.Name == "" {
				missing = append(missing, some[i].number)
			} else {
				guests = append(guests, part(g))
			}
		}
	}
	return guests, missing, nil
}

// slot is one that is taken, and the cache that its guest is in.
type slot struct {
	number int
	cache  string
}

// taken lists slots in order, of some or of all, that are taken.
func (s *Store) taken(ctx context.Context, pool string, which []int) (out []slot, err error) {
	if which == nil {
		return s.scan(ctx, pool)
	}
	fields := make([]string, len(which))
	for i, n := range which {
		fields[i] = strconv.Itoa(n)
	}
	caches, err := s.rdb.HMGet(ctx, s.base(pool)+":slots", fields...).Result()
	for i, cache := range caches {
		if cache != nil {
			out = append(out, slot{which[i], text(cache)})
		}
	}
	return out, err
}

// scan lists all slots of a pool that are taken, in order, some at a time.
func (s *Store) scan(ctx context.Context, pool string) (out []slot, err error) {
	caches := map[string]string{}
	for cursor := uint64(0); ; {
		var some []string
		if some, cursor, err = s.rdb.HScan(ctx, s.base(pool)+":slots", cursor, "", 1000).Result(); err != nil {
			return nil, err
		}
		for pair := range slices.Chunk(some, 2) {
			n, _ := strconv.Atoi(pair[0])
			if _, known := caches[pair[1]]; !known {
				caches[pair[1]] = pair[1]
			}
			out = append(out, slot{n, caches[pair[1]]})
		}
		if cursor == 0 {
			break
		}
	}
	slices.SortStableFunc(out, func(a, b slot) int { return cmp.Compare(a.number, b.number) })
	return slices.CompactFunc(out, func(a, b slot) bool { return a.number == b.number }), nil // a scan may tell of one twice
}

// readBatch is how many guests are asked for at once: the answers of 100 000 would fill the memory.
const readBatch = 500

// guestKeys are the keys of guests of one cache.
func (s *Store) guestKeys(cache string, names []string) []string {
	base, keys := s.base(cache)+":guest:", make([]string, len(names))
	for i, name := range names {
		keys[i] = base + name
	}
	return keys
}

// readGuests reads some fields of the guests on record under some keys, at most readBatch. Where there is none, it has no name.
func (s *Store) readGuests(ctx context.Context, keys []string, known words, fields []string) ([]Guest, error) {
	cmds := make([]*redis.SliceCmd, len(keys))
	_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range keys {
			cmds[i] = pipe.HMGet(ctx, key, fields...)
		}
		return nil
	})
	if err != nil {
		return nil, outage(err)
	}
	values := make(map[string]string, len(fields))
	guests := make([]Guest, len(keys))
	for i, cmd := range cmds {
		for j, v := range cmd.Val() {
			values[fields[j]] = text(v)
		}
		guests[i] = known.share(parseGuest(values))
	}
	return guests, nil
}

// words keeps one copy of each of the words that many guests have in common.
type words map[string]string

func (w words) share(g Guest) Guest {
	for _, field := range []*string{&g.Pool, &g.Cache, (*string)(&g.State), &g.Shard, &g.Digest, &g.Run, &g.User, &g.Reason, &g.Condemned, &g.Health} {
		known, ok := w[*field]
		if !ok {
			known = *field
			w[known] = known
		}
		*field = known
	}
	return g
}

// Guest returns one guest by name. Errors: ErrUnknownGuest, ErrUnavailable.
func (s *Store) Guest(ctx context.Context, name string) (Guest, error) {
	pool, slot, err := ParseGuestName(name)
	if err != nil {
		return Guest{}, err
	}
	cache, err := s.cacheOf(ctx, pool, slot)
	switch {
	case err != nil:
		return Guest{}, err
	case cache == "":
		return Guest{}, cmp.Or(s.lost(ctx), fmt.Errorf("%w: there is no guest %s", ErrUnknownGuest, name))
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	fields, err := s.rdb.HGetAll(ctx, s.base(cache)+":guest:"+name).Result()
	if err == nil && len(fields) == 0 {
		return Guest{}, cmp.Or(s.lost(ctx), fmt.Errorf("%w: there is no guest %s", ErrUnknownGuest, name))
	}
	return parseGuest(fields), outage(err)
}

// cacheOf returns the cache that a slot's guest is in; empty: the slot is free.
func (s *Store) cacheOf(ctx context.Context, pool string, slot int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	cache, err := s.rdb.HGet(ctx, s.base(pool)+":slots", strconv.Itoa(slot)).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	return cache, outage(err)
}

// guestFields are those that parseGuest reads, the name first, which every guest has.
var guestFields = strings.Fields(`name pool cache slot incarnation state shard digest run id address born
	until reason evidence condemned health reset failures demand attributes`)

func parseGuest(f map[string]string) Guest {
	num := func(k string) int { n, _ := strconv.Atoi(f[k]); return n }
	g := Guest{
		Name: f["name"], Pool: f["pool"], Cache: f["cache"], Slot: num("slot"), Incarnation: num("incarnation"),
		Shard: f["shard"], Digest: f["digest"], Run: f["run"], ID: f["id"], Born: ms(f["born"]), Until: ms(f["until"]), Reason: f["reason"],
		Evidence: f["evidence"], Condemned: f["condemned"], Health: f["health"], Reset: f["reset"] == "1", Failures: num("failures"), Demand: f["demand"] == "1",
	}
	g.readState(f["state"])
	g.readAddress(f["address"])
	if f["attributes"] != "" {
		g.Attributes = json.RawMessage(f["attributes"])
	}
	return g
}

// Events returns the newest n entries of a guest's history, newest first, from every cache that its slot was in.
func (s *Store) Events(ctx context.Context, name string, n int) ([]Event, error) {
	caches, err := s.Caches(ctx)
	if err != nil {
		return nil, err
	}
	return s.EventsIn(ctx, name, n, caches...)
}

// EventsIn is Events of the time that the guest was in some caches.
func (s *Store) EventsIn(ctx context.Context, name string, n int, caches ...string) ([]Event, error) {
	if _, _, err := ParseGuestName(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	cmds := make([]*redis.XMessageSliceCmd, len(caches))
	_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, c := range caches {
			cmds[i] = pipe.XRevRangeN(ctx, s.base(c)+":events:"+name, "+", "-", int64(n))
		}
		return nil
	})
	if err != nil {
		return nil, outage(err)
	}
	out := []Event{}
	for i, cmd := range cmds {
		for _, m := range cmd.Val() {
			out = append(out, parseEvents(m, name, caches[i])...)
		}
	}
	slices.SortStableFunc(out, func(a, b Event) int { return b.Time.Compare(a.Time) })
	return out[:min(n, len(out))], nil
}

// parseEvents reads what record in core.lua wrote, the newest first.
func parseEvents(m redis.XMessage, guest, cache string) []Event {
	at, _, _ := strings.Cut(m.ID, "-")
	e := Event{Time: ms(at), Guest: guest, Cache: cache}
	if entry, ok := m.Values["e"]; ok {
		return []Event{e.with(strings.SplitN(text(entry), "\n", eventLines))}
	}
	f := strings.Split(text(m.Values["two"]), "\n")
	half := min(eventLines, len(f))
	return []Event{e.with(f[half:]), e.with(f[:half])}
}

const eventLines = 7

// with fills in an entry; see history in lib.lua.
func (e Event) with(f []string) Event {
	if len(f) == eventLines {
		e.Incarnation, e.From, e.To, e.Actor, e.Lease, e.Reason, e.Detail = int(number(f[0])), State(f[1]), State(f[2]), unescape(f[3]), f[4], f[5], f[6]
	}
	return e
}

// readState reads what state_text in core.lua wrote.
func (g *Guest) readState(state string) {
	if f := strings.SplitN(state, "\n", 4); len(f) == 4 {
		g.State, g.Since, g.Uses, g.Lease = State(f[0]), ms(f[1]), int(number(f[2])), f[3]
	}
}

// addressOf is where a guest answers, as the store has it.
func addressOf(host string, port int, user, hostKey string) string {
	return lines(nil).line(host).number(int64(port)).line(user).last(hostKey)
}

// readAddress reads what addressOf wrote; a guest that is not made yet has none.
func (g *Guest) readAddress(address string) {
	if f := strings.SplitN(address, "\n", 4); len(f) == 4 {
		g.Host, g.Port, g.User, g.HostKey = unescape(f[0]), int(number(f[1])), unescape(f[2]), f[3]
	}
}
