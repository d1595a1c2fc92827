package main

import (
	"io"
	"os"

	"golang.org/x/term"

	"greenroom/lease"
)

// screen is the width of a terminal, 0 where it is not known. One that calls itself dumb knows no sequences: what is written
// there must be as good on paper.
func screen(w io.Writer) (width int, terminal bool) {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(file.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0, true
	}
	return max(width, 0), true
}

// paint colours text for a terminal; false leaves it as it is.
type paint bool

// paintOf says whether w takes colours: a terminal, unless NO_COLOR is set (no-color.org).
func paintOf(w io.Writer) paint {
	_, terminal := screen(w)
	return paint(terminal && os.Getenv("NO_COLOR") == "")
}

// The colours are the terminal's own sixteen, which its owner has made to be read on its ground.
const (
	bold    = "1"
	faint   = "2"
	red     = "31"
	green   = "32"
	yellow  = "33"
	blue    = "34"
	magenta = "35"
	cyan    = "36"
	grey    = "90"
)

// stateColours draws states as the pages do: grey what is only wanted, violet what is being made, green what is ready, blue
// what is somebody's, yellow what is kept aside, red what must go. A colour never stands alone.
var stateColours = map[lease.State]string{
	lease.Planned: grey, lease.Provisioning: magenta, lease.Booting: magenta, lease.Preparing: magenta, lease.Shelved: green,
	lease.Leased: blue, lease.Resetting: cyan, lease.Held: yellow, lease.Quarantined: yellow, lease.Tainted: red,
	lease.Replacing: red, lease.Retiring: red, lease.Failed: red, lease.Gone: grey,
}

func (p paint) state(s lease.State, text string) string { return p.in(stateColours[s], text) }

// in wraps text in a colour.
func (p paint) in(colour, text string) string {
	if !p || colour == "" || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}
