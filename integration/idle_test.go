package integration

import (
	"fmt"
	"testing"
	"time"
)

// Ten seconds lie between two ticks that nothing has caused.
const slowTick = 10 * time.Second

func TestATickWithNothingToDoStartsNoTerraform(t *testing.T) {
	t.Parallel() // it mostly waits
	tf := newTerraform(t)
	h := newHouse(t, options{args: []string{"--terraform", tf.path}})
	want := fleet{max: 4, warm: 2, size: 4, pool: "  spare = 1"}
	h.write(want)
	h.start()
	started, runs := h.converged().Processes, len(tf.runs())
	if runs == 0 || started != int64(runs) {
		t.Errorf("the status counts %d Terraform processes, the script in front of Terraform %d", started, runs)
	}

	quiet := time.Now()
	for n := range 10 {
		must(h.api.Reconcile(t.Context()))(t)
		must(h.api.Reconcile(t.Context(), "local"))(t)
		if n%2 == 0 { // a revision that changes nothing: its arrival in the pool's conditions proves that a tick took place
			want.cache = fmt.Sprintf("# look %d", n)
			h.write(want)
		}
		h.converged()
	}
	h.until("a slow tick has passed as well", func() error {
		if left := slowTick + time.Second - time.Since(quiet); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})
	if now := h.converged().Processes; now != started || len(tf.runs()) != runs {
		t.Errorf("%d Terraform processes were started for nothing: %q", now-started, tf.runs()[runs:])
	}
}
