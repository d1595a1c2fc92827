package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
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
