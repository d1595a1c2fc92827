package browser

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hostile is what would run if any page let it.
const hostile = `<img src=x onerror=pwned=1><svg onload=pwned=1>`

const longName = "virtual-machines-for-the-nightly-builds" // one letter less than the longest

// many guests, one guest with a long name, and one that can't be made. The first two are of a module without machines, whose
// guests are where the test listens.
const scenes = `
pool "crowd" {
  module     = "./crowd"
  max        = 320
  shard_size = 50
  labels     = { note = %q }
  probe "tcp" { every = "1m" }
}

cache "bulk" {
  owner = "research"
  pools = [pool.crowd]
  warm  = 300
  size  = 300
  max   = 320
}

pool %q {
  module = "./crowd"
  max    = 1
  probe "tcp" { every = "1m" }
}

cache "the-cache-of-the-nightly-builds-with-ids" {
  owner = "the-team-that-owns-the-nightly-builds-and-what-is-around-them"
  pools = [pool.%[2]s]
  warm  = 1
  size  = 1
  max   = 1
}

pool "broken" {
  module = "./broken"
  max    = 2
  spare  = 1
}
`

const module = `
variable "guests" { type = map(object({ incarnation = number, user_data = string })) }
variable "pool" { type = string }
variable "ssh_authorized_keys" { type = list(string) }
resource "terraform_data" "guest" {
  for_each         = var.guests
  triggers_replace = each.value.incarnation
  %s
}
output "guests" {
  value = { for name, g in terraform_data.guest : name => { id = g.id, host = "127.0.0.1", port = %d, user = "root", host_key = "", attributes = {} } }
}
`

const breaking = `lifecycle {
    precondition {
      condition     = var.pool == "whole"
      error_message = "no quota is left for <b>machines</b> of this kind: ask the owners of the house for more of it."
    }
  }`

// listen answers whoever connects, until the test ends.
func listen(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

// trouble declares the scenes until the test ends, and waits until they are there.
func trouble(t *testing.T) {
	t.Helper()
	for name, text := range map[string]string{"crowd": fmt.Sprintf(module, "", listen(t)), "broken": fmt.Sprintf(module, breaking, 1)} {
		noError(t, os.MkdirAll(filepath.Join(home.dir, "specs", name), 0o700))
		noError(t, os.WriteFile(filepath.Join(home.dir, "specs", name, "main.tf"), []byte(text), 0o600))
	}
	noError(t, home.declare(fleet+fmt.Sprintf(scenes, hostile, longName)))
	t.Cleanup(func() {
		noError(t, home.declare(fleet))
		noError(t, home.until("the crowd is gone", home.withoutCrowd))
	})
	noError(t, home.until("all guests are shelved", func() error {
		return home.shelved(map[string]int{"bulk": 300, "the-cache-of-the-nightly-builds-with-ids": 1})
	}))
	noError(t, home.until("a run has failed", func() error {
		var pool any
		err := home.call(home.admin, "GET", "/v1/pools/broken", "", &pool)
		if text := fmt.Sprint(pool); err == nil && !strings.Contains(text, "no quota") {
			err = fmt.Errorf("the pool is %s", text)
		}
		return err
	}))
}

func (h *house) withoutCrowd() error {
	var all struct{ Guests []struct{ Pool string } }
	if err := h.call(h.admin, "GET", "/v1/guests", "", &all); err != nil {
		return err
	}
	for _, g := range all.Guests {
		if g.Pool == "crowd" {
			return fmt.Errorf("%d guests are there", len(all.Guests))
		}
	}
	return nil
}

func TestManyGuestsLongNamesAndFaultsLeaveThePagesUsable(t *testing.T) {
	trouble(t)
	b := open(t, home.admin, "/")
	for _, path := range []string{
		"/", "/pools/crowd", "/caches/bulk", "/guests/crowd-150", "/pools/" + longName, "/guests/" + longName + "-1",
		"/caches/the-cache-of-the-nightly-builds-with-ids", "/pools/broken",
	} {
		b.audited(path)
	}
	guestsAreNamedWhenTheyAreGoneAndAskedFor(b)
}

// guestsAreNamedWhenTheyAreGoneAndAskedFor has one of the many retired while their page is open.
func guestsAreNamedWhenTheyAreGoneAndAskedFor(b *tab) {
	b.Helper()
	const rows = `document.querySelectorAll("[data-key^=guest-]").length`
	b.visit("/pools/crowd")
	b.until(rows + " === 300")
	noError(b.T, home.declare(strings.ReplaceAll(fleet+fmt.Sprintf(scenes, hostile, longName), "= 300", "= 299")))
	b.until(rows + " === 299") // by itself
	b.click(`a[href$="?all=1"]`)
	b.shows("Leave out those that are gone")
	gone := eval[[]string](b, `[...document.querySelectorAll(".names a")].map((a) => a.textContent)`)
	if len(gone) != 1 || eval[int](b, rows) != 299 {
		b.Fatalf("%q are named as gone, of 300 guests of which one was retired", gone)
	}
	b.click(".names a")
	b.shows("It is gone; this is what is kept of its history.")
	b.shows("retiring: excess")
}
