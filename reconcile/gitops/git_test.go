package gitops

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops/gitopstest"
)

func TestEachPushToTheFollowedBranchIsOffered(t *testing.T) {
	repo := gitopstest.New(t)
	first := repo.CommitAndPush(fleetFiles("fleet", "2"))
	f := follow(t, Options{Source: repo.FileURL() + "//fleet?ref=main"})
	r := f.good(first)
	if got := string(r.Fleet.Cache("ci").Prepare.Body); got != "echo ready for 2\n" {
		t.Errorf("the script is %q", got)
	}
	if dir := r.Fleet.Pool("p").ModuleDir; !strings.HasPrefix(dir, filepath.Join(f.o.StateDir, "modules", "sha256-")) {
		t.Errorf("the module is in %s", dir)
	} else if _, err := os.Stat(filepath.Join(dir, "main.tf")); err != nil {
		t.Error(err)
	}
	if r.Detached || r.Fleet.Dir != "" {
		t.Errorf("detached %t, directory %q", r.Detached, r.Fleet.Dir)
	}
	f.adopt(first)
	f.quiet()

	second := repo.CommitAndPush(fleetFiles("fleet", "3"))
	r = f.good(second)
	if r.Detached || r.Fleet.Pool("p").Max != 3 || string(r.Fleet.Cache("ci").Prepare.Body) != "echo ready for 3\n" {
		t.Errorf("%+v", r)
	}
	f.adopt(second)

	third := repo.CommitAndPush(map[string]string{"fleet/fleet.hcl": "pool \"p\" {\n  module = \"local\"\n  max = \"many\"\n}\n"})
	bad := f.bad(condition.SpecInvalid, "fleet.hcl line 3", `max = "many"`, third[:12])
	if bad.Fault.Revision != third {
		t.Errorf("the fault is of revision %q", bad.Fault.Revision)
	}
	f.quiet()
	f.good(repo.CommitAndPush(fleetFiles("fleet", "4")))
}

func TestASourceThatCameBackIsOfferedAgain(t *testing.T) {
	repo := gitopstest.New(t)
	commit := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	server := repo.Serve()
	f := follow(t, Options{Source: server.URL})
	f.good(commit)
	server.SetDown(true)
	f.bad(condition.Unreachable, "503")
	server.SetDown(false)
	f.Poke()
	f.good(commit)

	noError(t, os.Rename(repo.Dir, repo.Dir+".away"))
	f.bad(condition.Unreachable)
	noError(t, os.Rename(repo.Dir+".away", repo.Dir))
	f.Poke()
	f.good(commit)
}

func TestACommitWhoseModulesCouldNotBeStoredIsTriedAgain(t *testing.T) {
	repo := gitopstest.New(t)
	commit := repo.CommitAndPush(fleetFiles("", "2"))
	state := t.TempDir()
	write(t, filepath.Join(state, "modules"), "in the way\n")
	f := follow(t, Options{Source: repo.FileURL(), StateDir: state})
	if r := f.bad(condition.Unreachable, "storing the module", "not a directory", "tried again"); r.Fault.Revision != commit {
		t.Errorf("the fault is of revision %q", r.Fault.Revision)
	}
	noError(t, os.Remove(filepath.Join(state, "modules")))
	f.Poke()
	f.good(commit)
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestARewrittenBranchIsDetached(t *testing.T) {
	repo := gitopstest.New(t)
	base := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	f := follow(t, Options{Source: repo.FileURL()})
	f.good(base)
	tip := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("2")})
	f.good(tip)
	f.adopt(tip)

	repo.Git("reset", "-q", "--hard", base)
	other := repo.Commit(map[string]string{"fleet.hcl": onePool("3")})
	repo.Push("--force")
	if r := f.good(other); !r.Detached {
		t.Error("the revision passes for a descendant of the one in force")
	}
	f.adopt(other) // approved
	if r := f.good(repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("4")})); r.Detached {
		t.Error("the revision does not pass for a descendant of the one in force")
	}
	f.adopt(strings.Repeat("1", 40))
	if r := f.good(repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("5")})); !r.Detached {
		t.Error("the revision passes for a descendant of one that nobody knows")
	}
	f.adopt("dir:0123456789abcdef")
	if r := f.good(repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("6")})); r.Detached {
		t.Error("a first commit after a directory is held to be detached")
	}
}

func TestABranchThatIsGoneIsAFaultWithTheOthersNamed(t *testing.T) {
	repo := gitopstest.New(t)
	commit := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	f := follow(t, Options{Source: repo.FileURL() + "?ref=live"})
	f.bad(condition.RefMissing, `"live"`, `"main"`)
	f.quiet()
	repo.Git("push", "-q", "origin", "main:live")
	f.good(commit)
	repo.Git("push", "-q", "origin", ":live")
	f.bad(condition.RefMissing, `"live"`, `"main"`)
	repo.Git("push", "-q", "origin", "main:live")
	f.good(commit)
}

