package gitops

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops/gitopstest"
)

// specsDir is a directory with a fleet that has a script and a module of its own.
func specsDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "specs")
	for name, text := range fleetFiles("", "2") {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

// slow is a time between two looks in which a test would fail that waits for a look rather than for notice.
const slow = time.Hour

func TestEachChangeOfADirectoryIsOfferedAtOnce(t *testing.T) {
	dir := specsDir(t)
	f := follow(t, Options{Source: dir, Every: slow})
	first := f.good(Load(dir).Name)
	module := first.Fleet.Pool("p").ModuleDir
	if !strings.HasPrefix(module, filepath.Join(f.o.StateDir, "modules", "sha256-")) || first.Fleet.Dir != dir {
		t.Errorf("the module is in %s, the specs in %s", module, first.Fleet.Dir)
	}
	write(t, filepath.Join(dir, "fleet.hcl"), fleetFiles("", "3")["fleet.hcl"])
	if r := f.good(""); r.Fleet.Pool("p").Max != 3 {
		t.Error("the spec file is the old one")
	}
	write(t, filepath.Join(dir, "scripts/prepare.sh"), "echo other\n")
	if r := f.good(""); string(r.Fleet.Cache("ci").Prepare.Body) != "echo other\n" {
		t.Error("the script is the old one")
	}
	write(t, filepath.Join(dir, "modules/m/main.tf"), "# other\n")
	r := f.good(Load(dir).Name)
	if text, err := os.ReadFile(filepath.Join(r.Fleet.Pool("p").ModuleDir, "main.tf")); string(text) != "# other\n" {
		t.Errorf("the module is %q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(module, "main.tf")); string(text) == "# other\n" {
		t.Errorf("the module of the revision before has changed: %q, %v", text, err)
	}
	write(t, filepath.Join(dir, "modules/m/deep/er/x.tf"), "# new\n")
	f.good(Load(dir).Name)
	write(t, filepath.Join(dir, "modules/m/deep/er/x.tf"), "# newer\n")
	f.good(Load(dir).Name)
	noError(t, os.Rename(filepath.Join(dir, "modules/m/deep"), filepath.Join(dir, "modules/m/shallow")))
	f.good(Load(dir).Name)
}

func TestADirectoryWhoseModulesCouldNotBeStoredIsReadAgain(t *testing.T) {
	state := t.TempDir()
	write(t, filepath.Join(state, "modules"), "in the way\n")
	f := open(t, Options{Source: specsDir(t), StateDir: state})
	r, news := f.lookDirectory(t.Context())
	mustFault(t, r, condition.Unreachable, "storing the module")
	noError(t, os.Remove(filepath.Join(state, "modules")))
	f.read = f.read.Add(-rereadAfter)
	if r, again := f.lookDirectory(t.Context()); r.Fault != nil || !news || !again {
		t.Errorf("%+v, news %t, again %t", r, news, again)
	}
}

func TestAnEditorsWayOfSavingIsOneChange(t *testing.T) {
	dir := specsDir(t)
	f := follow(t, Options{Source: dir, Every: slow})
	f.good("")
	file := filepath.Join(dir, "fleet.hcl")
	noError(t, os.Rename(file, file+"~"))
	write(t, file, "pool \"p\" {\n") // half written
	write(t, file, fleetFiles("", "5")["fleet.hcl"])
	noError(t, os.Chmod(file, 0o600))
	if r := f.good(Load(dir).Name); r.Fleet.Pool("p").Max != 5 {
		t.Errorf("%+v", r.Fleet.Pools)
	}
	f.o.Every = 20 * time.Millisecond
	f.quiet()
}

func TestAnIdleDirectoryStartsNoProcess(t *testing.T) {
	dir := specsDir(t)
	f := follow(t, Options{Source: dir, Every: 20 * time.Millisecond})
	f.good("")
	f.quiet()
	before := f.asked.Load()
	write(t, filepath.Join(dir, "README"), "of no interest\n")
	noError(t, os.Chtimes(filepath.Join(dir, "fleet.hcl"), time.Now(), time.Now()))
	f.quiet()
	if n := f.asked.Load() - before; n != 0 {
		t.Errorf("%d readers were started", n)
	}
}

func TestWhatAFaultWantsIsSeenWhenItComes(t *testing.T) {
	dir := specsDir(t)
	noError(t, os.Rename(filepath.Join(dir, "scripts"), filepath.Join(dir, "away")))
	f := follow(t, Options{Source: dir, Every: slow})
	f.bad(condition.SpecInvalid, "scripts/prepare.sh", "fleet.hcl line 7")
	noError(t, os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "scripts")))
	f.good("")
	noError(t, os.Rename(filepath.Join(dir, "modules"), filepath.Join(dir, "away")))
	f.bad(condition.SpecInvalid, "./modules/m")
	noError(t, os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "modules")))
	f.good(Load(dir).Name)
	noError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "modules/m/passwd.tf")))
	f.bad(condition.SpecInvalid, "passwd.tf", "only regular files")
	noError(t, os.Remove(filepath.Join(dir, "modules/m/passwd.tf")))
	f.good(Load(dir).Name)
	if n := f.asked.Load(); n > 12 { // 6, and those that met the directory in between
		t.Errorf("%d readers were started for 6 states of the directory", n)
	}
}

