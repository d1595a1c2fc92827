package integration

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"greenroom/lease"
	"greenroom/lease/leasetest"
)

var soakFor = flag.Duration("soak", 25*time.Second, "how long TestEverythingGoesWrongInAnyOrder lets things go wrong")

const (
	soakHolders = 6
	soakMax     = 14 // guests of each of the two pools: the last of a shelf is not rolled out while its pool is full
)

// soak is a house with two pools, two caches that share one of them, and a crowd, in which everything goes wrong.
type soak struct {
	*crowd
	rng   *rand.Rand
	redis *leasetest.Server
	web   bool // the specs have cache web
	warm  map[string]int
}

// TestEverythingGoesWrongInAnyOrder lets things go wrong, one after the other, beside changes of the specs and clients that lease. After each
// the fleet converges, every holder has the guest that it had, nothing is leased to nobody, and no machine is left over or missing.
func TestEverythingGoesWrongInAnyOrder(t *testing.T) {
	s := &soak{rng: seeded(t), redis: leasetest.Redis(t)}
	s.crowd = newCrowd(newHouse(t, options{raced: true, redis: s.redis.URL}), 4*time.Second)
	s.wish = func() (string, bool) {
		if rand.IntN(3) == 0 {
			return "web", true // it may be gone, or be taken away meanwhile
		}
		return "ci", false
	}
	s.change()
	s.start()
	s.converged()
	s.come(soakHolders)
	mishaps := s.mishaps()
	names := slices.Sorted(maps.Keys(mishaps))
	for began := time.Now(); time.Since(began) < *soakFor && !t.Failed(); {
		var told []string
		for range 1 + s.rng.IntN(2) {
			if s.rng.IntN(2) == 0 {
				s.change()
			}
			s.server.log.more(s.rng.IntN(16), time.Second)
			name := names[s.rng.IntN(len(names))]
			told = append(told, name)
			mishaps[name]()
		}
		t.Logf("%v: %s; warm %v", time.Since(began).Round(time.Second), strings.Join(told, ", "), s.warm)
		s.still(func() {
			s.converged()
			s.stocked(s.check(strings.Join(told, ", ")))
		})
	}
	s.end()
	t.Logf("%d leases were granted meanwhile", s.granted)
}

// change writes other specs.
func (s *soak) change() {
	s.Helper()
	pick := func(values ...string) string { return values[s.rng.IntN(len(values))] }
	s.web = s.rng.IntN(4) > 0
	s.warm = map[string]int{"ci": s.rng.IntN(4), "web": s.rng.IntN(3)}
	text := ""
	for _, pool := range []string{"a", "b"} {
		text += fmt.Sprintf("pool %q {\n  module = \"local\"\n  max = %d\n  spare = %d\n  shard_size = 3\n  variables = { directory = %q }\n", pool, soakMax, s.rng.IntN(3),
			s.path(pick("old", "new")))
		text += "  probe \"ssh\" {\n    every = \"1s\"\n    timeout = \"1s\"\n    failures = 3\n  }\n}\n"
	}
	cache := func(name, pools string) {
		text += fmt.Sprintf("cache %q {\n  owner = \"platform\"\n  pools = [%s]\n  warm = %d\n  size = %d\n", name, pools, s.warm[name], s.warm[name]+soakHolders)
		text += "  lease {\n    ttl = \"15s\"\n  }\n}\n"
	}
	cache("ci", pick("pool.a", "pool.a, pool.b", "pool.b, pool.a"))
	if s.web {
		cache("web", "pool.b")
	}
	s.writeText(text)
	s.reread()
}

