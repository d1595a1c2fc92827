package server

import (
	"net/http"
	"strings"
	"testing"
	"time"

	cryptossh "golang.org/x/crypto/ssh"

	"greenroom/internal/ssh"
	"greenroom/lease"
	"greenroom/lease/client"
	"greenroom/specs"
)

func TestALeaseIsGrantedRenewedAndReleased(t *testing.T) {
	eachHouse(t, func(h *house) {
		guest := h.shelve("ci")
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		want := client.Guest{Name: guest.Name, Incarnation: 1, Host: "127.0.0.1", Port: 22, User: "root", HostKey: "ssh-ed25519 AAAA"}
		if l.Phase != lease.Active || !l.Hit || l.Source != "shelf" || l.Holder != "jenkins" || l.Owner != "platform" || *l.Guest != want || l.Token == "" {
			h.t.Errorf("granted: %+v with guest %+v", l, l.Guest)
		}
		renewed := ask[client.Lease](h, 200, sent{token: h.user, method: "POST", path: "/v1/leases/" + l.ID + "/renew"})
		if renewed.Deadline.Before(l.Deadline) || renewed.Guest.Host == "" {
			h.t.Errorf("renewed: %+v", renewed)
		}
		for range 2 { // releasing twice is releasing once
			ended := ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID, body: client.Release{Outcome: "pass"}})
			if ended.Phase != lease.Ended || ended.How != "released" || ended.Outcome != "pass" || ended.Guest.Host != "" {
				h.t.Errorf("released: %+v", ended)
			}
		}
		if again := h.acquire(h.user, client.Request{Cache: "ci"}); again.Guest.Name != guest.Name {
			h.t.Errorf("after the release: %+v", again)
		}
	})
}

func TestAQueuedRequestSaysWhyAndIsGrantedByALongPoll(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.shelve("ci")
		first := h.acquire(h.user, client.Request{Cache: "ci"})
		g := h.do(sent{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: "ci"}})
		queued := ask[client.Lease](h, 202, sent{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: "ci"}})
		if g.Status != http.StatusAccepted || queued.Position != 2 || queued.Reason != "you are 2nd: every guest of cache ci is leased" {
			h.t.Errorf("queued: %d, %+v", g.Status, queued)
		}
		head := g.Header.Get("Location")
		polled := make(chan client.Lease)
		go func() {
			polled <- ask[client.Lease](h, 200, sent{token: h.user, method: "GET", path: head + "?wait=60s"})
		}()
		ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + first.ID})
		if l := <-polled; l.Phase != lease.Active || l.Hit || l.Guest.Name != first.Guest.Name {
			h.t.Errorf("polled: %+v", l)
		}
		cancelled := ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + queued.ID})
		if cancelled.How != "cancelled" {
			h.t.Errorf("cancelled: %+v", cancelled)
		}
	})
}

func TestALongPollEndsWithTheServer(t *testing.T) {
	eachHouse(t, func(h *house) {
		closing := make(chan struct{})
		h.parts.Closing = closing
		h.serveAgain()
		l := ask[client.Lease](h, 202, sent{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: "ci"}})
		close(closing)
		if l = ask[client.Lease](h, 200, sent{token: h.user, method: "GET", path: "/v1/leases/" + l.ID + "?wait=1m"}); l.Phase != lease.Queued {
			h.t.Errorf("polled: %+v", l)
		}
	})
}

func TestAnIdempotencyKeyGivesTheSameLeaseAgain(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.shelve("ci")
		h.shelve("ci")
		post := sent{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: "ci"}, header: map[string]string{"Idempotency-Key": "build-7"}}
		first, second := ask[client.Lease](h, 201, post), ask[client.Lease](h, 201, post)
		if first.ID != second.ID {
			h.t.Errorf("%s and %s, want the same", first.ID, second.ID)
		}
		post.body = client.Request{Cache: "ci", TTL: client.Duration(time.Minute)}
		h.refused(409, "idempotency_mismatch", post)
		ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + first.ID})
		post.body = client.Request{Cache: "ci"}
		if over := ask[client.Lease](h, 200, post); over.Phase != lease.Ended {
			h.t.Errorf("after its end: %+v", over)
		}
	})
}