func TestADirectoryMayGoAndComeBack(t *testing.T) {
	dir := specsDir(t)
	f := follow(t, Options{Source: dir, Every: slow})
	name := f.good("").Name
	noError(t, os.Rename(dir, dir+".away"))
	f.bad(condition.Unreachable, dir)
	noError(t, os.Rename(dir+".away", dir))
	f.good(name)
	noError(t, os.Rename(dir, dir+".away"))
	f.bad(condition.Unreachable)
	write(t, filepath.Join(dir, "fleet.hcl"), onePool("7"))
	if r := f.good(""); r.Fleet.Pool("local").Max != 7 {
		t.Errorf("%+v", r)
	}
	write(t, filepath.Join(dir, "more.hcl"), strings.Replace(onePool("7"), "local", "other", 1))
	f.good("")
}

func TestAPollFindsWhatNoNoticeTold(t *testing.T) {
	dir := specsDir(t)
	link := filepath.Join(t.TempDir(), "current")
	noError(t, os.Symlink(dir, link))
	f := follow(t, Options{Source: link})
	f.good("")
	other := specsDir(t)
	write(t, filepath.Join(other, "fleet.hcl"), fleetFiles("", "9")["fleet.hcl"])
	noError(t, os.Symlink(other, link+".new"))
	noError(t, os.Rename(link+".new", link))
	if r := f.good(""); r.Fleet.Pool("p").Max != 9 {
		t.Errorf("%+v", r.Fleet.Pools)
	}
}

func TestASwitchedCheckoutSettlesAtOnce(t *testing.T) {
	repo := gitopstest.New(t)
	fleet := func(tag string) map[string]string {
		files := map[string]string{}
		for i := range 60 {
			files[fmt.Sprintf("%02d.hcl", i)] = fmt.Sprintf("pool \"p%02d\" {\n  module = \"local\"\n  max = 1\n  user_data = file(\"data/%02d\")\n}\n", i, i)
			files[fmt.Sprintf("data/%02d", i)] = strings.Repeat(tag, 100)
		}
		return files
	}
	repo.Commit(fleet("a"))
	repo.Git("checkout", "-q", "-b", "other")
	repo.Commit(fleet("b"))
	f := follow(t, Options{Source: repo.Checkout})
	last := f.good("").Name
	for _, branch := range []string{"main", "other", "main"} {
		repo.Git("checkout", "-q", branch)
		want := Load(repo.Checkout).Name
		for last != want { // a state in between may be seen
			r := f.next()
			last = r.Name
		}
	}
	f.quiet()
}

func TestADirectoryIsReadTheSameInBothProcesses(t *testing.T) {
	dir := specsDir(t)
	write(t, filepath.Join(dir, "try.hcl"), "locals {\n  maybe = try(file(\"absent.txt\"), \"\")\n}\n")
	outside := t.TempDir()
	write(t, filepath.Join(outside, "main.tf"), "\n")
	write(t, filepath.Join(dir, "out.hcl"), fmt.Sprintf("pool \"out\" {\n  module = %q\n  max = 1\n  user_data = local.maybe\n}\n", outside))
	f := follow(t, Options{Source: dir})
	f.good(Load(dir).Name)
	f.quiet()
	write(t, filepath.Join(dir, "absent.txt"), "there\n")
	if r := f.good(Load(dir).Name); r.Fleet.Pool("out").UserData != "there\n" {
		t.Errorf("%q", r.Fleet.Pool("out").UserData)
	}
	write(t, filepath.Join(outside, "main.tf"), "# edited\n")
	f.good(Load(dir).Name)
	f.quiet()
	if n := f.asked.Load(); n > 6 { // 3, and those that met the directory in between
		t.Errorf("%d readers were started for 3 states of the directory", n)
	}
}

func TestAPokeLooksAtOnce(t *testing.T) {
	repo := gitopstest.New(t)
	f := follow(t, Options{Source: repo.FileURL(), Every: slow})
	f.bad(condition.RefMissing)
	commit := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	for range 10 {
		f.Poke()
	}
	f.good(commit)
}
