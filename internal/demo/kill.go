package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"greenroom/lease"
)

// kill ends a shelved guest as a crash would, and waits until the watchdog has found it out and Terraform has replaced it.
func (d *demo) kill(ctx context.Context, s *Step, guest string) error {
	if err := d.onlyWarm(ctx, guest); err != nil {
		return err
	}
	start := time.Now()
	before, err := d.client.Guest(ctx, guest)
	if err != nil {
		return err
	}
	pid, err := pidOf(before)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s (pid %d): %w", guest, pid, err)
	}
	var after lease.Guest
	err = d.until(ctx, func() (bool, error) {
		after, err = d.client.Guest(ctx, guest)
		return err == nil && after.State == lease.Shelved && after.Incarnation > before.Incarnation, err
	})
	s.Guest, s.Seconds = guest, time.Since(start).Seconds()
	s.Detail = fmt.Sprintf("kill -9 of %s.%d; tainted, replaced by %s.%d in the next apply", guest, before.Incarnation, guest, after.Incarnation)
	return err
}

// onlyWarm takes away what was made while guests were leased: a dead guest is retired, and not replaced, where enough others
// are warm.
func (d *demo) onlyWarm(ctx context.Context, keep string) error {
	return d.until(ctx, func() (bool, error) {
		guests, err := d.client.CacheGuests(ctx, cache)
		settled := !slices.ContainsFunc(guests, func(g lease.Guest) bool { return g.State != lease.Shelved })
		if err != nil || !settled || len(guests) <= warm {
			return settled, err
		}
		other := slices.IndexFunc(guests, func(g lease.Guest) bool { return g.Name != keep })
		_, err = d.client.RemoveGuest(ctx, cache, guests[other].Name)
		return false, err
	})
}

// pidOf reads the process of a local guest from the file that it keeps in its directory.
func pidOf(g lease.Guest) (int, error) {
	var at struct{ Dir string }
	if err := json.Unmarshal(g.Attributes, &at); err != nil {
		return 0, fmt.Errorf("the attributes of %s: %w", g.Name, err)
	}
	text, err := os.ReadFile(filepath.Join(at.Dir, "guest.json"))
	if err != nil {
		return 0, err
	}
	var info struct{ Pid int }
	if err := json.Unmarshal(text, &info); err != nil || info.Pid <= 1 {
		return 0, fmt.Errorf("guest.json of %s names no process: %w", g.Name, err)
	}
	return info.Pid, nil
}
