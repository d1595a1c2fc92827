package lease

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each letter is a call: e ends a lease, b begins one, o is something else; capitals have stayed behind before.
func TestWhoFindsNoMatchStaysBehindOnce(t *testing.T) {
	tests := []struct{ name, waiting, together, behind string }{
		{"all have a match", "ebbe", "ebbe", ""},
		{"only beginnings", "bbb", "bbb", ""},
		{"only ends", "eoe", "eoe", ""},
		{"the newest stay", "bebbob", "beo", "BBB"},
		{"the newest ends stay", "eebee", "eb", "EEE"},
		{"once", "BBBe", "BBBe", ""},
		{"some for the second time", "BbeB", "BeB", "B"},
		{"before those that came later", strings.Repeat("b", 98) + "eb" + "oe", "be", strings.Repeat("B", 98) + "oe"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := &line{waiting: callsOf(tt.waiting)}
			together := lettersOf(l.board(true))
			if diff := cmp.Diff([]string{tt.together, tt.behind}, []string{together, lettersOf(l.waiting)}); diff != "" {
				t.Errorf("who goes, and who stays (-want +got):\n%s", diff)
			}
			l = &line{waiting: callsOf(tt.waiting)}
			if got, most := lettersOf(l.board(false)), min(len(tt.waiting), maxCalls); got != tt.waiting[:most] {
				t.Errorf("without a mirror %s go of %s", got, tt.waiting)
			}
		})
	}
}

func callsOf(letters string) (calls []*call) {
	for _, letter := range letters {
		c := &call{name: string(letter), stayed: strings.ContainsRune("BE", letter)}
		if letter != 'o' {
			c.turning = &turning{ends: strings.ContainsRune("eE", letter)}
		}
		calls = append(calls, c)
	}
	return calls
}

func lettersOf(calls []*call) string {
	var letters strings.Builder
	for _, c := range calls {
		if c.stayed {
			c.name = strings.ToUpper(c.name)
		}
		letters.WriteString(c.name)
	}
	return letters.String()
}