func TestACertificateOpensTheGuestUntilTheLeaseEnds(t *testing.T) {
	eachHouse(t, func(h *house) {
		guest := h.shelve("ci")
		_, line, err := ssh.NewEphemeral()
		h.must(err)
		l := h.acquire(h.user, client.Request{Cache: "ci", PublicKey: line})
		cert := h.certificate(l.Certificate)
		if got := cert.ValidPrincipals; len(got) != 1 || got[0] != guest.Principal() || cert.KeyId != l.ID {
			h.t.Errorf("principals %v, key id %s", got, cert.KeyId)
		}
		if end := time.Unix(int64(cert.ValidBefore), 0); end.Before(l.Deadline) || end.After(l.Deadline.Add(slack+time.Second)) {
			h.t.Errorf("valid before %s, the lease ends %s", end, l.Deadline)
		}
		_, other, err := ssh.NewEphemeral()
		h.must(err)
		l = ask[client.Lease](h, 200, sent{token: h.user, method: "POST", path: "/v1/leases/" + l.ID + "/renew", body: client.Renewal{PublicKey: other}})
		if got := ssh.Line(h.certificate(l.Certificate).Key); got != other {
			h.t.Errorf("the renewal certified %s, want %s", got, other)
		}
	})
}

func (h *house) certificate(line string) *ssh.Certificate {
	h.t.Helper()
	key, _, _, _, err := cryptossh.ParseAuthorizedKey([]byte(line))
	h.must(err)
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		h.t.Fatalf("%q is no certificate", line)
	}
	return cert
}

func TestALostLeaseComesBackByItsToken(t *testing.T) {
	eachHouse(t, func(h *house) {
		g := h.shelve("ci")
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		h.forget(g)
		renew := sent{token: h.user, method: "POST", path: "/v1/leases/" + l.ID + "/renew"}
		h.refused(404, "unknown_lease", renew)
		renew.body = client.Renewal{Token: l.Token[:len(l.Token)-2] + map[bool]string{true: "BA", false: "AA"}[strings.HasSuffix(l.Token, "AA")]}
		h.refused(400, "invalid", renew)
		renew.body, renew.token = client.Renewal{Token: l.Token}, h.stranger
		h.refused(403, "not_yours", renew)
		renew.token = h.user
		if back := ask[client.Lease](h, 200, renew); back.Phase != lease.Active || back.Guest.Name != g.Name || back.Guest.Host == "" {
			h.t.Errorf("restored: %+v", back)
		}
	})
}

func TestLeasesAreListedToTheirOwnersOnly(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.shelve("ci")
		h.acquire(h.user, client.Request{Cache: "ci"})
		ask[client.Lease](h, 202, sent{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: "ci"}})
		for token, want := range map[string]int{h.user: 2, h.admin: 2, h.stranger: 0} {
			for _, path := range []string{"/v1/leases", "/v1/leases?cache=ci"} {
				list := ask[struct{ Leases []client.Lease }](h, 200, sent{token: token, method: "GET", path: path})
				if len(list.Leases) != want {
					h.t.Errorf("%s: %d leases, want %d", path, len(list.Leases), want)
				}
			}
			queue := ask[struct{ Leases []client.Lease }](h, 200, sent{token: token, method: "GET", path: "/v1/caches/ci/queue"})
			if len(queue.Leases) != want/2 || want > 0 && (queue.Leases[0].Position != 1 || queue.Leases[0].Reason != "every guest of cache ci is leased") {
				h.t.Errorf("the queue is %+v, want %d", queue.Leases, want/2)
			}
		}
	})
}

