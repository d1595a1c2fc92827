package integration

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"greenroom/lease/leasetest"
)

// diskSize is that of the state directory's file system: enough for a few guests.
const diskSize = "32m"

// smallDisk is a directory for a house whose state lies on a disk of its own.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := must(os.MkdirTemp("", "gr-"))(t) //nolint:usetesting // see newHouse
	state := dir + "/state"
	noError(t, os.Mkdir(state, 0o700))
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size="+diskSize+",mode=0700"); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(state, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return dir
}

// fill takes all space that is left and returns how to give it back.
func (h *house) fill() (free func()) {
	h.Helper()
	path := h.path("state/filler")
	f := must(os.Create(path))(h)
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		block := make([]byte, size)
		for {
			if _, err := f.Write(block); err != nil {
				break
			}
		}
	}
	return func() { noError(h, os.Remove(path)) }
}

func TestAFullDiskRefusesLeasesUntilThereIsSpace(t *testing.T) {
	h := newHouse(t, options{dir: smallDisk(t)})
	h.write(fleet{max: 4, warm: 2, size: 2})
	h.start()
	h.converged()
	held := h.acquire()
	h.shelved(2)
	free := h.fill()
	h.until("a lease is refused", func() error {
		r := h.call("", "POST", "/v1/leases", `{"cache": "ci", "wait": "0s"}`)
		if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
			return fmt.Errorf("it is answered with %d %s", r.status, r.body)
		}
		if !strings.Contains(r.Detail, "no space left on device") {
			t.Errorf("the refusal does not say why: %s", r.Detail)
		}
		return nil
	})
	free()
	h.converged()
	h.release(h.acquire().ID)
	if now := must(h.api.Lease(t.Context(), held.ID))(t); now.Phase != "active" {
		t.Errorf("the lease that was held is %s", now.Phase)
	}
	h.release(held.ID)
	h.shelved(2)
	h.matched()
}

func TestADiskThatIsFullInARunFailsTheRunUntilThereIsSpace(t *testing.T) {
	h := newHouse(t, options{dir: smallDisk(t), redis: leasetest.Redis(t).URL})
	h.write(fleet{max: 4, warm: 1, size: 1})
	h.start()
	h.converged()
	free := h.fill()
	h.write(fleet{max: 4, warm: 3, size: 3})
	h.until("the pool says that the disk is full", func() error {
		p, err := h.api.Pool(t.Context(), "local")
		if text := fmt.Sprint(p.Conditions); err == nil && !strings.Contains(text, "no space left on") {
			err = fmt.Errorf("%s", text)
		}
		return err
	})
	h.release(h.acquire().ID) // what exists is leased all the same
	free()
	h.converged() // by itself
	h.shelved(3)
	h.matched()
}
