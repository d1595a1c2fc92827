package reconcile_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"greenroom/lease"
	"greenroom/modules"
	"greenroom/reconcile"
	"greenroom/reconcile/terraform"
	"greenroom/specs"
)

// TestARestartRemovesNoModuleInUse has guests of two modules, one of them only by a lease that outlives its revision, and a third
// module that is of no use any more; all of them are old.
func TestARestartRemovesNoModuleInUse(t *testing.T) {
	h := openHouse(t)
	store := filepath.Join(h.dir, "terraform", "modules")
	module := func(name string) (dir string) {
		t.Helper()
		copied := t.TempDir()
		tree, _ := modules.Lookup("local")
		err := os.CopyFS(copied, tree)
		if err == nil {
			err = os.WriteFile(filepath.Join(copied, name+".tf"), nil, 0o600)
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(store), 0o700)
		}
		digest := ""
		if err == nil {
			digest, err = terraform.StoreModule(os.DirFS(copied), store)
		}
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(store, digest)
	}
	of := func(dir string) func(*specs.Fleet) {
		return func(f *specs.Fleet) { f.Pools[0].Module, f.Pools[0].ModuleDir = "./m", dir }
	}
	first, second, unused := module("first"), module("second"), module("unused")
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r1", 1, of(first))})
	h.shelved(1)
	l := h.acquire()
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r2", 1, of(second))})
	h.shelvedBeside(1, lease.Leased)
	h.stop()
	old := time.Now().AddDate(0, 0, -30)
	for _, dir := range []string{first, second, unused} {
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	h.start()
	h.until("only the unused module is removed", func() bool {
		_, gone := os.Stat(unused)
		used := func(dir string) bool {
			info, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			return info.ModTime().After(old)
		}
		return os.IsNotExist(gone) && used(first) && used(second)
	})
	if _, err := h.store.Release(t.Context(), alice, l.ID, lease.Release{}); err != nil {
		t.Fatal(err)
	}
	h.loop.Offer(reconcile.Revision{Fleet: fleet("r3", 2, of(second))})
	h.shelved(2)
}
