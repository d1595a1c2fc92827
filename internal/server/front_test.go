package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"greenroom/internal/http1"
	"greenroom/lease/client"
	"greenroom/lease/leasetest"
)

// fronted serves the parts as Server.serve does until the test ends.
func (h *house) fronted() (address string) {
	h.t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	h.parts.Registry = prometheus.NewRegistry()
	handler := Handler(h.parts)
	front := &http1.Front{Handler: handler, Takes: ofLeases, ConnContext: withPeer, ReadTimeout: time.Minute, IdleTimeout: time.Minute}
	server := &http.Server{Handler: handler, ConnContext: withPeer, ReadHeaderTimeout: time.Minute}
	ended := make(chan error)
	go func() { ended <- server.Serve(front.Listen(inner)) }()
	h.t.Cleanup(func() {
		if err := errors.Join(front.Shutdown(context.Background()), server.Shutdown(context.Background())); err != nil {
			h.t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			h.t.Error(err)
		}
	})
	return inner.Addr().String()
}

// said sends a request and returns all of the answer but its date.
func (h *house) said(address, text string) string {
	h.t.Helper()
	conn, err := net.Dial("tcp", address)
	h.must(err)
	defer conn.Close()
	h.must(conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(conn, text)
	h.must(err)
	a, err := http.ReadResponse(bufio.NewReader(conn), nil)
	h.must(err)
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	h.must(err)
	if a.Header.Get("Date") == "" {
		h.t.Error("there is no date")
	}
	a.Header.Del("Date")
	return fmt.Sprint(a.Status, a.Header, a.ContentLength, a.Close, "\n", string(body))
}

// A connection that is to be kept with other capitals is none of the plainest kind, so that net/http answers.
func TestACallIsAnsweredAlikeInFrontAndBehind(t *testing.T) {
	h := newHouse(t, leasetest.Embedded(t))
	address := h.fronted()
	over := h.overLease()
	h.shelve("ci")
	active := ask[client.Lease](h, 201, sent{token: h.user, method: "POST", path: "/v1/leases", body: client.Request{Cache: "ci"}, header: map[string]string{"Idempotency-Key": "k"}})
	bearer := func(token string) string { return "Authorization: Bearer " + token + "\r\n" }
	json := "Content-Type: application/json\r\n"
	for name, c := range map[string]struct{ method, path, head, body string }{
		"no token":              {"POST", "/v1/leases", json, `{"cache":"ci"}`},
		"another scheme":        {"POST", "/v1/leases", "Authorization: Basic eDp5\r\n", ""},
		"an unknown token":      {"DELETE", "/v1/leases/" + active.ID, bearer("gr_X"), ""},
		"no cache of that name": {"POST", "/v1/leases", bearer(h.user) + json, `{"cache":"none"}`},
		"somebody else's cache": {"POST", "/v1/leases", bearer(h.stranger) + json, `{"cache":"ci"}`},
		"somebody else's lease": {"DELETE", "/v1/leases/" + active.ID, bearer(h.stranger), ""},
		"impossible":            {"POST", "/v1/leases", bearer(h.user) + json, `{"cache":"ci","labels":{"os":"plan9"}}`},
		"sent again":            {"POST", "/v1/leases", bearer(h.user) + json + "Idempotency-Key: k\r\n", `{"cache":"ci"}`},
		"another wish":          {"POST", "/v1/leases", bearer(h.user) + json + "Idempotency-Key: k\r\n", `{"cache":"ci","ttl":"5s"}`},
		"a key in tabs":         {"POST", "/v1/leases", bearer(h.user) + json + "Idempotency-Key: \tk\t\r\n", `{"cache":"ci"}`},
		"none ready":            {"POST", "/v1/leases", bearer(h.user) + json, `{"cache":"ci","wait":"0s"}`},
		"no JSON":               {"POST", "/v1/leases", bearer(h.user) + json, `{"cache":`},
		"a list":                {"POST", "/v1/leases", bearer(h.user) + json, `[]`},
		"an unknown field":      {"POST", "/v1/leases", bearer(h.user) + json, `{"cash":"ci"}`},
		"two objects":           {"POST", "/v1/leases", bearer(h.user) + json, `{} {}`},
		"another type":          {"POST", "/v1/leases", bearer(h.user) + "Content-Type: text/plain\r\n", `{}`},
		"no type":               {"POST", "/v1/leases", bearer(h.user), `{}`},
		"a type that is none":   {"POST", "/v1/leases", bearer(h.user) + "Content-Type: ;;;\r\n", `{}`},
		"too large":             {"POST", "/v1/leases", bearer(h.user) + json, `{"cache":"` + strings.Repeat("x", 2<<20) + `"}`},
		"over":                  {"DELETE", "/v1/leases/" + over, bearer(h.user), ""},
		"over, with a body":     {"DELETE", "/v1/leases/" + over, bearer(h.user) + json, `{"outcome":"pass"}`},
		"a bad outcome":         {"DELETE", "/v1/leases/" + active.ID, bearer(h.user) + json, `{"outcome":"perhaps"}`},
		"no lease":              {"DELETE", "/v1/leases/ci.NONE", bearer(h.user), ""},
		"no id":                 {"DELETE", "/v1/leases/nothing", bearer(h.user), ""},
		"renewed when over":     {"POST", "/v1/leases/" + over + "/renew", bearer(h.user), ""},
		"a foreign proof":       {"POST", "/v1/leases/ci.NONE/renew", bearer(h.user) + json, `{"token":"a.b"}`},
		"a path too long":       {"POST", "/v1/leases/a/renew/b", bearer(h.user), ""},
		"an empty id":           {"DELETE", "/v1/leases/", bearer(h.user), ""},
		"an empty id, renewed":  {"POST", "/v1/leases//renew", bearer(h.user), ""},
		"dots":                  {"DELETE", "/v1/leases/..", bearer(h.user), ""},
		"dots before tokens":    {"POST", "/v1/leases/../tokens", bearer(h.admin) + json, `{"name":"x"}`},
		"nothing to delete":     {"DELETE", "/v1/leases", bearer(h.user), ""},
		"nothing to post to":    {"POST", "/v1/leases/" + active.ID, bearer(h.user), ""},
		"much of a head":        {"DELETE", "/v1/leases/" + over, bearer(h.user) + "X: " + strings.Repeat("z", 6000) + "\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			length := ""
			if c.body != "" {
				length = fmt.Sprintf("Content-Length: %d\r\n", len(c.body))
			}
			text := func(kept string) string {
				return c.method + " " + c.path + " HTTP/1.1\r\nHost: h\r\nConnection: " + kept + "\r\n" + c.head + length + "\r\n" + c.body
			}
			if diff := cmp.Diff(h.said(address, text("Keep-Alive")), h.said(address, text("keep-alive"))); diff != "" {
				t.Errorf("the answer (-net/http +front):\n%s", diff)
			}
		})
	}
}