// mishaps are what may go wrong, by name.
func (s *soak) mishaps() map[string]func() {
	redisPID := func() int {
		info := must(s.redis.Client.Info(context.Background(), "server").Result())(s)
		return must(strconv.Atoi(regexp.MustCompile(`process_id:(\d+)`).FindStringSubmatch(info)[1]))(s)
	}
	freeze := func(pid int) {
		noError(s, syscall.Kill(pid, syscall.SIGSTOP))
		<-time.After(time.Duration(s.rng.Int64N(int64(8 * time.Second))))
		noError(s, syscall.Kill(pid, syscall.SIGCONT))
	}
	return map[string]func(){
		"nothing":               func() {},
		"the server is killed":  func() { s.kill(); s.start() },
		"the server is stopped": func() { s.stop(); s.start() },
		"Redis is killed":       func() { s.redis.Stop(syscall.SIGKILL); s.redis.Start() },
		"both are killed":       func() { s.kill(); s.redis.Stop(syscall.SIGKILL); s.redis.Start(); s.start() },
		"Redis hangs":           func() { freeze(redisPID()) },
		"the server hangs":      func() { freeze(s.server.cmd.Process.Pid) },
		"a guest dies":          s.kills,
		"a runner is killed":    s.killsRunner,
		"the store is lost":     s.loses,
		"everybody goes home":   func() { s.floor.Lock(); s.floor.Unlock() }, //nolint:staticcheck // it waits for all
	}
}

// kills ends a guest that nobody has, and waits for its replacement.
func (s *soak) kills() {
	s.Helper()
	s.gate.Lock()
	defer s.gate.Unlock()
	guests := s.guests()
	for _, name := range slices.Sorted(maps.Keys(guests)) {
		g := guests[name]
		if g.State != lease.Shelved {
			continue
		}
		s.killGuest(g)
		s.until("the dead guest is gone", func() error {
			now, err := s.api.Guest(s.Context(), name)
			if err == nil && now.Incarnation == g.Incarnation && now.State != lease.Tainted && now.State != lease.Replacing && now.State != lease.Retiring {
				return fmt.Errorf("%s is %s", g.Principal(), now.State)
			}
			return nil
		})
		return
	}
}

// killsRunner ends the process of a run, with the Terraform below it, if there is one.
func (s *soak) killsRunner() {
	s.change()
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		for pid, line := range s.strays() {
			if strings.Contains(line, " runner ") || strings.Contains(line, "terraform apply") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				return
			}
		}
	}
}

// loses empties the store while all who have a lease keep it. They come back to it; nobody else may have their guests.
func (s *soak) loses() {
	s.Helper()
	s.gate.Lock()
	defer s.gate.Unlock()
	noError(s, s.redis.Client.FlushAll(context.Background()).Err())
	mine, _ := s.mine()
	s.until("all holders are back", func() error {
		for id, l := range mine {
			now, err := s.api.Lease(s.Context(), id)
			if err != nil || now.Phase != lease.Active || principal(now.Guest) != principal(l.Guest) {
				return fmt.Errorf("lease %s on %s is %+v, %w", id, principal(l.Guest), now, err)
			}
		}
		return nil
	})
	s.until("no quarantine is left", func() error {
		left := 0
		if _, err := s.api.Reconcile(s.Context()); err != nil { // the ends that it knows are others
			return err
		}
		for _, g := range s.guests() {
			if g.State == lease.Quarantined { // let time pass
				left++
				key := "greenroom:{" + g.Cache + "}:quarantine"
				if err := s.redis.Client.ZAddXX(context.Background(), key, redis.Z{Score: 1, Member: g.Name}).Err(); err != nil {
					return err
				}
			}
		}
		if left > 0 {
			return fmt.Errorf("%d are left", left)
		}
		return nil
	})
}

// stocked holds the guests that there are against the specs.
func (s *soak) stocked(guests map[string]lease.Guest) {
	s.Helper()
	of := map[string]int{}
	for _, g := range guests {
		of[g.Pool]++
	}
	for pool, n := range of {
		if n > soakMax {
			s.Errorf("pool %s has %d guests, want at most %d", pool, n, soakMax)
		}
	}
	shelved := shelves(guests)
	for cache, want := range s.warm {
		if have := shelved[cache]; have < want && (s.web || cache != "web") && of["a"] < soakMax && of["b"] < soakMax {
			s.Errorf("cache %s has %d on its shelf, want %d warm; %v", cache, have, want, of)
		}
	}
}
