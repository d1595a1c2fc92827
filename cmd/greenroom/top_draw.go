package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/reconcile/condition"
	"greenroom/reconcile/plan"
)

// view is what top shows.
type view struct {
	now    time.Time
	seen   time.Time // when this was so
	status client.Status
	events []client.Event
	fault  string // why nothing newer is known
}

// span is text of one colour; a line and a cell of a table are several. What the server says comes into one by textLine or
// coloured, which leave no control character in it.
type (
	span struct{ colour, text string }
	line []span
)

func textLine(format string, args ...any) line { return coloured("", fmt.Sprintf(format, args...)) }

func coloured(colour, text string) line { return line{{colour, plan.Clean(text)}} }

func (l line) width() int {
	n := 0
	for _, s := range l {
		n += utf8.RuneCountInString(s.text)
	}
	return n
}

// in writes a line of at most width characters; 0: as long as it is.
func (l line) in(p paint, width int) string {
	var b strings.Builder
	left := width
	for _, s := range l {
		text := s.text
		if width > 0 {
			text = clipped(text, left)
			left -= utf8.RuneCountInString(text)
		}
		b.WriteString(p.in(s.colour, text))
		if width > 0 && left <= 0 {
			break
		}
	}
	return b.String()
}

// columns lays cells out under each other; the first row is the head. A column with nothing in it is left out, and so is a
// table without rows.
func columns(rows [][]line) []line {
	if len(rows) == 1 {
		return nil
	}
	widths := make([]int, len(rows[0]))
	for _, cells := range rows[1:] {
		for i, c := range cells {
			widths[i] = max(widths[i], c.width())
		}
	}
	out := []line{}
	for n, cells := range rows {
		var l line
		for i, c := range cells {
			if widths[i] == 0 {
				continue
			}
			if n == 0 {
				c = coloured(bold, c[0].text)
			}
			l = append(append(l, c...), span{"", strings.Repeat(" ", max(widths[i], len(rows[0][i][0].text))-c.width()+2)})
		}
		out = append(out, l[:len(l)-1]) // nothing needs room behind the last
	}
	return out
}

// draw writes a view for a screen of a size; 0 is one without end. Lines end as a terminal in raw mode needs it where there
// is a screen.
func draw(v view, width, height int, p paint) string {
	var lines []string
	for _, l := range layOut(v, width, height) {
		lines = append(lines, strings.TrimRight(l.in(p, width), " "))
	}
	if height == 0 {
		return strings.Join(lines, "\n") + "\n"
	}
	lines[len(lines)-1] = endOfScreen + lines[len(lines)-1]
	return strings.Join(lines, newLine)
}

// fewEvents is how many events a screen keeps room for, however much else there is; without a screen so many are shown.
const fewEvents = 5

// layOut shares the lines of a screen: what stands in the head is always there, the events have what is left, and long lists
// say how much of them is missing.
func layOut(v view, width, height int) []line {
	head, cells := headLines(v, height > 0), barCells(width)
	caches, pools, events := cacheLines(v, cells), poolLines(v, cells), eventLines(v, cells)
	if height == 0 {
		events = events[:min(len(events), 1+2*fewEvents)]
	} else {
		room := height - len(head) - 2 - min(len(events), 1+fewEvents, height/4) // of the two lists, with a line above each
		forPools := min(len(pools), max(room/2, room-len(caches)))
		caches = shortened(caches, room-forPools)
		pools = shortened(pools, forPools)
		events = events[:max(0, min(len(events), height-len(head)-len(caches)-len(pools)-3))]
	}
	out := head
	for _, part := range [][]line{caches, pools, events} {
		if len(part) > 0 {
			out = append(append(out, line{}), part...)
		}
	}
	if height > 0 {
		out = out[:min(len(out), height)]
	}
	return out
}

// shortened is a list with its head in so many lines; the last says what is missing.
func shortened(list []line, room int) []line {
	if len(list) <= room {
		return list
	}
	if room < 2 {
		return nil
	}
	return append(slices.Clone(list[:room-1]), coloured(faint, fmt.Sprintf("… and %d more", len(list)-room+1)))
}

