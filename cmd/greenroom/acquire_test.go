package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"greenroom/lease"
	"greenroom/lease/client"
)

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestALeaseThatCannotBePrintedIsGivenBack(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var released []string
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				released = append(released, r.URL.Path)
			}
			if err := writeJSON(w, client.Lease{ID: "ci.X", Phase: lease.Active, Guest: &client.Guest{}}); err != nil {
				t.Error(err)
			}
		}))
		var stderr bytes.Buffer
		code := run(t.Context(), []string{"acquire", "--server", web.URL, "-o", format}, nil, full{}, &stderr)
		web.Close()
		if want := "the lease could not be printed and was given back: no space left on device"; code != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("as %s: %d and %q, want %q", format, code, stderr.String(), want)
		}
		if len(released) != 1 || released[0] != "/v1/leases/ci.X" {
			t.Errorf("as %s: released %q", format, released)
		}
	}
}
