package reconcile

import (
	"testing"
	"time"
)

// moved is a loop whose pool went from module old to new, with a shard of each, and one of a pool that has left the specs.
func moved() (l *Loop, old, moved, left *shardState) {
	l = New(Options{Runs: 2})
	l.recipes["a"] = recipe{Source: "new"}
	shard := func(id, pool, module string) *shardState {
		l.remember(id, shardMeta{Recipe: recipe{Pool: pool, Source: module}})
		return l.shards[id]
	}
	return l, shard("a-1", "a", "old"), shard("a-2", "a", "new"), shard("gone-1", "gone", "old")
}

func TestTheBreakerOfAModuleStopsTheShardsOfThatModule(t *testing.T) {
	for module, want := range map[string][3]bool{"new": {true, false, true}, "old": {false, true, false}, "": {true, true, true}} {
		l, old, moved, left := moved()
		l.breaker(module).until = l.o.Now().Add(time.Minute)
		if got := [3]bool{l.mayRun(old), l.mayRun(moved), l.mayRun(left)}; got != want {
			t.Errorf("the breaker of %q is open: runs of the old, the moved and the left shard may begin: %v, want %v", module, got, want)
		}
	}
}

func TestTheLastPlaceIsKeptFromTheModuleThatRuns(t *testing.T) {
	l, old, moved, left := moved()
	old.run = "run"
	if !l.hasPlace(moved) || l.hasPlace(left) {
		t.Error("it must be kept for the new module")
	}
	old.run, moved.run = "", "run"
	if !l.hasPlace(old) || !l.hasPlace(left) {
		t.Error("the old module has no run")
	}
}

func TestRunsThatLastForLongTakeNoPlaceFromOtherModules(t *testing.T) {
	now := time.Now()
	l, old, moved, _ := moved()
	l.o.Now = func() time.Time { return now }
	shard := func(id, module string) *shardState {
		l.remember(id, shardMeta{Recipe: recipe{Pool: id, Source: module}})
		return l.shards[id]
	}
	third, fourth := shard("third", "third"), shard("fourth", "fourth")
	for _, sh := range []*shardState{old, moved} {
		sh.run, sh.began = "run", now
	}
	if l.hasPlace(third) {
		t.Error("two runs are under way, and there is place for two")
	}
	now = now.Add(longRun)
	for _, sh := range []*shardState{third, fourth} {
		if !l.hasPlace(sh) {
			t.Errorf("%s has no place", sh.id)
		}
		sh.run, sh.began = "run", now
	}
	if now = now.Add(longRun); l.hasPlace(shard("fifth", "fifth")) {
		t.Error("there are twice as many runs as places")
	}
}

func TestForgivingAPoolForgivesTheModulesOfItsShards(t *testing.T) {
	l, old, _, _ := moved()
	l.breaker("old").until = l.o.Now().Add(time.Minute)
	l.forgive("a")
	if !l.mayRun(old) {
		t.Error("the breaker is still open")
	}
}
