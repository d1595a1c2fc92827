package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"greenroom/lease/leasetest"
)

func TestAKilledServerLosesNothing(t *testing.T) {
	t.Run("on the embedded store", func(t *testing.T) { crash(t, options{raced: true}, 25) })
	t.Run("on a real Redis", func(t *testing.T) { crash(t, options{raced: true, redis: leasetest.Redis(t).URL}, 6) })
}

const (
	crashHolders = 5
	crashMax     = 12
)

// crash kills the server at random moments of scaling up and down, while clients acquire, renew and release.
func crash(t *testing.T, o options, kills int) {
	rng := seeded(t)
	h := newHouse(t, o)
	h.scale(4)
	h.start()
	h.converged()
	c := newCrowd(h, 2*time.Second)
	c.come(crashHolders)
	for n := range kills {
		warm := rng.IntN(crashMax - crashHolders + 1)
		h.scale(warm)
		// The log's next lines are the phases of scaling: decisions, runs that start and end. What comes after them is quick.
		h.server.log.more(rng.IntN(16), 1500*time.Millisecond)
		<-time.After(time.Duration(rng.Int64N(int64(150 * time.Millisecond))))
		last := lastLine(h.server.log.String())
		h.kill()
		h.start()
		c.still(func() {
			h.converged()
			when := fmt.Sprintf("kill %d (warm %d, after %s)", n+1, warm, last)
			guests := c.check(when)
			shelved := shelves(guests)["ci"]
			if shelved < warm || len(guests) > crashMax {
				t.Errorf("%s: %d of %d guests are shelved, want at least %d, and at most %d in all", when, shelved, len(guests), warm, crashMax)
			}
			t.Logf("%s: %d of %d shelved", when, shelved, len(guests))
		})
		if t.Failed() {
			break
		}
	}
	c.end()
	t.Logf("%d leases were granted meanwhile", c.granted)
}

// seeded returns the randomness of a test; GREENROOM_TEST_SEED repeats one.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if text := os.Getenv("GREENROOM_TEST_SEED"); text != "" {
		seed = must(strconv.ParseUint(text, 10, 64))(t)
	}
	t.Logf("GREENROOM_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// scale wants so many warm guests. There is room on the shelf for those of the crowd, so that their coming and going is no
// work for the reconciler.
func (h *house) scale(warm int) {
	h.Helper()
	h.write(fleet{max: crashMax, warm: warm, size: warm + crashHolders, cache: `lease { ttl = "20s" }`})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	_, line, _ := strings.Cut(lines[len(lines)-1], "msg=")
	return line[:min(len(line), 60)]
}
