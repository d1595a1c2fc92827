package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"greenroom/lease"
	"greenroom/reconcile/terraform"
)

// rebuild puts every guest that Terraform's state knows back on record when the store has been lost: quarantined, because
// anybody may still hold it. It is all or nothing: what cannot be read whole stops the pass.
func (l *Loop) rebuild(ctx context.Context, empty bool) error {
	if !empty && l.ready {
		return nil
	}
	shards, err := l.terraform().Shards()
	if err != nil {
		return err
	}
	for _, sh := range shards {
		var meta shardMeta
		if len(sh.JSON) > 0 {
			if err := json.Unmarshal(sh.JSON, &meta); err != nil {
				return fmt.Errorf("shard %s: its record cannot be read: %w", sh.Shard, err)
			}
			l.remember(sh.Shard, meta)
		}
		if !empty || meta.Digest == "" {
			continue
		}
		l.o.Log.Warn("the store was lost; reading a shard's guests from its state", "shard", sh.Shard)
		if err := l.rebuildShard(ctx, sh.Shard, meta); err != nil {
			return err
		}
	}
	if empty { // bring the fleet into force again, with the guests it knows
		l.mu.Lock()
		if l.offered == nil && l.fleet.Revision != "" {
			l.offered = l.fleet
		}
		l.mu.Unlock()
	}
	return nil
}

func (l *Loop) rebuildShard(ctx context.Context, shard string, meta shardMeta) error {
	outputs, incarnations, err := l.terraform().Inventory(ctx, shard)
	if err != nil {
		return err
	}
	return l.quarantine(ctx, shard, meta, outputs, incarnations, nil)
}

// quarantine records guests that exist and are not known, until nobody can hold them any more.
func (l *Loop) quarantine(ctx context.Context, shard string, meta shardMeta, outputs map[string]terraform.Output, incarnations map[string]int, known map[string]lease.Guest) error {
	until := l.o.Now().Add(l.longestLease())
	for name, incarnation := range incarnations {
		if _, ok := known[name]; ok {
			continue
		}
		pool, slot, err := lease.ParseGuestName(name)
		if err != nil {
			return fmt.Errorf("shard %s: %w", shard, err)
		}
		cache := meta.Caches[name]
		if cache == "" {
			cache = pool
		}
		g := lease.Guest{Name: name, Pool: pool, Cache: cache, Slot: slot, Incarnation: incarnation, Shard: shard, Digest: meta.Digest}
		if err := l.o.Store.Found(ctx, g, machine(outputs[name]), until); err != nil {
			return fmt.Errorf("guest %s: %w", name, err)
		}
	}
	return nil
}

// longestLease is the longest time that anybody can hold a guest by the specs that are or were in force.
func (l *Loop) longestLease() time.Duration {
	longest := 4 * time.Hour
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.fleet.AllCaches() {
		longest = max(longest, c.Lease.Max)
	}
	if l.offered != nil {
		for _, c := range l.offered.AllCaches() {
			longest = max(longest, c.Lease.Max)
		}
	}
	return longest
}