func headLines(v view, live bool) []line {
	st := v.status
	inForce := "nothing is in force yet"
	if st.Revision != "" {
		inForce = fmt.Sprintf("%s from %s, in force for %s", plan.Short(st.Revision), st.Source, howLong(v.now.Sub(st.SpecSince)))
	}
	title := append(coloured(bold, "greenroom"), textLine("  %s  ", v.now.Local().Format(time.TimeOnly))...)
	if live {
		title = append(title, span{faint, "q: quit  "})
	}
	out := []line{append(title, textLine("%s", inForce)...)}
	warn := func(colour, format string, args ...any) {
		out = append(out, coloured(colour, fmt.Sprintf(format, args...)))
	}
	if v.fault != "" {
		warn(red, "NOT LIVE, of %s: %s", v.seen.Local().Format(time.TimeOnly), v.fault)
	}
	if st.Store != "" {
		warn(red, "STORE AWAY: %s", st.Store)
	}
	if f := st.SpecFault; f != nil {
		colour, label := red, "FAULT"
		if f.Held() {
			colour, label = yellow, "HELD"
		}
		warn(colour, "%s: %s (%s)", label, firstLine(f.Message), f.Reason)
	}
	for _, c := range st.Conditions {
		if c.Status && (c.Type == condition.Stalled || c.Type == condition.Waiting) {
			warn(standingColour(c.Type), "%s: %s", strings.ToUpper(string(c.Type)), firstLine(c.Message))
		}
	}
	return out
}