func TestARepositoryWithoutCommitsIsAFault(t *testing.T) {
	repo := gitopstest.New(t)
	f := follow(t, Options{Source: repo.FileURL()})
	f.bad(condition.RefMissing, "first commit")
	f.good(repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")}))
}

func TestATokenOpensTheRepositoryAndIsNeverShown(t *testing.T) {
	const token, wrong = "gr-right-7f3a9c", "gr-wrong-51d2e8"
	repo := gitopstest.New(t)
	commit := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	server := repo.ServeTLS(token)
	t.Setenv("SSL_CERT_FILE", server.CertFile)
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, wrong+"\n")
	f := follow(t, Options{Source: server.URL + "?ref=main", TokenFile: file})
	r := f.bad(condition.Unauthorized, file)
	if strings.Contains(r.Fault.Message, wrong) {
		t.Errorf("the fault has the token: %v", r.Fault)
	}
	write(t, file, token+"\n")
	f.Poke()
	f.good(commit)
	f.stop()
	if text := f.log.String(); strings.Contains(text, token) || strings.Contains(text, wrong) {
		t.Errorf("the log has a token:\n%s", text)
	}

	t.Run("by the environment", func(t *testing.T) {
		t.Setenv("GREENROOM_SPECS_TOKEN", "ann:"+token)
		mustGood(t, open(t, Options{Source: server.URL}).Read(t.Context(), "main"))
	})
	t.Run("or not at all", func(t *testing.T) {
		mustFault(t, open(t, Options{Source: server.URL}).Read(t.Context(), "main"), condition.Unauthorized, "--specs-token-file", "GREENROOM_SPECS_TOKEN")
	})
	t.Run("from a host that is not trusted", func(t *testing.T) {
		t.Setenv("SSL_CERT_FILE", os.DevNull)
		mustFault(t, open(t, Options{Source: server.URL}).Read(t.Context(), "main"), condition.Unreachable, "certificate")
	})
}

func TestAnyRefOfTheRepositoryCanBeRead(t *testing.T) {
	repo := gitopstest.New(t)
	base := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	repo.Git("checkout", "-q", "-b", "feature/x")
	inner := repo.Commit(map[string]string{"fleet.hcl": onePool("2")})
	tip := repo.Commit(map[string]string{"fleet.hcl": onePool("3")})
	repo.Git("tag", "-a", "-m", "a release", "v1")
	repo.Git("tag", "light", inner)
	repo.Push()
	repo.Git("push", "-q", "origin", "v1", "light", "HEAD~1:refs/pull/7/head")
	server := repo.Serve()
	for _, url := range []string{repo.FileURL(), server.URL} {
		f := open(t, Options{Source: url + "?ref=main"})
		for _, c := range []struct{ ref, commit string }{
			{"", base},
			{"HEAD", base},
			{"main", base},
			{"feature/x", tip},
			{"refs/heads/feature/x", tip},
			{"v1", tip},
			{"light", inner},
			{"refs/pull/7/head", inner},
			{tip, tip},
			{inner, inner},
			{base, base},
		} {
			r := f.Read(t.Context(), c.ref)
			if r.Fault != nil || r.Name != c.commit {
				t.Errorf("ref %q is %q, want %q; fault %v", c.ref, r.Name, c.commit, r.Fault)
			}
		}
		for _, ref := range []string{"nowhere", "refs/heads/nowhere", strings.Repeat("a", 40), "-x", "a..b", "a b", strings.Repeat("x", 300), "heads/../main"} {
			mustFault(t, f.Read(t.Context(), ref), condition.RefMissing)
		}
	}
}

func TestACommitThatNoRefNamesAnyMoreIsFoundInTheHistory(t *testing.T) {
	repo := gitopstest.New(t)
	repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	repo.Git("checkout", "-q", "-b", "side")
	inner := repo.Commit(map[string]string{"fleet.hcl": onePool("2")})
	repo.Commit(map[string]string{"fleet.hcl": onePool("3")})
	repo.Push()
	f := open(t, Options{Source: repo.FileURL()})
	r := f.Read(t.Context(), inner)
	mustGood(t, r)
	if r.Name != inner || r.Fleet.Pool("local").Max != 2 {
		t.Errorf("%+v", r)
	}
}

func TestATagOrACommitIsFollowedToo(t *testing.T) {
	repo := gitopstest.New(t)
	first := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("1")})
	repo.Git("tag", "-a", "-m", "live", "live")
	repo.Git("push", "-q", "origin", "live")
	second := repo.CommitAndPush(map[string]string{"fleet.hcl": onePool("2")})
	pinned := follow(t, Options{Source: repo.FileURL() + "?ref=" + first})
	pinned.good(first)
	f := follow(t, Options{Source: repo.FileURL() + "?ref=live"})
	f.good(first)
	repo.Git("tag", "-f", "-a", "-m", "live", "live")
	repo.Git("push", "-q", "-f", "origin", "live")
	f.good(second)
	pinned.quiet()
}

func TestADirectorySourceHasNoOtherRevisions(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "fleet.hcl"), onePool("1"))
	f := open(t, Options{Source: dir})
	mustFault(t, f.Read(context.Background(), "main"), condition.RefMissing, dir)
}