func TestLeasesOfACacheThatTheSpecsHaveNoMoreAreListed(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.shelve("ci")
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		h.must(h.store.Adopt(h.t.Context(), &specs.Fleet{Revision: "empty"}))
		list := ask[struct{ Leases []client.Lease }](h, 200, sent{token: h.admin, method: "GET", path: "/v1/leases"})
		if len(list.Leases) != 1 || list.Leases[0].ID != l.ID {
			h.t.Errorf("listed: %+v", list.Leases)
		}
		h.refused(404, "unknown_cache", sent{token: h.admin, method: "GET", path: "/v1/leases?cache=ci"})
		ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID})
	})
}

func TestALeaseTokenIsForItsOwnerOnly(t *testing.T) {
	eachHouse(t, func(h *house) {
		h.shelve("ci")
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		seen := ask[client.Lease](h, 200, sent{token: h.admin, method: "GET", path: "/v1/leases/" + l.ID})
		if seen.Token != "" || seen.Guest.Host == "" {
			h.t.Errorf("the admin sees %+v", seen)
		}
		if p, _ := h.refused(403, "not_yours", sent{token: h.stranger, method: "GET", path: "/v1/leases/" + l.ID}); strings.Contains(p.Detail, "127.0.0.1") {
			h.t.Errorf("the problem gives the guest away: %s", p.Detail)
		}
	})
}

func TestAReleaseCanHoldOrDiscardTheGuest(t *testing.T) {
	eachHouse(t, func(h *house) {
		no := false
		for _, c := range []struct {
			how  client.Release
			want lease.State
		}{
			{client.Release{Hold: client.Duration(time.Minute)}, lease.Held},
			{client.Release{Shelve: &no}, lease.Tainted},
			{client.Release{}, lease.Shelved},
		} {
			g := h.shelve("ci")
			l := h.acquire(h.user, client.Request{Cache: "ci"})
			ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID, body: c.how})
			if after, err := h.store.Guest(h.t.Context(), g.Name); err != nil || after.State != c.want {
				h.t.Errorf("%+v: guest %s is %s (%v), want %s", c.how, g.Name, after.State, err, c.want)
			}
		}
		h.shelve("ci")
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		h.refused(409, "hold_budget", sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID, body: client.Release{Hold: client.Duration(time.Minute)}})
		if l = ask[client.Lease](h, 200, sent{token: h.user, method: "GET", path: "/v1/leases/" + l.ID}); l.Phase != lease.Active {
			h.t.Errorf("after a refused hold: %+v", l)
		}
	})
}

func TestAHoldOfAGuestThatIsToBeReplacedIsNotPromised(t *testing.T) {
	eachHouse(t, func(h *house) {
		g := h.shelve("ci")
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		ask[client.Ordered](h, 202, sent{token: h.admin, method: "POST", path: "/v1/guests/" + g.Name + "/taint"})
		hold := client.Release{Hold: client.Duration(time.Minute)}
		ended := ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID, body: hold})
		if want := "the hold was not kept: guest " + g.Name + " was ordered to be replaced and is tainted"; ended.Reason != want {
			h.t.Errorf("released: %q, want %q", ended.Reason, want)
		}
		h.shelve("ci")
		l = h.acquire(h.user, client.Request{Cache: "ci"})
		ended = ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID, body: hold})
		if ended.Reason != "" {
			h.t.Errorf("released and held: %q", ended.Reason)
		}
	})
}

func TestAHoldThatIsShorterThanAskedForIsSaid(t *testing.T) {
	eachHouse(t, func(h *house) {
		g := h.shelve("ci")
		l := h.acquire(h.user, client.Request{Cache: "ci"})
		hold := client.Release{Hold: client.Duration(4 * time.Hour)}
		ended := ask[client.Lease](h, 200, sent{token: h.user, method: "DELETE", path: "/v1/leases/" + l.ID, body: hold})
		held, err := h.store.Guest(h.t.Context(), g.Name)
		h.must(err)
		if want := "guest " + g.Name + " is held until " + held.Until.Format(time.RFC3339) + ": cache ci holds a guest for at most 1h0m0s"; ended.Reason != want {
			h.t.Errorf("%q, want %q", ended.Reason, want)
		}
	})
}
