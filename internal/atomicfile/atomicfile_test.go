package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Either way of replacing a file.
var ways = map[string]func(string, []byte) error{"Write": Write, "Swap": Swap}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	body, err := os.ReadFile(name)
	must(t, err)
	return string(body)
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestAFileIsMadeAndReplacedForItsOwnerAlone(t *testing.T) {
	for way, replace := range ways {
		t.Run(way, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "file")
			must(t, replace(name, []byte("old")))
			must(t, os.Chmod(name, 0o644))
			must(t, replace(name, []byte("new")))
			info, err := os.Stat(name)
			must(t, err)
			if got := read(t, name); got != "new" || info.Mode().Perm() != 0o600 {
				t.Errorf("it holds %q with mode %v", got, info.Mode())
			}
			if diff := cmp.Diff([]string{"file"}, names(t, filepath.Dir(name))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestALinkIsReplacedAndWhatItLeadsToStays(t *testing.T) {
	for way, replace := range ways {
		t.Run(way, func(t *testing.T) {
			elsewhere, name := filepath.Join(t.TempDir(), "elsewhere"), filepath.Join(t.TempDir(), "file")
			must(t, os.WriteFile(elsewhere, []byte("stays"), 0o600))
			must(t, os.Symlink(elsewhere, name))
			must(t, replace(name, []byte("new")))
			info, err := os.Lstat(name)
			must(t, err)
			if !info.Mode().IsRegular() || read(t, name) != "new" || read(t, elsewhere) != "stays" {
				t.Errorf("the file is %v and holds %q; what it led to holds %q", info.Mode(), read(t, name), read(t, elsewhere))
			}
		})
	}
}

func TestTheDiskGetsTheContentsBeforeTheNameAndThenTheDirectory(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	must(t, Write(name, []byte("old")))
	var got []string
	must(t, write(name, []byte("new"), func(f *os.File) error {
		what := "the directory"
		if f.Name() != dir {
			what = "contents " + read(t, f.Name())
		}
		got = append(got, what+", when the name has "+read(t, name))
		return f.Sync()
	}))
	if diff := cmp.Diff([]string{"contents new, when the name has old", "the directory, when the name has new"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAFaultIsToldAndLeavesAWholeFileAlone(t *testing.T) {
	full := errors.New("the disk is full")
	for _, c := range []struct {
		fails, want string
	}{{"the file", "old"}, {"the directory", "new"}} {
		t.Run(c.fails, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, "file")
			must(t, Write(name, []byte("old")))
			err := write(name, []byte("new"), func(f *os.File) error {
				if (f.Name() == dir) == (c.fails == "the directory") {
					return full
				}
				return nil
			})
			if !errors.Is(err, full) || read(t, name) != c.want || len(names(t, dir)) != 1 {
				t.Errorf("%v; it holds %q, beside %q", err, read(t, name), strings.Join(names(t, dir), " "))
			}
		})
	}
}

func TestADirectoryThatIsNotThereIsAFault(t *testing.T) {
	for way, replace := range ways {
		if err := replace(filepath.Join(t.TempDir(), "none", "file"), nil); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", way, err)
		}
	}
}