// howLong writes a time that has passed, as short as can be.
func howLong(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func cacheLines(v view, cells int) []line {
	rows := [][]line{heads("CACHE", "SHELF", "SHELVED", "WARM", "MAX", "LEASES", "QUEUE", "HITS")}
	for _, c := range v.status.Caches {
		if c.Invisible && c.Size == 0 && c.Leases == 0 && c.Queue == 0 {
			continue // a pool without spares
		}
		warm, most := textLine("%d", c.Warm), textLine("%d", c.Max)
		if cells == 0 {
			warm, most = nil, nil
		}
		rows = append(rows, []line{
			cacheName(c), shelf(c, cells), textLine("%d/%d", c.Guests[lease.Shelved], c.Size), warm, most,
			textLine("%d", c.Leases), waiting(c, v.now), textLine("%s", hitRatio(c)),
		})
	}
	return columns(rows)
}

func heads(names ...string) []line {
	out := []line{}
	for _, n := range names {
		out = append(out, textLine("%s", n))
	}
	return out
}

func cacheName(c client.Cache) line {
	l := textLine("%s", c.Name)
	if c.Invisible {
		l = append(l, span{faint, " (spares)"})
	}
	if !c.Enabled {
		l = append(l, span{red, " off"})
	}
	return l
}

func waiting(c client.Cache, now time.Time) line {
	if c.Queue == 0 {
		return textLine("0")
	}
	return coloured(yellow, fmt.Sprintf("%d, %s", c.Queue, howLong(now.Sub(c.Oldest))))
}

func hitRatio(c client.Cache) string {
	if c.Hits+c.Misses == 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", 100*c.Hits/(c.Hits+c.Misses))
}

// barCells is how wide a bar is on a screen; a guest is a cell while there are no more than that. On a narrow one the
// numbers need the room more.
func barCells(width int) int {
	switch {
	case width == 0 || width >= 110:
		return 24
	case width >= 72:
		return 10
	}
	return 0
}

// shelf draws what a cache has to its max: shelved, leased, all else, and the marks of warm and size.
func shelf(c client.Cache, cells int) line {
	whole := max(c.Max, c.Size, total(c.Guests), 1)
	cells = min(whole, cells)
	parts := []share{
		{c.Guests[lease.Shelved], green, "█"},
		{c.Guests[lease.Leased], blue, "▓"},
		{total(c.Guests) - c.Guests[lease.Shelved] - c.Guests[lease.Leased], magenta, "▒"},
	}
	marks := map[int]string{}
	for _, m := range []struct {
		at   int
		sign string
	}{{c.Warm, "┊"}, {c.Size, "│"}} {
		if m.at > 0 {
			marks[cellOf(m.at, whole, cells)] += m.sign
		}
	}
	var bar line
	for i, cell := range fill(parts, whole, cells) {
		bar = append(bar, cell)
		if marks[i+1] != "" {
			bar = append(bar, span{bold, marks[i+1]})
		}
	}
	return bar
}

func total(counts map[lease.State]int) int {
	n := 0
	for _, k := range counts {
		n += k
	}
	return n
}

// cellOf is the cell that the nth of so many ends in.
func cellOf(n, whole, cells int) int { return min((n*cells+whole-1)/whole, cells) }

// share is a part of a bar.
type share struct {
	n            int
	colour, sign string
}

// fill draws parts of a whole, one after the other; what is left is empty. A part that is there has a cell wherever that is
// possible, because one guest among hundreds may be the one that matters.
func fill(parts []share, whole, cells int) line {
	out := line{}
	sum := 0
	for _, p := range parts {
		if p.n <= 0 {
			continue
		}
		sum += p.n
		for end := max(cellOf(sum, whole, cells), min(len(out)+1, cells)); len(out) < end; {
			out = append(out, span{p.colour, p.sign})
		}
	}
	for len(out) < cells {
		out = append(out, span{faint, "·"})
	}
	return out
}

func poolLines(v view, cells int) []line {
	rows := [][]line{heads("POOL", "GUESTS", "OF MAX", "STATES", "CONDITION")}
	for _, p := range v.status.Pools {
		var parts []share
		for _, s := range lease.States {
			parts = append(parts, share{p.Guests[s], stateColours[s], "█"})
		}
		whole, counts := max(p.Max, total(p.Guests), 1), stateCounts(p.Guests)
		if cells == 0 {
			counts = nil // the condition says what matters
		}
		bar, part, state := fill(parts, whole, min(whole, cells)), textLine("%d/%d", total(p.Guests), p.Max), poolState(p)
		if v.status.Store != "" {
			bar, part, counts, state = nil, textLine("?/%d", p.Max), nil, coloured(faint, unknown)
		}
		rows = append(rows, []line{textLine("%s", p.Pool), bar, part, counts, state})
	}
	return columns(rows)
}

// stateCounts is the legend of a pool's bar.
func stateCounts(counts map[lease.State]int) line {
	var out line
	for _, s := range lease.States {
		if counts[s] == 0 {
			continue
		}
		if len(out) > 0 {
			out = append(out, span{"", ", "})
		}
		out = append(out, span{stateColours[s], fmt.Sprintf("%d %s", counts[s], s)})
	}
	if len(out) == 0 {
		return coloured(faint, "-")
	}
	return out
}

func poolState(p client.Pool) line {
	switch {
	case p.Pause != nil:
		return coloured(yellow, "paused by "+p.Pause.By)
	case p.Brake != "":
		return coloured(red, "brake: "+firstLine(p.Brake))
	}
	for _, t := range []condition.Type{condition.Stalled, condition.Waiting, condition.Reconciling, condition.Ready} {
		if condition.Of(p.Conditions, t).Status {
			return coloured(standingColour(t), standing(p.Conditions))
		}
	}
	return coloured(faint, "not ready")
}

func standingColour(t condition.Type) string {
	return map[condition.Type]string{condition.Stalled: red, condition.Waiting: yellow, condition.Reconciling: magenta, condition.Ready: green}[t]
}

// eventLines are the events, the newest first.
func eventLines(v view, cells int) []line {
	if len(v.events) == 0 {
		return nil
	}
	out := []line{coloured(bold, "EVENTS")}
	for _, e := range slices.Backward(v.events) {
		text := eventLine(e, false)
		if cells == 0 {
			text = strings.Join(strings.Fields(text), " ")
		}
		out = append(out, append(coloured(faint, e.Time.Local().Format(time.TimeOnly)+"  "), coloured(stateColours[e.To], text)...))
	}
	return out
}
