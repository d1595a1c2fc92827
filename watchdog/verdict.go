package watchdog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"greenroom/specs"
)

// Outcome of one probe.
type Outcome string

// The outcomes, as the metric names them.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown" // this host could not ask: it says nothing about the guest
)

// Result is what one probe saw.
type Result struct {
	Kind    string    // of the probe: tcp, ssh, http or exec
	At      time.Time // when it began
	Outcome Outcome
	Detail  string // what was seen, for people
	Took    time.Duration
}

// String is one line of evidence.
func (r Result) String() string {
	return fmt.Sprintf("%s probe %s after %s: %s", r.Kind, r.Outcome, r.Took.Round(time.Millisecond), r.Detail)
}

// Verdict is what the results so far mean.
//
//	Alive ──failure──► Suspect ──failures in a row──► Dead        (a success leads back to Alive from anywhere)
type Verdict int

// The verdicts, from good to bad.
const (
	Alive Verdict = iota
	Suspect
	Dead
)

// String is the word for people.
func (v Verdict) String() string { return [...]string{"alive", "suspect", "dead"}[v] }

// keptFailures is how many failures a history keeps as evidence: the newest.
const keptFailures = 5

// History is what is remembered of the results of one probe of one guest. The zero value is that of a new guest.
type History struct {
	Failures int       // in a row that count
	Since    time.Time // of the first of them
	Counted  time.Time // of the last of them
	Seen     []Result  // the newest of them
	Blind    bool      // the last result was Unknown
}

// Judge adds a result to a history and says what it means. It is Dead after settings.Failures failures in a row.
// An Unknown result changes no verdict. A failure that follows the last one in less than half of settings.Every is evidence
// but does not count: extra probes (a roll call) must not condemn a guest faster than its spec says.
func Judge(h History, r Result, settings specs.Probe) (History, Verdict) {
	h.Blind = r.Outcome == Unknown
	switch {
	case r.Outcome == OK:
		h = History{}
	case r.Outcome == Failed:
		if h.Failures == 0 {
			h.Since = r.At
		}
		if h.Failures == 0 || r.At.Sub(h.Counted) >= settings.Every/2 {
			h.Failures++
			h.Counted = r.At
		}
		seen := append(slices.Clip(h.Seen), r)
		h.Seen = seen[max(0, len(seen)-keptFailures):]
	}
	return h, h.verdict(settings)
}

func (h History) verdict(settings specs.Probe) Verdict {
	switch {
	case h.Failures == 0:
		return Alive
	case h.Failures < max(1, settings.Failures):
		return Suspect
	}
	return Dead
}

// Evidence says what was seen and when, for whoever asks why a guest was tainted.
func (h History) Evidence() string {
	if len(h.Seen) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d failures in a row since %s:", h.Failures, h.Since.UTC().Format(time.RFC3339))
	for _, r := range h.Seen {
		fmt.Fprintf(&b, "\n%s %s", r.At.UTC().Format(time.RFC3339Nano), r)
	}
	return b.String()
}

// Brake tells whether tainting must stop, given whether it is stopped now. It stops when more than the fraction maximum of
// the guests is unhealthy, and goes on when no more than three quarters of that many are, so that it does not flutter.
// One unhealthy guest never stops it, or a dead guest of a pool of two could not be replaced; with maximum 0 any does.
func Brake(unhealthy, total int, maximum float64, held bool) bool {
	stop, release := brakeLimits(total, maximum)
	if held {
		return unhealthy > release
	}
	return unhealthy > stop
}

// brakeLimits are the most unhealthy guests with which the brake is not engaged, and with which it is released.
func brakeLimits(total int, maximum float64) (stop, release int) {
	if maximum <= 0 {
		return 0, 0
	}
	const rounding = 1e-9 // 0.29*100 is a little less than 29
	stop = max(1, int(maximum*float64(total)+rounding))
	return stop, max(1, stop*3/4)
}
