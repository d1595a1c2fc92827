package gitops

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops/gitopstest"
)

// packs are the files of a kind in a clone.
func packs(t *testing.T, clone, kind string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(clone, "objects", "pack", "*."+kind))
	noError(t, err)
	if len(names) == 0 {
		t.Fatalf("the clone has no %s", kind)
	}
	return names
}

func TestADamagedCloneIsMadeAnewAndSaidSo(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(fleetFiles("", "2"))
	cut := func(t *testing.T, names []string) {
		for _, name := range names {
			info, err := os.Stat(name)
			noError(t, err)
			noError(t, os.Chmod(name, 0o600))
			noError(t, os.Truncate(name, info.Size()/2))
		}
	}
	scramble := func(t *testing.T, names []string) {
		for _, name := range names {
			body, err := os.ReadFile(name)
			noError(t, err)
			for i := 12; i < len(body); i++ { // behind the header
				body[i] ^= 0x5a
			}
			noError(t, os.Chmod(name, 0o600))
			noError(t, os.WriteFile(name, body, 0o600))
		}
	}
	for name, damage := range map[string]func(t *testing.T, clone string){
		"packs cut off":     func(t *testing.T, clone string) { cut(t, packs(t, clone, "pack")) },
		"indexes cut off":   func(t *testing.T, clone string) { cut(t, packs(t, clone, "idx")) },
		"packs scrambled":   func(t *testing.T, clone string) { scramble(t, packs(t, clone, "pack")) },
		"indexes scrambled": func(t *testing.T, clone string) { scramble(t, packs(t, clone, "idx")) },
		"indexes gone": func(t *testing.T, clone string) {
			for _, name := range packs(t, clone, "idx") {
				noError(t, os.Remove(name))
			}
		},
		"no objects": func(t *testing.T, clone string) { noError(t, os.RemoveAll(filepath.Join(clone, "objects"))) },
		"no refs":    func(t *testing.T, clone string) { noError(t, os.RemoveAll(filepath.Join(clone, "refs"))) },
		"no HEAD":    func(t *testing.T, clone string) { noError(t, os.Remove(filepath.Join(clone, "HEAD"))) },
		"a bad ref":  func(t *testing.T, clone string) { write(t, filepath.Join(clone, followedRef), "zzz\n") },
		"a lost commit": func(t *testing.T, clone string) {
			write(t, filepath.Join(clone, followedRef), strings.Repeat("1", 40)+"\n")
		},
		"a bad config": func(t *testing.T, clone string) { write(t, filepath.Join(clone, "config"), "[[[\n") },
		"an empty file": func(t *testing.T, clone string) {
			noError(t, os.RemoveAll(clone))
			write(t, clone, "")
		},
		"an empty directory": func(t *testing.T, clone string) {
			noError(t, os.RemoveAll(clone))
			noError(t, os.Mkdir(clone, 0o700))
		},
		"one half made": func(t *testing.T, clone string) {
			noError(t, os.Rename(clone, clone+".new"))
		},
		"another repository": func(t *testing.T, clone string) {
			noError(t, os.RemoveAll(clone))
			other := gitopstest.New(t)
			other.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
			f := follow(t, Options{Source: other.FileURL(), StateDir: filepath.Dir(clone)})
			f.good("")
			f.stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			f := follow(t, Options{Source: repo.FileURL(), StateDir: state})
			f.good("")
			f.stop()
			damage(t, filepath.Join(state, "source.git"))
			f = follow(t, Options{Source: repo.FileURL(), StateDir: state})
			r := f.good("")
			f.adopt(r.Name)
			f.good(repo.CommitAndPush(map[string]string{"x": fmt.Sprint(rand.Int64())}))
			f.stop()
			if text := f.log.String(); !strings.Contains(text, "made anew") && !slices.Contains([]string{"no HEAD", "no refs", "one half made", "indexes gone"}, name) {
				t.Errorf("the log does not say that the clone was made anew:\n%s", text)
			}
		})
	}
}

func TestAPreviewOnADamagedCloneIsMadeWithoutIt(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	f := follow(t, Options{Source: repo.FileURL() + "?ref=main", Every: slow})
	f.good("")
	clone := filepath.Join(f.o.StateDir, "source.git")
	for _, name := range packs(t, clone, "pack") {
		noError(t, os.Chmod(name, 0o600))
		noError(t, os.Truncate(name, 40))
	}
	mustGood(t, f.Read(t.Context(), "main"))
	if text := f.log.String(); !strings.Contains(text, "made anew") {
		t.Errorf("the log does not say that the clone is made anew:\n%s", text)
	}
	f.Poke()
	for { // until the follower has made it
		mustGood(t, f.Read(t.Context(), "main"))
		if _, err := os.Stat(filepath.Join(clone, followedRef)); err == nil {
			break
		}
	}
	commit := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("2")})
	f.Poke()
	f.good(commit)
}

