package reconcile

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"greenroom/lease"
	"greenroom/reconcile/plan"
	"greenroom/specs"
)

// start is a fleet of two pools and a cache, converged, with two of its guests leased.
func start() *specs.Fleet {
	return &specs.Fleet{
		Revision: "base",
		Pools: []*specs.Pool{
			{Name: "a", Module: "local", Max: 10, ShardSize: 25, Variables: []byte(`{"image":"one"}`), Rollout: specs.Rollout{MaxUnavailable: 1}},
			{Name: "b", Module: "local", Max: 10, ShardSize: 25, Variables: []byte(`{}`), Rollout: specs.Rollout{MaxUnavailable: 1}},
		},
		Caches: []*specs.Cache{{Name: "ci", Owner: "team", Pools: []string{"a"}, Warm: 2, Size: 4, Max: 8, Enabled: true, Reuse: specs.Reuse{Uses: 50}}},
	}
}

// previewOf is a preview without a store.
func previewOf(base, head *specs.Fleet, guests []lease.Guest, leases map[string]lease.Lease) *previewing {
	pv := &previewing{
		loop: New(Options{}), now: time.Unix(1_000_000, 0), guests: guests, leases: leases,
		ready: map[string]time.Duration{"a": 40 * time.Second},
	}
	pv.readyOf = func(pool string) time.Duration { return max(pv.ready[pool], time.Second) }
	pv.base, pv.head = sideOf(base), sideOf(head)
	pv.base.play(context.Background(), pv.snapshot(pv.base), pv)
	pv.head.play(context.Background(), pv.snapshot(pv.head), pv)
	return pv
}

func sideOf(f *specs.Fleet) side {
	sd := side{fleet: f, recipes: map[string]recipe{}}
	for _, p := range f.Pools {
		r := recipe{Pool: p.Name, Source: p.Module, Variables: p.Variables, UserData: p.UserData}
		r.digest = r.sum()
		sd.recipes[p.Name] = r
	}
	return sd
}

// guestsOf makes guests of pool a: shelved ones, then leased ones whose leases end one after the other.
func guestsOf(base *specs.Fleet, shelved, leased int) (guests []lease.Guest, leases map[string]lease.Lease) {
	leases = map[string]lease.Lease{}
	digest := sideOf(base).recipes["a"].digest
	for n := 1; n <= shelved+leased; n++ {
		g := lease.Guest{
			Name: lease.GuestName("a", n), Pool: "a", Cache: "ci", Slot: n, Incarnation: 1, State: lease.Shelved, Shard: ShardID("a", digest, 1),
			Digest: digest, Born: time.Unix(999_000, 0), Since: time.Unix(999_000+int64(n), 0),
		}
		if n > shelved {
			g.State, g.Lease, g.Uses = lease.Leased, fmt.Sprint("ci.", n), 1
			leases[g.Name] = lease.Lease{ID: g.Lease, Owner: "team", Guest: g.Name, Deadline: time.Unix(1_000_600+int64(n), 0), Cap: time.Unix(1_009_000, 0)}
		}
		guests = append(guests, g)
	}
	return guests, leases
}

func TestAPreviewSaysWhatTheRevisionDoesAndNothingElse(t *testing.T) {
	for name, c := range map[string]struct {
		shelved, leased int
		change          func(*specs.Fleet)
		want            string
	}{
		"nothing":     {2, 2, func(*specs.Fleet) {}, "4 kept"},
		"labels only": {2, 2, func(f *specs.Fleet) { f.Pools[0].Labels = map[string]string{"os": "x"} }, "4 kept, 1 setting changed"},
		"a larger warm": {
			2, 2, func(f *specs.Fleet) { f.Caches[0].Warm, f.Caches[0].Size = 4, 6 },
			"2 to create, 4 kept, 2 settings changed",
		},
		"a larger warm that leaves no room on the shelf": {
			2, 2, func(f *specs.Fleet) { f.Caches[0].Warm = 4 },
			"2 to create, 2 to retire when released, 2 kept, 1 setting changed",
		},
		"a smaller size": {
			4, 0, func(f *specs.Fleet) { f.Caches[0].Warm, f.Caches[0].Size = 1, 1 },
			"3 to retire, 1 kept, 2 settings changed",
		},
		"a size under the leased count": {
			0, 3, func(f *specs.Fleet) { f.Caches[0].Warm, f.Caches[0].Size = 0, 1 },
			"2 to retire when released, 1 kept, 1 setting changed",
		},
		"a new pool with spares": {
			2, 2, func(f *specs.Fleet) {
				f.Pools = append(f.Pools, &specs.Pool{Name: "c", Module: "local", Max: 3, Spare: 2, ShardSize: 25})
			}, "2 to create, 4 kept, 1 setting changed",
		},
		"variables": {
			2, 2, func(f *specs.Fleet) { f.Pools[0].Variables = []byte(`{"image":"two"}`) },
			"2 to replace, 2 to retire when released, 1 setting changed",
		},
		"a cache moved to another pool": {
			2, 2, func(f *specs.Fleet) { f.Caches[0].Pools = []string{"b"} },
			"2 to replace, 2 to retire when released, 1 setting changed",
		},
		"a disabled cache": {2, 2, func(f *specs.Fleet) { f.Caches[0].Enabled = false }, "4 kept, 1 setting changed"},
		"a removed pool": {
			2, 2, func(f *specs.Fleet) { f.Pools, f.Caches = f.Pools[1:], nil },
			"2 to retire, 2 to retire when released, 2 settings changed",
		},
		"everything removed": {
			2, 2, func(f *specs.Fleet) { f.Pools, f.Caches = nil, nil },
			"2 to retire, 2 to retire when released, 3 settings changed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			base, head := start(), start()
			if c.shelved == 0 || c.shelved == 4 {
				base.Caches[0].Warm, head.Caches[0].Warm = 0, 0
			}
			head.Revision = "head"
			c.change(head)
			guests, leases := guestsOf(base, c.shelved, c.leased)
			p := previewOf(base, head, guests, leases).plan()
			if got := p.Summary.String(); got != c.want {
				t.Errorf("says %q, want %q\n%+v", got, c.want, p.Guests)
			}
			for _, g := range p.Guests {
				if g.State == string(lease.Leased) && (g.Lease == nil || g.Lease.Owner != "team" || g.When == plan.Now) {
					t.Errorf("leased guest: %+v", g)
				}
			}
		})
	}
}

