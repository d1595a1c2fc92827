package web

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"greenroom/lease"
)

func TestEveryStateHasAColourOfItsOwn(t *testing.T) {
	var states []lease.State
	seen := map[string]bool{}
	for _, c := range Colours {
		states = append(states, c.State)
		if seen[c.Hex] {
			t.Errorf("%s has the colour of another state", c.State)
		}
		seen[c.Hex] = true
	}
	if diff := cmp.Diff(lease.States, states); diff != "" {
		t.Error(diff)
	}
}

// WCAG 2.2, 1.4.11: what is drawn is told from what is around it at 3:1.
func TestEveryColourIsToldFromThePaperAndTheCardsOfBothThemes(t *testing.T) {
	css, err := os.ReadFile("pages/greenroom.css")
	if err != nil {
		t.Fatal(err)
	}
	grounds := regexp.MustCompile(`--(?:paper|card): (#[0-9a-f]{6});`).FindAllSubmatch(css, -1)
	if len(grounds) != 4 {
		t.Fatalf("the stylesheet has %d grounds, want two for each theme", len(grounds))
	}
	for _, c := range Colours {
		for _, ground := range grounds {
			if r := contrast(t, c.Hex, string(ground[1])); r < 3 {
				t.Errorf("%s (%s) on %s has a contrast of %.2f, want 3", c.State, c.Hex, ground[1], r)
			}
		}
	}
}

func contrast(t *testing.T, a, b string) float64 {
	light, dark := luminance(t, a)+.05, luminance(t, b)+.05
	return max(light, dark) / min(light, dark)
}

// luminance is that of WCAG 2.2.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	rgb, err := strconv.ParseUint(hex[1:], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(shift int) float64 {
		c := float64(rgb>>shift&255) / 255
		if c <= .04045 {
			return c / 12.92
		}
		return math.Pow((c+.055)/1.055, 2.4)
	}
	return .2126*linear(16) + .7152*linear(8) + .0722*linear(0)
}
