package watchdog

import (
	"context"
	"errors"
	"slices"
	"time"

	"greenroom/lease"
)

// openMail takes in what others told the watchdog.
func (p *patrol) openMail(now time.Time) {
	p.takeTurns(now)
	p.mu.Lock()
	if len(p.moved) > 0 {
		at := now.Add(lazily)
		if p.hurry {
			at = now.Add(soon)
		}
		if p.readMoved.IsZero() || at.Before(p.readMoved) {
			p.readMoved = at
		}
	}
	var told map[string]vanished
	if p.readOnce && len(p.vanished) > 0 {
		told, p.vanished = p.vanished, map[string]vanished{}
	}
	p.mu.Unlock()
	touched := map[*pool]struct{}{}
	for _, v := range told {
		if pl := p.lost(v, now); pl != nil {
			touched[pl] = struct{}{}
		}
	}
	for pl := range touched {
		p.settle(pl, now)
	}
}

// takeTurns brings in what is known of guests without reading them; not during a reading, which may be older.
func (p *patrol) takeTurns(now time.Time) {
	if p.reading > 0 || !p.readOnce {
		return
	}
	p.mu.Lock()
	turns := p.turns
	p.turns, p.gather = lease.Turns{}, false
	p.mu.Unlock()
	touched := map[*pool]struct{}{}
	for name, t := range turns {
		pool, _, _ := lease.ParseGuestName(name)
		if pl := p.pools[pool]; pl != nil && pl.guests[name] != nil {
			if g := pl.guests[name].Guest(); t.Apply(&g) {
				pl.update(now, g, p.scripted(g))
				touched[pl] = struct{}{}
				continue
			}
		}
		p.mu.Lock()
		p.moved[name] = struct{}{}
		p.mu.Unlock()
	}
	for pl := range touched {
		p.settle(pl, now)
	}
}

// lost notes that a guest has been taken away, or that it is there after all: then its probes tell how it is. One that is unknown
// has come since the last reading.
func (p *patrol) lost(v vanished, now time.Time) *pool {
	if v.evidence == "" && !p.missed(v.guest) {
		return nil
	}
	pl := p.pool(v.guest.Pool, now)
	if pl.guests[v.guest.Name] == nil {
		pl.update(now, v.guest, false)
	}
	if g := pl.guests[v.guest.Name]; g != nil && int(g.Incarnation) == v.guest.Incarnation {
		g.vanished = v.evidence
		pl.recount(g)
		if g.State == lease.Leased && (v.evidence != "" || g.verdict() == Alive) {
			p.carryOut(g.tell(Result{}))
		}
	}
	return pl
}

// missed tells that a guest is thought to have been taken away.
func (p *patrol) missed(of lease.Guest) bool {
	pl := p.pools[of.Pool]
	return pl != nil && pl.guests[of.Name] != nil && pl.guests[of.Name].vanished != ""
}

func (p *patrol) pool(name string, now time.Time) *pool {
	pl := p.pools[name]
	if pl == nil {
		pl = newPool(name, &p.timetable, p.o)
		p.pools[name] = pl
		p.metrics.start(name)
		p.mu.Lock()
		p.brakes[name] = ""
		p.mu.Unlock()
	}
	probes, brake := settings(p.o.Store.Fleet(), name)
	pl.configure(probes, brake, now)
	return pl
}

// read has guests read from the store: all of them now and then, and those that moved soon after. One reading at a time, so
// that an older one never overwrites a newer one. Before a fleet is in force nothing is read: it would be judged by the
// wrong settings.
func (p *patrol) read(now time.Time) {
	fleet := p.o.Store.Fleet()
	if fleet != p.fleet {
		p.fleet, p.readAll = fleet, now
	}
	switch {
	case p.reading > 0:
	case fleet.Revision == "" && len(fleet.Pools) == 0:
		p.readAll, p.readMoved = now.Add(30*soon), time.Time{}
	case !now.Before(p.readAll):
		p.readAll, p.began = now.Add(p.o.Refresh), now
		p.broken = false
		p.takeMoved()
		p.chore(p.listPools)
	case !p.readMoved.IsZero() && !now.Before(p.readMoved):
		p.readChanged()
	}
}

// takeMoved empties the list of guests that moved.
func (p *patrol) takeMoved() map[string]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	moved := p.moved
	p.moved, p.hurry, p.readMoved = map[string]struct{}{}, false, time.Time{}
	return moved
}

// chore queues one read. read returns what the loop does with what was read.
func (p *patrol) chore(read func(context.Context) (func(), error)) {
	p.reading++
	p.chores = append(p.chores, chore{
		callOff: func() { p.reading--; p.broken = true },
		do: func(ctx context.Context) func() {
			use, err := read(ctx)
			return func() { p.haveRead(use, err) }
		},
	})
}