func TestWhatIsDueAnywayIsNoDoingOfTheRevision(t *testing.T) {
	base, head := start(), start()
	head.Revision = "head"
	head.Pools[0].Labels = map[string]string{"os": "x"}
	guests, leases := guestsOf(base, 1, 1) // one is missing
	guests[0].State, guests[0].Reason = lease.Tainted, "dead"
	p := previewOf(base, head, guests, leases).plan()
	if want := (plan.Summary{Keep: 1, Settings: 1, Anyway: 2}); p.Summary != want {
		t.Errorf("%+v, want %+v\n%+v", p.Summary, want, p.Guests)
	}
}

// Else a revision that empties a fleet while a rollout is under way would seem to do nothing, and pass every guard.
func TestWhatIsReplacedAnywayAndGoesForGoodIsTheRevisionsDoing(t *testing.T) {
	nothing := func(f *specs.Fleet) { f.Pools, f.Caches = nil, nil }
	age := func(f *specs.Fleet) { f.Caches[0].Reuse.Age = time.Minute }
	for name, c := range map[string]struct {
		base, head func(*specs.Fleet)
		state      lease.State // of those that are not leased
		leased     int
		want       string
		anyway     int
	}{
		"a rollout is under way":          {func(f *specs.Fleet) { f.Pools[0].UserData = "new" }, nothing, lease.Shelved, 2, "4 to retire, 4 settings changed", 2},
		"all are too old":                 {age, nothing, lease.Shelved, 0, "4 to retire, 4 settings changed", 0},
		"all are dead":                    {func(*specs.Fleet) {}, nothing, lease.Tainted, 0, "4 to retire, 4 settings changed", 0},
		"all are being replaced just now": {func(*specs.Fleet) {}, nothing, lease.Replacing, 0, "4 to retire, 4 settings changed", 0},
		"those that are leased are used up, and half of them are replaced": {
			func(f *specs.Fleet) { f.Caches[0].Reuse.Uses, f.Caches[0].Warm, f.Caches[0].Max = 1, 2, 4 }, nothing, "", 4,
			"2 to retire when released, 4 settings changed", 2,
		},
		"a smaller shelf in a rollout": {
			func(f *specs.Fleet) { f.Pools[0].UserData = "new" },
			func(f *specs.Fleet) { f.Pools[0].UserData, f.Caches[0].Warm, f.Caches[0].Size = "new", 1, 1 }, lease.Shelved, 0,
			"3 to retire, 3 settings changed", 1,
		},
		"another pool in a rollout": {
			func(f *specs.Fleet) { f.Pools[0].UserData = "new" },
			func(f *specs.Fleet) { f.Pools[0].UserData, f.Caches[0].Pools = "new", []string{"b"} }, lease.Shelved, 0,
			"4 to replace, 2 settings changed", 0,
		},
		"a dead guest that is not replaced in base": {
			func(f *specs.Fleet) { f.Caches[0].Warm = 0 }, func(*specs.Fleet) {}, lease.Tainted, 0, "4 to replace, 2 settings changed", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			old, base, head := start(), start(), start()
			old.Caches[0].Warm, base.Caches[0].Warm, head.Caches[0].Warm = 4, 4, 4
			base.Guard = &specs.Guard{MaxRetire: .1}
			head.Revision = "head"
			c.base(base)
			c.head(head)
			guests, leases := guestsOf(old, 4*truth(c.state != ""), c.leased)
			for i := range guests {
				if guests[i].State == lease.Shelved {
					guests[i].State = c.state
				}
			}
			p := previewOf(base, head, guests, leases).plan()
			if got := p.Summary.String(); got != c.want || p.Summary.Anyway != c.anyway {
				t.Errorf("says %q and %d anyway, want %q and %d\n%+v", got, p.Summary.Anyway, c.want, c.anyway, p.Guests)
			}
			if held := len(p.Breaches) > 0; held != (p.Summary.Retire+p.Summary.RetireLater > 0) {
				t.Errorf("breaches: %v", p.Breaches)
			}
		})
	}
}

