package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"greenroom/lease"
	"greenroom/lease/client"
)

// answered is what the API has said, whatever that was.
type answered struct {
	client.Problem
	status int
	header http.Header
	body   string
}

// call sends one call over TCP, with a token (the first admin's where it is empty) and no client's help.
func (h *house) call(token, method, path, body string) answered {
	h.Helper()
	if token == "" {
		token = strings.TrimSpace(string(must(os.ReadFile(h.path("state/admin.token")))(h)))
	}
	req := must(http.NewRequest(method, "http://"+h.addr()+path, strings.NewReader(body)))(h)
	req.Header.Set("Content-Type", "application/json")
	if token != "none" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return h.send(req)
}

func (h *house) send(req *http.Request) answered {
	h.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	noError(h, err)
	defer resp.Body.Close()
	out := answered{status: resp.StatusCode, header: resp.Header, body: string(must(io.ReadAll(resp.Body))(h))}
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		noError(h, json.Unmarshal([]byte(out.body), &out.Problem))
	}
	return out
}

func TestBadRequestsGetClearAnswers(t *testing.T) {
	h := newHouse(t, options{})
	h.write(fleet{max: 2, warm: 1, size: 2})
	h.start()
	h.converged()
	mine := h.acquire()
	foreign := must(h.api.CreateToken(t.Context(), client.NewToken{Name: "mallory", Owner: "web", Role: lease.User}))(t).Secret
	over := h.expired()

	lease := "/v1/leases/" + mine.ID
	for _, c := range []struct {
		name, token, method, path, body string
		status                          int
		code, says                      string
	}{
		{"an unknown guest", "", "GET", "/v1/guests/local-99", "", 404, "unknown_guest", "local-99"},
		{"no guest's name", "", "GET", "/v1/guests/nobody", "", 404, "unknown_guest", "nobody"},
		{"a taint of an unknown guest", "", "POST", "/v1/guests/local-99/taint", `{"reason": "test"}`, 404, "unknown_guest", "local-99"},
		{"an unknown cache", "", "POST", "/v1/leases", `{"cache": "nowhere"}`, 404, "unknown_cache", "nowhere"},
		{"an unknown pool", "", "GET", "/v1/pools/nowhere", "", 404, "unknown_pool", "nowhere"},
		{"an unknown lease", "", "GET", "/v1/leases/ci.NEVERGRANTED", "", 404, "unknown_lease", ""},
		{"an unknown path", "", "GET", "/v1/nowhere", "", 404, "not_found", "openapi"},
		{"a method that is not there", "", "PUT", "/v1/leases", "{}", 405, "method_not_allowed", "POST"},
		{"a renewal of an expired lease", "", "POST", "/v1/leases/" + over + "/renew", "", 410, "lease_over", "over"},
		{"an impossible request", "", "POST", "/v1/leases", `{"cache": "ci", "at_least": {"cpus": 64}}`, 422, "impossible", "local"},
		{"another team's cache", foreign, "POST", "/v1/leases", `{"cache": "ci"}`, 403, "not_yours", "platform"},
		{"another team's lease", foreign, "GET", lease, "", 403, "not_yours", ""},
		{"a renewal of another team's lease", foreign, "POST", lease + "/renew", "", 403, "not_yours", ""},
		{"a release of another team's lease", foreign, "DELETE", lease, "", 403, "not_yours", ""},
		{"a user who would be an admin", foreign, "POST", "/v1/tokens", `{"name": "root", "role": "admin"}`, 403, "forbidden", "admin"},
		{"no token", "none", "GET", "/v1/caches", "", 401, "unauthorized", "Bearer"},
		{"a token that nobody made", "not-a-token", "GET", "/v1/caches", "", 401, "unauthorized", "token"},
		{"an oversized body", "", "POST", "/v1/leases", `{"cache": "` + strings.Repeat("x", 1<<20) + `"}`, 413, "too_large", "1 MiB"},
		{"a malformed body", "", "POST", "/v1/leases", `{"cache": `, 400, "malformed", "JSON"},
		{"a body of another shape", "", "POST", "/v1/leases", `["ci"]`, 400, "malformed", "object"},
		{"a value of another type", "", "POST", "/v1/leases", `{"cache": 1}`, 400, "malformed", "cache"},
		{"an unknown field", "", "POST", "/v1/leases", `{"cache": "ci", "count": 2}`, 400, "unknown_field", "count"},
		{"a duration that is none", "", "POST", "/v1/leases", `{"cache": "ci", "ttl": "soon"}`, 400, "malformed", "soon"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := h.call(c.token, c.method, c.path, c.body)
			if got.status != c.status || got.Code != c.code || got.Status != c.status || !strings.Contains(got.Detail, c.says) {
				t.Errorf("%s %s: %d %.300s, want %d %s that says %q", c.method, c.path, got.status, got.body, c.status, c.code, c.says)
			}
		})
	}
	if now := must(h.api.Lease(t.Context(), mine.ID))(t); now.Phase != "active" || now.Deadline != mine.Deadline {
		t.Errorf("the lease has changed: %+v", now)
	}
}

// expired is the id of a lease that nobody has renewed.
func (h *house) expired() string {
	h.Helper()
	l := must(h.api.Acquire(h.Context(), client.Request{Cache: "ci", TTL: client.Duration(1e9)}, nil))(h)
	h.until("the lease has expired", func() error {
		now, err := h.api.Lease(h.Context(), l.ID)
		if err == nil && now.How != lease.Expired {
			err = fmt.Errorf("it is %s %s", now.Phase, now.How)
		}
		return err
	})
	return l.ID
}

// module writes a module of no machines, whose guests answer with these attributes.
func (h *house) module(attributes string) {
	h.Helper()
	noError(h, os.MkdirAll(h.path("specs/odd"), 0o700))
	noError(h, os.WriteFile(h.path("specs/odd/main.tf"), []byte(`
variable "guests" {
  type = map(object({ incarnation = number, user_data = string }))
}
variable "pool" { type = string }
variable "ssh_authorized_keys" { type = list(string) }
resource "terraform_data" "guest" {
  for_each         = var.guests
  triggers_replace = each.value.incarnation
}
output "guests" {
  value = { for name, g in terraform_data.guest : name => { id = g.id, `+attributes+` } }
}
`), 0o600))
}