func (p *patrol) haveRead(use func(), err error) {
	switch {
	case err == nil:
		use()
	case !errors.Is(err, context.Canceled):
		p.outage(err)
	}
	p.reading--
	if p.reading > 0 || p.broken {
		return
	}
	if now := time.Now(); !p.began.IsZero() { // reading all takes a hundredth of the time at most
		p.readAll = later(p.readAll, now.Add(100*now.Sub(p.began)))
		p.began = time.Time{}
	}
	p.readOnce = true
	if p.down {
		p.down = false
		p.o.Log.Info("the watchdog reaches the store again")
	}
}

// outage calls off all that waits for the store, and has it asked again in a while. Probing goes on.
func (p *patrol) outage(err error) {
	if !p.down {
		p.o.Log.Error("the watchdog cannot use the store; probes go on, taints wait", "err", err)
	}
	p.down, p.broken = true, true
	p.readAll = time.Now().Add(retry)
	chores := p.chores
	p.chores = nil
	for _, c := range chores {
		c.callOff()
	}
}

// listPools has the pools read that have guests, or had, and those that come and go.
func (p *patrol) listPools(ctx context.Context) (func(), error) {
	names, err := p.o.Store.Pools(ctx)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, pl := range p.o.Store.Fleet().Pools {
		names = append(names, pl.Name)
		wanted[pl.Name] = true
	}
	slices.Sort(names)
	surveys, err := p.o.Store.Survey(ctx, slices.Compact(names)...)
	return func() {
		for _, of := range surveys {
			if pl := p.pools[of.Pool]; of.Taken > 0 || pl == nil || len(pl.guests) > 0 || !wanted[of.Pool] {
				p.readPool(of.Pool)
			}
		}
	}, err
}

// readPool reads all guests of a pool. The loop takes them in some at a time: there may be 100 000.
func (p *patrol) readPool(name string) {
	p.readings++
	number := p.readings
	p.chore(func(ctx context.Context) (func(), error) {
		var some []memory
		handOver := func() {
			guests := some
			some = nil
			select {
			case p.done <- func() { p.takeIn(name, guests, number) }:
			case <-ctx.Done():
			}
		}
		_, err := lease.GuestsAs(ctx, p.o.Store, name, func(g lease.Guest) struct{} {
			if some = append(some, remember(g)); len(some) == takenAtOnce {
				handOver()
			}
			return struct{}{}
		})
		return func() {
			p.takeIn(name, some, number)
			p.dropOthers(name, number)
		}, err
	})
}

const takenAtOnce = 500

// takeIn takes in guests that a reading has found.
func (p *patrol) takeIn(name string, guests []memory, reading int) {
	if len(guests) == 0 {
		return
	}
	now := time.Now()
	pl := p.pool(name, now)
	for _, m := range guests {
		g := m.Guest()
		pl.update(now, g, p.scripted(g))
		if known := pl.guests[g.Name]; known != nil {
			known.read = reading
		}
	}
}

// dropOthers drops the guests of a pool that a whole reading has not found.
func (p *patrol) dropOthers(name string, reading int) {
	wanted := p.o.Store.Fleet().Pool(name) != nil
	if p.pools[name] == nil && !wanted {
		return
	}
	now := time.Now()
	pl := p.pool(name, now)
	for _, g := range pl.guests {
		if g.read != reading {
			pl.drop(g)
		}
	}
	p.settle(pl, now)
	if len(pl.guests) == 0 && !wanted {
		p.forget(name)
	}
}

func (p *patrol) forget(name string) {
	delete(p.pools, name)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.brakes, name)
	p.metrics.forget(name)
}

// readChanged reads the guests that moved, or their whole pool where they are many in it.
func (p *patrol) readChanged() {
	byPool := map[string][]string{}
	for name := range p.takeMoved() {
		if pool, _, err := lease.ParseGuestName(name); err == nil {
			byPool[pool] = append(byPool[pool], name)
		}
	}
	for pool, names := range byPool {
		if pl := p.pools[pool]; pl == nil || len(names) > max(fewRead, len(pl.guests)/8) {
			p.readPool(pool)
			continue
		}
		p.readGuests(pool, names)
	}
}

// readGuests reads some guests of a pool. What is not there any more is gone.
func (p *patrol) readGuests(pool string, names []string) {
	slots := make([]int, len(names))
	for i, name := range names {
		_, slots[i], _ = lease.ParseGuestName(name)
	}
	p.chore(func(ctx context.Context) (func(), error) {
		guests, err := p.o.Store.GuestsIn(ctx, pool, slots)
		return func() {
			now := time.Now()
			pl := p.pool(pool, now)
			left := map[string]bool{}
			for _, name := range names {
				left[name] = true
			}
			for _, g := range guests {
				delete(left, g.Name)
				pl.update(now, g, p.scripted(g))
			}
			for name := range left {
				pl.update(now, lease.Guest{Name: name, Pool: pool, State: lease.Gone}, false)
			}
			p.settle(pl, now)
		}, err
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