func TestAPreviewTellsOfAShortage(t *testing.T) {
	base, head := start(), start()
	head.Revision = "head"
	head.Pools[0].Variables = []byte(`{"image":"two"}`)
	head.Pools[0].Max, base.Pools[0].Max = 2, 2 // so that the old must go before the new
	guests, leases := guestsOf(base, 2, 0)
	p := previewOf(base, head, guests, leases).plan()
	var dip *plan.Dip
	for _, c := range p.Caches {
		if c.Cache == "ci" {
			dip = c.Dip
		}
	}
	if dip == nil || dip.Lowest != 1 || dip.Warm != 2 || !dip.Measured || dip.Seconds < 80 || dip.Seconds > 90 {
		t.Errorf("dip %+v, want 1 of 2 for twice 40 s and a little", dip)
	}
	if diff := cmp.Diff([]string{"variables.image"}, p.Pools[0].Outdated); diff != "" {
		t.Error(diff)
	}
}

func TestSettingsAreToldAsTheSpecNamesThemAndWithoutSecrets(t *testing.T) {
	base, head := start(), start()
	base.Pools[0].Module, head.Pools[0].Module = "git::https://bob:hunter2@git.example/m.git?ref=v1", "git::https://hunter3@git.example/m.git?ref=v2&sshkey=hunter4"
	base.Pools[1].Module, head.Pools[1].Module = "git::https://hunter5@git.example/m.git", "git::https://hunter6@git.example/m.git"
	base.Pools[0].Probes = []specs.Probe{{Kind: "ssh", Every: time.Second}, {Kind: "exec", Command: []string{"check", "hunter7"}}}
	head.Pools[0].Probes = []specs.Probe{{Kind: "ssh", Every: time.Minute}, {Kind: "exec", Command: []string{"check", "hunter8"}}}
	head.Pools[0].Variables, head.Pools[0].UserData = []byte(`{"image":"hunter9"}`), "hunter10"
	base.Pools[0].Brake.MaxUnhealthy, head.Pools[0].Brake.MaxUnhealthy = .4, .125
	head.Caches[0].Prepare = specs.Script{Path: "prepare.sh", Body: []byte("hunter11")}
	head.Caches[0].Lease.TTL = time.Minute
	p := previewOf(base, head, nil, nil).plan()
	got := map[string][]string{}
	say := func(block string, settings []plan.Setting) {
		for _, one := range settings {
			got[block] = append(got[block], one.Says())
		}
	}
	for _, one := range p.Pools {
		say(one.Pool, one.Settings)
	}
	for _, one := range p.Caches {
		say(one.Cache, one.Settings)
	}
	want := map[string][]string{
		"a": {
			"brake.max_unhealthy: 40% → 12.5%", "module: git::https://…@git.example/m.git?ref=v1 → git::https://…@git.example/m.git?ref=v2&sshkey=…",
			"probe.exec.command: differs", "probe.ssh.every: 1s → 1m", "user_data: differs (its value is not told)",
			"variables.image: differs (its value is not told)",
		},
		"b":  {"module: differs"},
		"ci": {"lease.ttl: 0s → 1m", "prepare: none → prepare.sh", "prepare (its text): differs"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestGuardsOfBothRevisionsCount(t *testing.T) {
	for name, c := range map[string]struct {
		base, head func(*specs.Fleet)
		want       []string
	}{
		"none": {func(*specs.Fleet) {}, func(f *specs.Fleet) { f.Caches = nil }, nil},
		"a guard that the revision lifts": {
			func(f *specs.Fleet) { f.Guard = &specs.Guard{MaxRetire: .25} }, func(f *specs.Fleet) { f.Caches, f.Guard = nil, nil },
			[]string{"fleet: 4 of 4 guests would be retired, and guard { max_retire } allows 25%"},
		},
		"a pool's": {
			func(*specs.Fleet) {}, func(f *specs.Fleet) { f.Caches, f.Pools[0].Guard = nil, &specs.Guard{} },
			[]string{"pool.a: 4 of 4 guests would be retired, and guard { max_retire } allows 0%"},
		},
		"a guest that goes to another pool is lost to its pool": {
			func(*specs.Fleet) {}, func(f *specs.Fleet) { f.Caches[0].Pools, f.Pools[0].Guard = []string{"b"}, &specs.Guard{MaxRetire: .9} },
			[]string{"pool.a: 4 of 4 guests would be retired, and guard { max_retire } allows 90%"},
		},
		"replacing is not retiring": {
			func(f *specs.Fleet) { f.Guard = &specs.Guard{} }, func(f *specs.Fleet) { f.Pools[0].UserData = "new" }, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			base, head := start(), start()
			base.Caches[0].Warm, head.Caches[0].Warm = 4, 4
			head.Revision = "head"
			c.base(base)
			c.head(head)
			guests, leases := guestsOf(base, 4, 0)
			var got []string
			for _, b := range previewOf(base, head, guests, leases).plan().Breaches {
				got = append(got, b.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadyTimesAreReadFromTheHistory(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	events := []lease.Event{ // the newest first
		{Time: at(100), From: lease.Preparing, To: lease.Shelved},
		{Time: at(90), From: lease.Replacing, To: lease.Booting},
		{Time: at(70), From: lease.Tainted, To: lease.Replacing},
		{Time: at(60), From: lease.Leased, To: lease.Tainted},
		{Time: at(50), From: lease.Shelved, To: lease.Leased},
		{Time: at(42), From: lease.Booting, To: lease.Shelved},
		{Time: at(2), To: lease.Planned},
	}
	if diff := cmp.Diff([]time.Duration{40 * time.Second, 30 * time.Second}, readyTimes(events)); diff != "" {
		t.Error(diff)
	}
}

// Whatever a fleet looks like: a preview counts every guest once, never has a leased one go before it is released, and
// finds nothing to do in the revision that is in force.
func TestAPreviewIsWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base, head := someFleet(t, "base"), someFleet(t, "head")
		guests, leases := guestsOf(base, rapid.IntRange(0, 5).Draw(t, "shelved"), rapid.IntRange(0, 4).Draw(t, "leased"))
		p := previewOf(base, head, guests, leases).plan()
		s := p.Summary
		seen := map[string]int{}
		for _, g := range p.Guests {
			if g.State != "" {
				seen[g.Guest]++
			}
			if g.State == string(lease.Leased) && g.When == plan.Now {
				t.Fatalf("%+v is to go while it is leased", g)
			}
		}
		if len(seen) != len(guests) || s.Create+s.Replace+s.ReplaceLater+s.Retire+s.RetireLater+s.Keep+s.Anyway != len(p.Guests) {
			t.Fatalf("%+v does not count %d guests, of which %d are on record", s, len(p.Guests), len(guests))
		}
		alone := map[string]plan.Guest{}
		for _, g := range previewOf(&specs.Fleet{}, base, guests, leases).plan().Guests {
			alone[g.Guest] = g
		}
		for _, g := range p.Guests {
			if was := alone[g.Guest]; g.Anyway && g.State != "" && g.Reason != "excess" && (was.Verb != g.Verb || was.ToPool != g.ToPool) {
				t.Fatalf("%+v is said to be due anyway, and without the revision it is %+v", g, was)
			}
		}
		if again := previewOf(base, base, guests, leases).plan().Summary; again.Changes() {
			t.Fatalf("the revision in force would change %+v", again)
		}
	})
}

func someFleet(t *rapid.T, revision string) *specs.Fleet {
	f := start()
	f.Revision = revision
	c := f.Caches[0]
	c.Max = rapid.IntRange(1, 10).Draw(t, "max")
	c.Size = rapid.IntRange(0, c.Max).Draw(t, "size")
	c.Warm = rapid.IntRange(0, c.Size).Draw(t, "warm")
	c.Enabled = rapid.Bool().Draw(t, "enabled")
	c.Pools = rapid.SampledFrom([][]string{{"a"}, {"b"}, {"a", "b"}, {"b", "a"}}).Draw(t, "pools")
	f.Pools[0].Max = rapid.IntRange(1, 12).Draw(t, "pool max")
	f.Pools[0].Rollout.MaxUnavailable = rapid.IntRange(1, 4).Draw(t, "pace")
	f.Pools[0].UserData = rapid.SampledFrom([]string{"", "new"}).Draw(t, "user data")
	if rapid.Bool().Draw(t, "removed") {
		f.Caches = nil
	}
	return f
}

func TestAHeldRevisionNeedsAFleet(t *testing.T) {
	if _, err := New(Options{}).Preview(context.Background(), Revision{}); err == nil {
		t.Error("a revision without a fleet was previewed")
	}
}
