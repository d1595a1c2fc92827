package reconcile

import (
	"context"
	"path/filepath"
	"time"

	"greenroom/specs"
)

// pruneEvery is how often modules are removed that nothing needs any more.
const pruneEvery = 24 * time.Hour

// pruneModules has them removed at the start and then every day, beside the loop: there may be much to remove. It is for when all
// shards are known.
func (l *Loop) pruneModules(ctx context.Context) {
	now := l.o.Now()
	if now.Sub(l.pruned) < pruneEvery {
		return
	}
	l.pruned = now
	driver, needed := l.terraform(), l.neededModules()
	l.runs.Go(func() { driver.PruneModules(ctx, needed, now) })
}

// neededModules are the digests of the modules that a run may need: those of the fleet in force and of what is to come into force,
// and those of every shard, which knows no more of its module. Of the others, whoever comes to need one puts it into the store
// again, or marks it as used.
func (l *Loop) neededModules() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	needed := map[string]bool{}
	for _, r := range l.recipes {
		needed[r.Tree] = true
	}
	for _, sh := range l.shards {
		needed[sh.meta.Recipe.Tree] = true
	}
	fleets := []*specs.Fleet{l.fleet, l.restored}
	if l.offered != nil {
		fleets = append(fleets, l.offered.Fleet)
	}
	for _, f := range fleets {
		if f == nil {
			continue
		}
		for _, p := range f.Pools {
			needed[filepath.Base(p.ModuleDir)] = true // in the store, a directory has the digest as its name
		}
	}
	return needed
}
