package watchdog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"greenroom/specs"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// results draws results as a schedule makes them: apart by between no time and twice the interval.
func results(t *rapid.T, s specs.Probe) []Result {
	at := epoch
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Result {
		at = at.Add(time.Duration(rapid.Int64Range(0, int64(2*s.Every)).Draw(t, "gap")))
		return Result{At: at, Outcome: rapid.SampledFrom([]Outcome{OK, Failed, Failed, Unknown}).Draw(t, "outcome"), Detail: "x"}
	}), 1, 60).Draw(t, "results")
}

func probeSettings(t *rapid.T) specs.Probe {
	return specs.Probe{Every: time.Second, Failures: rapid.IntRange(1, 6).Draw(t, "failures")}
}

func TestJudgeNeedsFailuresInARow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := probeSettings(t)
		var h History
		var v, before Verdict
		var row []time.Time // of the failures since the last success
		for _, r := range results(t, s) {
			before = v
			h, v = Judge(h, r, s)
			switch r.Outcome {
			case OK:
				row = nil
				if v != Alive {
					t.Fatalf("%v after a success", v)
				}
			case Unknown:
				if v != before {
					t.Fatalf("an unknown result changed %v to %v", before, v)
				}
			case Failed:
				row = append(row, r.At)
				if v == Alive || v < before {
					t.Fatalf("%v after a failure, it was %v", v, before)
				}
			}
			if v != Dead {
				continue
			}
			if len(row) < s.Failures {
				t.Fatalf("dead after %d failures in a row of %d", len(row), s.Failures)
			}
			if took := row[len(row)-1].Sub(row[0]); took < time.Duration(s.Failures-1)*s.Every/2 {
				t.Fatalf("dead within %v", took)
			}
		}
	})
}

func TestJudgeCondemnsAtTheRightFailure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := probeSettings(t)
		var h History
		var v Verdict
		for i := range s.Failures {
			if v == Dead {
				t.Fatalf("dead after %d failures of %d", i, s.Failures)
			}
			h, v = Judge(h, Result{At: epoch.Add(time.Duration(i) * s.Every), Outcome: Failed}, s)
		}
		if v != Dead {
			t.Fatalf("%v after %d failures", v, s.Failures)
		}
	})
}

func TestJudgeKeepsEachHistoryApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := probeSettings(t)
		h := History{}
		for _, r := range results(t, s) {
			was := fmt.Sprint(h)
			h1, _ := Judge(h, r, s)
			first := fmt.Sprint(h1)
			_, _ = Judge(h, Result{At: r.At, Outcome: Failed, Detail: "another"}, s)
			if fmt.Sprint(h) != was || fmt.Sprint(h1) != first {
				t.Fatal("judging changed a history that was judged before")
			}
			h = h1
		}
	})
}

func TestEvidenceNamesTheLastFailuresAndTheirTimes(t *testing.T) {
	s := specs.Probe{Every: time.Second, Failures: 3}
	var h History
	for i := range 7 {
		r := Result{Kind: "ssh", At: epoch.Add(time.Duration(i) * s.Every), Outcome: Failed, Detail: fmt.Sprintf("refused %d", i), Took: time.Millisecond}
		h, _ = Judge(h, r, s)
	}
	lines := strings.Split(h.Evidence(), "\n")
	want := []string{
		"7 failures in a row since 2026-01-02T03:04:05Z:",
		"2026-01-02T03:04:07Z ssh probe failed after 1ms: refused 2",
	}
	if len(lines) != 1+keptFailures || lines[0] != want[0] || lines[1] != want[1] || !strings.HasSuffix(lines[5], "refused 6") {
		t.Errorf("got %q", lines)
	}
}

func TestBrakeTable(t *testing.T) {
	for _, c := range []struct {
		unhealthy, total int
		maximum          float64
		held, want       bool
	}{
		{12, 20, 0.4, false, true},
		{2, 20, 0.4, false, false},
		{8, 20, 0.4, false, false}, // not more than 40%
		{9, 20, 0.4, false, true},
		{8, 20, 0.4, true, true}, // goes on at three quarters
		{7, 20, 0.4, true, true},
		{6, 20, 0.4, true, false},
		{1, 1, 0.4, false, false},
		{1, 2, 0.4, false, false}, // one guest is never too many
		{2, 2, 0.4, false, true},
		{2, 2, 0.4, true, true},
		{1, 2, 0.4, true, false},
		{29, 100, 0.29, false, false}, // though 0.29*100 < 29
		{20, 20, 1, false, false},
		{1, 20, 0, false, true},
		{0, 20, 0, true, false},
		{0, 0, 0.4, true, false},
	} {
		if got := Brake(c.unhealthy, c.total, c.maximum, c.held); got != c.want {
			t.Errorf("Brake(%d, %d, %v, %v) = %v", c.unhealthy, c.total, c.maximum, c.held, got)
		}
	}
}

func TestBrakeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(0, 500).Draw(t, "total")
		unhealthy := rapid.IntRange(0, total).Draw(t, "unhealthy")
		maximum := rapid.Float64Range(0.001, 1).Draw(t, "max")
		held := rapid.Bool().Draw(t, "held")
		on := Brake(unhealthy, total, maximum, held)
		switch {
		case unhealthy <= 1 && on:
			t.Fatal("one unhealthy guest holds the brake")
		case unhealthy > 1 && float64(unhealthy) > maximum*float64(total)+1e-6 && !on:
			t.Fatal("past the maximum, and off")
		case on && !held && float64(unhealthy) <= maximum*float64(total)-1e-6:
			t.Fatal("engaged below the maximum")
		case Brake(unhealthy, total, maximum, false) && !Brake(unhealthy, total, maximum, true):
			t.Fatal("it would flutter")
		case unhealthy < total && on && !Brake(unhealthy+1, total, maximum, held):
			t.Fatal("more unhealthy guests release it")
		}
	})
}
