package server

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"greenroom/lease/client"
	"greenroom/lease/leasetest"
)

func TestAdminsChangeTheLevelOfTheLogAtRunTime(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	p, _ := h.refused(http.StatusConflict, "conflict", sent{token: h.admin, method: "GET", path: "/v1/log"})
	if !strings.HasPrefix(p.Detail, "the level of this server's log is fixed") {
		t.Errorf("a level that is fixed is told as %q", p.Detail)
	}
	h.parts.Level = &slog.LevelVar{}
	h.parts.Log = slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: h.parts.Level}))
	h.serveAgain()
	put := func(level string) sent {
		return sent{token: h.admin, method: "PUT", path: "/v1/log", body: client.Log{Level: level}}
	}
	if l := ask[client.Log](h, http.StatusOK, sent{token: h.admin, method: "GET", path: "/v1/log"}); l.Level != "info" {
		t.Errorf("it starts at %q", l.Level)
	}
	for _, level := range []string{"error", "debug", "error", "warn", "info"} {
		if l := ask[client.Log](h, http.StatusOK, put(level)); l.Level != level {
			t.Errorf("it is at %q, want %q", l.Level, level)
		}
	}
	told := []string{}
	for line := range strings.Lines(h.logs.String()) {
		_, change, _ := strings.Cut(strings.TrimSpace(line), "level from ")
		told = append(told, change)
	}
	want := `info to error" by=root, error to debug" by=root, debug to error" by=root, warn to info" by=root`
	if got := strings.Join(told, ", "); got != want {
		t.Errorf("the log tells %s, want %s", got, want)
	}
	h.refused(http.StatusForbidden, "forbidden", sent{token: h.user, method: "GET", path: "/v1/log"})
	h.refused(http.StatusForbidden, "forbidden", sent{token: h.user, method: "PUT", path: "/v1/log", body: client.Log{Level: "debug"}})
	for _, bad := range []string{"", "loud", "INFO", "info+1"} {
		s := put(bad)
		s.against = true
		h.refused(http.StatusBadRequest, "invalid", s)
	}
}
