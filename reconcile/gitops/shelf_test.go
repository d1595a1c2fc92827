package gitops

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops/gitopstest"
)

func TestOnlyTheNewestModulesOfPreviewsAreKept(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		noError(t, os.MkdirAll(filepath.Join(dir, fmt.Sprint(i), "sub"), 0o700))
		at := filepath.Join(dir, fmt.Sprint(i))
		info, err := os.Stat(at)
		noError(t, err)
		when := info.ModTime().Add(-hours(5 - i))
		noError(t, os.Chtimes(at, when, when))
	}
	info, err := os.Stat(dir)
	noError(t, err)
	removeOldest(dir, 1, info.ModTime().Add(-3*time.Hour))
	for i, want := range []bool{false, false, false, true, true} {
		_, err := os.Stat(filepath.Join(dir, fmt.Sprint(i)))
		if there := !errors.Is(err, fs.ErrNotExist); there != want {
			t.Errorf("%d: %t", i, there)
		}
	}
}

// zeros is an uploaded spec directory with a module of a bit more than 1 MiB.
func zeros(t *testing.T, name string) []byte {
	t.Helper()
	return pack(t,
		entry{name: "a.hcl", body: strings.Replace(onePool("1"), `"local"`+"\n  max", `"./m"`+"\n  max", 1)},
		entry{name: "m/" + name + ".tf", body: strings.Repeat("\x00", 1<<20)})
}

// age makes a module one that was used last so long ago.
func age(t *testing.T, dir string, d time.Duration) {
	t.Helper()
	at := time.Now().Add(-d)
	noError(t, os.Chtimes(dir, at, at))
}

func TestTheModulesOfPreviewsAreBounded(t *testing.T) {
	f := archiveSource(t)
	f.room = 2 << 20
	var modules []string
	upload := func(name string) {
		t.Helper()
		r := f.Archive(t.Context(), zeros(t, name), []string{})
		mustGood(t, r)
		modules = append(modules, r.Fleet.Pools[0].ModuleDir)
	}
	upload("first")
	age(t, modules[0], inUse+2*time.Minute)
	upload("second")
	age(t, modules[1], inUse+time.Minute)
	upload("third") // the oldest one makes room
	for i, want := range []bool{false, true, true} {
		_, err := os.Stat(modules[i])
		if there := !errors.Is(err, fs.ErrNotExist); there != want {
			t.Errorf("module %d: %t", i, there)
		}
	}
	age(t, modules[1], inUse-time.Minute) // a preview may be using it
	r := f.Archive(t.Context(), zeros(t, "fourth"), []string{})
	mustFault(t, r, condition.TooLarge, "the last 15 minutes take 2.0 MiB", "beyond 2.0 MiB none is added", "try again in 15 minutes")
	upload("third") // is there, and takes nothing more
	if names := tree(t, f.previewModules()); len(names) != 5 {
		t.Errorf("the store has %q", names)
	}
	age(t, modules[1], inUse+time.Minute)
	upload("fourth")
}

func TestAFullStoreRefusesPreviewsOfTheRepositoryToo(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(fleetFiles("", "3"))
	f := open(t, Options{Source: repo.FileURL()})
	f.room = 1 << 20
	write(t, filepath.Join(f.previewModules(), "other", "main.tf"), strings.Repeat("#", 1<<20))
	mustFault(t, f.Read(t.Context(), ""), condition.TooLarge, "no room", "1.0 MiB", "try again")
	age(t, filepath.Join(f.previewModules(), "other"), inUse+time.Minute)
	mustGood(t, f.Read(t.Context(), ""))
}

func TestAModuleWhoseRemovalWasCutShortIsNotTakenForWhole(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, ".old", "left"), "of one that was killed\n")
	write(t, filepath.Join(dir, "tree", "main.tf"), "\n")
	age(t, filepath.Join(dir, "tree"), hours(2))
	age(t, filepath.Join(dir, ".old"), hours(2))
	removeOldest(dir, 0, time.Now())
	if names := tree(t, dir); len(names) != 1 {
		t.Errorf("there is %q", names)
	}
}
