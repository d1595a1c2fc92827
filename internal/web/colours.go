package web

import (
	"fmt"
	"strings"

	"greenroom/lease"
)

// Colour is how a state of a guest is drawn, here and in dashboards.
type Colour struct {
	State lease.State
	Hex   string // "#rrggbb", to be told from white and from near black alike, at 3:1 or more
}

// Colours are those of all states, in the order of lease.States. Grey is what is only wanted, violet what is being made, green
// what is ready, blue what is somebody's, amber what is kept aside, red what must go. A colour never stands alone: the name of
// the state is beside it.
var Colours = []Colour{
	{lease.Planned, "#87919b"},
	{lease.Provisioning, "#7a78c8"},
	{lease.Booting, "#9467bd"},
	{lease.Preparing, "#2a9d9d"},
	{lease.Shelved, "#2f9e5b"},
	{lease.Leased, "#3b82d6"},
	{lease.Resetting, "#1f94b8"},
	{lease.Held, "#b8860b"},
	{lease.Quarantined, "#8f7f2e"},
	{lease.Tainted, "#dc3f35"},
	{lease.Replacing, "#d2691e"},
	{lease.Retiring, "#a1714a"},
	{lease.Failed, "#c03a86"},
}

// coloured is the part of the stylesheet that says which state has which colour.
func coloured() string {
	var b strings.Builder
	for _, c := range Colours {
		fmt.Fprintf(&b, ".is-%s { --state: %s; }\n", c.State, c.Hex)
	}
	return b.String()
}
