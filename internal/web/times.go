package web

import (
	"fmt"
	"time"
)

// times tells times as people read them, as seen from now. All are UTC.
type times struct{ now func() time.Time }

// stamp is a time for machines.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// clock leaves out the date of today.
func (c times) clock(t time.Time) string {
	t, now := t.UTC(), c.now().UTC()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format("2006-01-02 15:04")
}

// ago is coarse, so that a page that is shown anew each moment does not change for it.
func (c times) ago(t time.Time) string {
	if d := c.now().Sub(t); d >= time.Minute {
		return coarse(d) + " ago"
	}
	return "just now"
}

func (c times) until(t time.Time) string {
	if d := t.Sub(c.now()); d >= time.Minute {
		return "in " + coarse(d)
	}
	return "within a minute"
}

// coarse is a duration of a minute or more, to its two largest units.
func coarse(d time.Duration) string {
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	}
	return fmt.Sprintf("%d min", minutes)
}

// lasted is a duration that is over.
func lasted(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return coarse(d)
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f s", max(0, d.Seconds()))
}