func TestADamagedCommitDoesNotCostTheClone(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	f := follow(t, Options{Source: repo.FileURL() + "?ref=main", Every: slow})
	f.good("")
	lost := strings.Repeat("2", 40)
	raw := "tree " + lost + "\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nevil\n"
	commit := strings.TrimSpace(gitIn(t, repo.Dir, raw, "hash-object", "-t", "commit", "-w", "--stdin", "--literally"))
	write(t, filepath.Join(repo.Dir, "refs/heads/evil"), commit+"\n")
	mustFault(t, f.Read(t.Context(), "evil"), condition.Unreachable)
	if text := f.log.String(); strings.Contains(text, "anew") {
		t.Error(text)
	}
	packs(t, filepath.Join(f.o.StateDir, "source.git"), "pack")
}

func TestTheFollowerAndPreviewsShareTheClone(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(fleetFiles("", "1"))
	const branches = 6
	for i := range branches {
		repo.Git("checkout", "-q", "-B", fmt.Sprint("b", i), "main")
		repo.Commit(fleetFiles("", fmt.Sprint(i+10)))
		repo.Push()
	}
	repo.Git("checkout", "-q", "main")
	f := follow(t, Options{Source: repo.FileURL()})
	var all sync.WaitGroup
	for i := range branches {
		all.Go(func() {
			r := f.Read(context.Background(), fmt.Sprint("b", i))
			if r.Fault != nil || r.Fleet.Pool("p").Max != i+10 {
				t.Errorf("branch b%d: %+v, %v", i, r, r.Fault)
			}
		})
	}
	f.good("")
	for i := range 4 {
		f.good(repo.CommitAndPush(fleetFiles("", fmt.Sprint(i+2))))
	}
	all.Wait()
	if text := f.log.String(); strings.Contains(text, "anew") {
		t.Error(text)
	}
}

func TestACloneThatIsWornIsMadeAnew(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	f := follow(t, Options{Source: repo.FileURL()})
	f.good("")
	clone := filepath.Join(f.o.StateDir, "source.git")
	f.stop()
	for i := range maxPacks {
		blob := strings.TrimSpace(gitIn(t, clone, fmt.Sprint(i), "hash-object", "-w", "--stdin"))
		gitIn(t, clone, blob+"\n", "pack-objects", "-q", "objects/pack/pack")
	}
	commit := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("2")})
	f = follow(t, Options{Source: repo.FileURL(), StateDir: f.o.StateDir})
	f.good(commit)
	if n := len(packs(t, clone, "pack")); n > 2 {
		t.Errorf("the clone has %d packs", n)
	}
	f.stop()
	if text := f.log.String(); strings.Contains(text, "damaged") {
		t.Error(text)
	}
}

func gitIn(t *testing.T, dir, input string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(input)
	out, err := cmd.Output()
	noError(t, err)
	return string(out)
}

func TestPreviewsLeaveNothingInTheClone(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	repo.Git("checkout", "-q", "-b", "other")
	other := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("2")})
	f := follow(t, Options{Source: repo.FileURL() + "?ref=main", Every: slow})
	f.good("")
	left := filepath.Join(f.o.StateDir, "source.git.previews", "left")
	write(t, filepath.Join(left, "objects/x"), "of one that was killed\n")
	noError(t, os.Chtimes(left, time.Now(), time.Now().Add(-hours(1))))
	before := tree(t, filepath.Join(f.o.StateDir, "source.git"))
	r := f.Read(t.Context(), other)
	mustGood(t, r)
	if d := cmp.Diff(before, tree(t, filepath.Join(f.o.StateDir, "source.git"))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"."}, tree(t, filepath.Join(f.o.StateDir, "source.git.previews"))); d != "" {
		t.Error(d)
	}
}

// tree lists all names in a directory.
func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	noError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, _ fs.DirEntry, err error) error {
		names = append(names, name)
		return err
	}))
	return names
}

func TestALockThatIsHeldIsWaitedForAndNotForever(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	f := open(t, Options{Source: repo.FileURL()})
	lock, err := os.OpenFile(filepath.Join(f.o.StateDir, "source.git.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	noError(t, err)
	defer lock.Close()
	noError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	f.within.fetch = 2 * time.Second
	mustFault(t, f.Read(t.Context(), ""), condition.Unreachable, "waiting for others")
	noError(t, unix.Flock(int(lock.Fd()), unix.LOCK_UN))
	f.within = defaultDeadlines
	mustGood(t, f.Read(t.Context(), ""))
}

func hours(n int) time.Duration { return time.Duration(n)*time.Hour + time.Minute/2 }
