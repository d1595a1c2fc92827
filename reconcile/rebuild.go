package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// rebuild puts every guest that Terraform's state knows back on record when the store has been lost: quarantined, because
// anybody may still hold it. It is all or nothing: no guest is written before every shard could be read whole, which a run
// that is under way delays, and the store counts as empty until a fleet is in force again, which it can't be where it was lost once more.
func (l *Loop) rebuild(ctx context.Context, empty bool) error {
	if !empty && l.ready {
		return nil
	}
	metas, err := l.readMetas()
	if !empty {
		return l.stallBroken(err)
	}
	if err != nil {
		return err
	}
	if err := l.o.Store.Open(ctx); err != nil {
		return err
	}
	found := make([]inventory, 0, len(metas))
	for shard, meta := range metas {
		l.o.Log.Warn("the store was lost, or is new; reading a shard's guests from its state", "shard", shard)
		inv := inventory{shard: shard, meta: meta}
		if inv.outputs, inv.incarnations, err = l.terraform().Inventory(ctx, shard); err != nil {
			return fmt.Errorf("the store was lost, and nothing is done before every guest is known again: %w", err)
		}
		found = append(found, inv)
	}
	l.view.forget()
	for _, inv := range found {
		if err := l.quarantine(ctx, inv, nil); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.restored == nil && l.fleet.Revision != "" {
		l.restored = l.fleet // the new store does not know it
	}
	return nil
}

// readMetas reads what is kept with each shard that ever had a guest.
func (l *Loop) readMetas() (map[string]shardMeta, error) {
	shards, err := l.terraform().Shards()
	metas := map[string]shardMeta{}
	for _, sh := range shards {
		var meta shardMeta
		if len(sh.JSON) == 0 {
			continue
		}
		if err := json.Unmarshal(sh.JSON, &meta); err != nil {
			return nil, fmt.Errorf("shard %s: its record cannot be read: %w", sh.Shard, err)
		}
		l.remember(sh.Shard, meta)
		metas[sh.Shard] = meta
	}
	return metas, err
}

// stallBroken stops the shards that cannot be read, and no other, until somebody has mended them. It returns any other error.
func (l *Loop) stallBroken(err error) error {
	broken, ok := errors.AsType[terraform.BrokenError](err)
	for shard, why := range broken {
		l.o.Log.Error("a shard cannot be read and is left alone", "shard", shard, "err", why)
		fault := &terraform.Fault{Kind: terraform.FaultState, Message: why.Error(), Hint: "restore the file, and start the server again"}
		l.mu.Lock()
		l.shardLocked(shard, poolOfShard(shard)).stalled = fault
		l.mu.Unlock()
	}
	if ok {
		return nil
	}
	return err
}

// poolOfShard reads the pool out of a shard's name; see ShardID.
func poolOfShard(id string) string {
	parts := strings.Split(id, "-")
	return strings.Join(parts[:max(len(parts)-2, 0)], "-")
}

// inventory is what exists of one shard.
type inventory struct {
	shard        string
	meta         shardMeta
	outputs      map[string]terraform.Output
	incarnations map[string]int
}

// quarantine records guests that exist and are not known, until nobody can hold them any more.
func (l *Loop) quarantine(ctx context.Context, inv inventory, known map[string]lease.Guest) error {
	until := l.o.Now().Add(l.longestLease())
	for name, incarnation := range inv.incarnations {
		if _, ok := known[name]; ok {
			continue
		}
		pool, slot, err := lease.ParseGuestName(name)
		if err != nil {
			return fmt.Errorf("shard %s: %w", inv.shard, err)
		}
		cache := inv.meta.Caches[name]
		if cache == "" {
			cache = pool
		}
		g := lease.Guest{Name: name, Pool: pool, Cache: cache, Slot: slot, Incarnation: incarnation, Shard: inv.shard, Digest: inv.meta.Digest}
		switch err := l.o.Store.Found(ctx, g, machine(inv.outputs[name]), until); {
		case errors.Is(err, lease.ErrConflict): // another machine of that name is on record: an admin must look at this one
			l.o.Log.Error("a machine that the inventory does not know has the name of one that it knows", "guest", name, "shard", inv.shard, "err", err)
		case err != nil:
			return err
		}
	}
	return nil
}

// longestLease is the longest time that anybody can hold a guest by the specs that are or were in force.
func (l *Loop) longestLease() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.longest, specs.DefaultLeaseMax)
}
