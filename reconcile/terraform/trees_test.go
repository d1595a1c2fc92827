package terraform

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// moduleStore is a driver that has a store of modules and no Terraform, and its log.
func moduleStore(t *testing.T) (d *Driver, modules string, log *bytes.Buffer) {
	t.Helper()
	log = &bytes.Buffer{}
	d = &Driver{opts: Options{StateDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(log, nil))}}
	return d, filepath.Join(d.opts.StateDir, "modules"), log
}

// entryUsed makes an entry of a store, a tree or a file, that was used last so long ago.
func entryUsed(t *testing.T, path string, ago time.Duration) {
	t.Helper()
	file := path
	if !strings.HasSuffix(path, lockFile) && !strings.HasSuffix(path, ".init") {
		file = filepath.Join(path, "main.tf")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("#\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	agedBy(t, path, ago)
}

func agedBy(t *testing.T, path string, ago time.Duration) {
	t.Helper()
	at := time.Now().Add(-ago)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func entriesOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestModulesThatNobodyHasUsedForAWeekAreRemoved(t *testing.T) {
	d, modules, log := moduleStore(t)
	const old, young = unusedFor + time.Hour, unusedFor - time.Hour
	for name, ago := range map[string]time.Duration{
		"needed": old, "needed" + lockFile: old, "old": old, "old" + lockFile: old, "young": young, "young" + lockFile: young,
		"aa.init": old, "bb.init": young, ".new-1": old, ".new-2": young, ".old": 0,
	} {
		entryUsed(t, filepath.Join(modules, name), ago)
	}
	d.PruneModules(t.Context(), map[string]bool{"needed": true, "elsewhere": true, "": true, ".": true}, time.Now())
	want := []string{".new-2", "bb.init", "needed", "needed" + lockFile, "young", "young" + lockFile}
	if diff := cmp.Diff(want, entriesOf(t, modules)); diff != "" {
		t.Error(diff)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `count=2 bytes=24576`) {
		t.Errorf("it has logged %q", text)
	}
	d.PruneModules(t.Context(), nil, time.Now().Add(young)) // what was needed a moment ago is kept for a week
	if diff := cmp.Diff([]string{"needed", "needed" + lockFile}, entriesOf(t, modules)); diff != "" {
		t.Error(diff)
	}
}

func TestAModuleThatIsFoundAgainIsKept(t *testing.T) {
	tree := fstest.MapFS{"main.tf": {Data: []byte("# a module\n")}}
	for name, find := range map[string]func(d *Driver, modules, digest string) error{
		"by the reader":        func(_ *Driver, modules, _ string) error { _, err := StoreModule(tree, modules); return err },
		"by a run":             func(d *Driver, _, digest string) error { return d.KeepModule(Module{Digest: digest}) },
		"by a first run":       func(d *Driver, _, _ string) error { return d.KeepModule(Module{FS: tree}) },
		"while another stores": func(_ *Driver, modules, _ string) error { _, err := copyModule(tree, modules); return err },
	} {
		t.Run(name, func(t *testing.T) {
			d, modules, _ := moduleStore(t)
			digest, err := StoreModule(tree, modules)
			if err != nil {
				t.Fatal(err)
			}
			agedBy(t, filepath.Join(modules, digest), unusedFor+time.Hour)
			if err := find(d, modules, digest); err != nil {
				t.Fatal(err)
			}
			d.PruneModules(t.Context(), nil, time.Now())
			if diff := cmp.Diff([]string{digest}, entriesOf(t, modules)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNoModuleIsRemovedWhileSomebodyLooksForIt(t *testing.T) {
	d, modules, log := moduleStore(t)
	entryUsed(t, filepath.Join(modules, "old"), unusedFor+time.Hour)
	err := underLock(modules, syscall.LOCK_SH, func() error {
		d.PruneModules(t.Context(), nil, time.Now())
		return nil
	})
	if diff := cmp.Diff([]string{"old"}, entriesOf(t, modules)); diff != "" || err != nil || log.Len() > 0 {
		t.Error(diff, err, log)
	}
	d.PruneModules(t.Context(), nil, time.Now())
	if names := entriesOf(t, modules); len(names) > 0 {
		t.Errorf("there is %q", names)
	}
}

// Whatever comes first, a module that was said to be in the store is there.
func TestAModuleThatIsStoredWhileOthersAreRemovedIsThere(t *testing.T) {
	d, modules, log := moduleStore(t)
	for n := range 300 {
		tree := fstest.MapFS{"main.tf": {Data: fmt.Append(nil, n%3)}}
		digest, err := StoreModule(tree, modules)
		if err != nil {
			t.Fatal(err)
		}
		agedBy(t, filepath.Join(modules, digest), unusedFor+time.Hour)
		var both sync.WaitGroup
		both.Go(func() { d.PruneModules(t.Context(), nil, time.Now()) })
		both.Go(func() { _, err = StoreModule(tree, modules) })
		both.Wait()
		if err != nil || !exists(filepath.Join(modules, digest, "main.tf")) {
			t.Fatalf("after %d times: %v %q\n%s", n, err, entriesOf(t, modules), log)
		}
	}
}
