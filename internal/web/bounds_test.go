package web

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestSessionsAreBounded(t *testing.T) {
	now := time.Unix(0, 0)
	s := &sessions{now: func() time.Time { return now }, byHash: map[hash]session{}}
	for n := range maxSessions {
		s.byHash[hash{byte(n), byte(n >> 8)}] = session{token: fmt.Sprint(n), ends: now.Add(sessionLife + time.Duration(n))}
	}
	s.begin("token")
	if _, kept := s.byHash[hash{}]; kept || len(s.byHash) != maxSessions {
		t.Errorf("%d sessions are kept, the oldest one: %v", len(s.byHash), kept)
	}
	now = now.Add(time.Millisecond)
	now = now.Add(sessionLife)
	if s.begin("token"); len(s.byHash) != 1 {
		t.Errorf("%d sessions are kept after all others are over", len(s.byHash))
	}
}

func TestATokenPushesOutOnlyItsOwnSessions(t *testing.T) {
	now := time.Unix(0, 0)
	s := &sessions{now: func() time.Time { return now }, byHash: map[hash]session{}}
	other := s.begin("other")
	var ids []string
	for range maxPerToken + 1 {
		now = now.Add(time.Second)
		ids = append(ids, s.begin("mine"))
	}
	for id, want := range map[string]bool{other: true, ids[0]: false, ids[1]: true, ids[maxPerToken]: true} {
		if _, ok := s.find(id); ok != want {
			t.Errorf("session %d of %v: kept %v, want %v", len(ids), id, ok, want)
		}
	}
}

func TestAddressesAreBounded(t *testing.T) {
	now := time.Unix(0, 0)
	l := &limiter{now: func() time.Time { return now }, buckets: map[string]bucket{}}
	for n := range maxAddresses + 10 {
		l.take(fmt.Sprint(n))
	}
	if len(l.buckets) > maxAddresses {
		t.Errorf("%d addresses are kept", len(l.buckets))
	}
	now = now.Add(time.Hour)
	if l.take("one more"); len(l.buckets) != 1 {
		t.Errorf("%d addresses are kept after an hour", len(l.buckets))
	}
}

func TestAnAddressIsAHostOrANetwork(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1", "[::ffff:192.0.2.1]:5": "192.0.2.1", "[2001:db8::1:2:3:4]:5": "2001:db8::/64",
		"[fe80::1%eth0]:5": "fe80::/64", "@": "local", "": "local", "name:1": "local",
	} {
		if got := address(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("%s comes from %s, want %s", remote, got, want)
		}
	}
}
