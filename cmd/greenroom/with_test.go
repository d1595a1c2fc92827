package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"greenroom/internal/session"
	"greenroom/lease"
	"greenroom/lease/client"
)

func TestAJobWhoseLeaseWasLostHasFailed(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/leases" {
			w.WriteHeader(http.StatusGone)
			return
		}
		w.WriteHeader(http.StatusCreated)
		if err := writeJSON(w, client.Lease{ID: "ci.X", Phase: lease.Active, TTL: client.Duration(time.Millisecond), Guest: &client.Guest{}}); err != nil {
			t.Error(err)
		}
	}))
	defer web.Close()
	c, err := client.New(client.Options{Addr: web.URL, Retry: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := session.Open(t.Context(), c, session.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	err = settle(cmd, s, func() (int, error) { <-s.Lost(); return 0, nil })
	if !errors.Is(err, errLost) {
		t.Errorf("settled as %v, want %v", err, errLost)
	}
}

func TestWhoWantsAGuestNowIsNotKeptWaitingByAServerThatIsAway(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nobody.sock")
	for _, command := range [][]string{{"acquire", "--wait", "0s"}, {"acquire", "--wait", "100ms"}, {"with", "--wait", "0s", "--", "true"}} {
		began := time.Now()
		got := execute(t.Context(), append([]string{command[0], "--server", socket}, command[1:]...)...)
		if got.code != 1 || !strings.Contains(got.stderr, "cannot reach the server") || time.Since(began) > 10*time.Second {
			t.Errorf("%v: %+v after %v", command, got, time.Since(began))
		}
	}
}
