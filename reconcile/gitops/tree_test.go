package gitops

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"greenroom/reconcile/condition"
	"greenroom/reconcile/gitops/gitopstest"
	"greenroom/specs"
)

func TestNothingLeadsOutOfACommit(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret.sh")
	write(t, outside, "echo outside\n")
	withScript := func(path string) string {
		return onePool("1") + "cache \"ci\" {\n  pools = [pool.local]\n  prepare = \"" + path + "\"\n}\n"
	}
	withModule := strings.Replace(onePool("1"), `"local"
  max`, `"./modules/m"
  max`, 1)
	for name, c := range map[string]struct {
		files map[string]string
		links map[string]string
		want  []string
	}{
		"a spec file that is a link": {
			files: map[string]string{"fleet/a.hcl": onePool("1"), "top.hcl": onePool("2")},
			links: map[string]string{"fleet/b.hcl": "../top.hcl"},
			want:  []string{`"b.hcl" is a symbolic link`},
		},
		"a script that is a link to the outside": {
			files: map[string]string{"fleet/a.hcl": withScript("prepare.sh")},
			links: map[string]string{"fleet/prepare.sh": outside},
			want:  []string{`"prepare.sh" is a symbolic link`},
		},
		"a script that is a link within": {
			files: map[string]string{"fleet/a.hcl": withScript("prepare.sh"), "fleet/real.sh": "true\n"},
			links: map[string]string{"fleet/prepare.sh": "real.sh"},
			want:  []string{`"prepare.sh" is a symbolic link`, "put the file itself there"},
		},
		"a script in a directory that is a link": {
			files: map[string]string{"fleet/a.hcl": withScript("scripts/prepare.sh"), "scripts/prepare.sh": "true\n"},
			links: map[string]string{"fleet/scripts": "../scripts"},
			want:  []string{`"scripts/prepare.sh" is a symbolic link, or is reached through one`},
		},
		"a script beyond the specs": {
			files: map[string]string{"fleet/a.hcl": withScript("../prepare.sh"), "prepare.sh": "true\n"},
			want:  []string{"is outside of the spec directory"},
		},
		"a module that is a link": {
			files: map[string]string{"fleet/a.hcl": withModule, "modules/m/main.tf": "\n"},
			links: map[string]string{"fleet/modules": "../modules"},
			want:  []string{`"./modules/m" is no Terraform module`, "symbolic links are not followed"},
		},
		"a module with a link in it": {
			files: map[string]string{"fleet/a.hcl": withModule, "fleet/modules/m/main.tf": "\n"},
			links: map[string]string{"fleet/modules/m/secret.tf": outside},
			want:  []string{"Module cannot be used", "secret.tf", "only regular files"},
		},
		"specs that are a link": {
			files: map[string]string{"real/a.hcl": onePool("1")},
			links: map[string]string{"fleet": "real"},
			want:  []string{"has no directory fleet"},
		},
		"specs that are a file": {
			files: map[string]string{"fleet": onePool("1")},
			want:  []string{"has no directory fleet"},
		},
		"specs that are not there": {
			files: map[string]string{"fleets/a.hcl": onePool("1")},
			want:  []string{"has no directory fleet"},
		},
		"a directory without specs": {
			files: map[string]string{"fleet/README": "none\n"},
			want:  []string{"No spec files"},
		},
		"a spec file with zero bytes": {
			files: map[string]string{"fleet/a.hcl": "pool \"x\x00y\" {\n\x00}\n"},
			want:  []string{"a.hcl line 2", "Invalid character"},
		},
		"a spec file that is a program": {
			files: map[string]string{"fleet/a.hcl": "\x7fELF\x02\x01\x01\x00\x00\xff\xfe"},
			want:  []string{"a.hcl line 1"},
		},
		"a script that is too large": {
			files: map[string]string{"fleet/a.hcl": withScript("big.sh"), "fleet/big.sh": strings.Repeat("#", specs.MaxFileSize+1)},
			want:  []string{"File is too large", "big.sh"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			repo := gitopstest.New(t)
			repo.Write(c.files)
			for link, to := range c.links {
				noError(t, os.MkdirAll(filepath.Dir(filepath.Join(repo.Checkout, link)), 0o700))
				noError(t, os.Symlink(to, filepath.Join(repo.Checkout, link)))
			}
			commit := repo.CommitAndPush(nil)
			r := open(t, Options{Source: repo.FileURL() + "//fleet"}).Read(t.Context(), "")
			mustFault(t, r, condition.SpecInvalid, c.want...)
			if r.Fault.Revision != commit {
				t.Errorf("the fault is of %q", r.Fault.Revision)
			}
		})
	}
}

func TestAScriptMayBeAnyFileOfTheRevision(t *testing.T) {
	repo := gitopstest.New(t)
	program := "\x7fELF\x00\xff\xfe\r\n"
	repo.CommitAndPush(map[string]string{"a.hcl": onePool("1") + "cache \"ci\" {\n  pools = [pool.local]\n  reset = \"bin/reset\"\n}\n", "bin/reset": program})
	r := open(t, Options{Source: repo.FileURL()}).Read(t.Context(), "")
	mustGood(t, r)
	if got := string(r.Fleet.Cache("ci").Reset.Body); got != program {
		t.Errorf("%q", got)
	}
}

func TestASubmoduleIsNotRead(t *testing.T) {
	repo := gitopstest.New(t)
	commit := repo.CommitAndPush(map[string]string{"fleet.hcl": strings.Replace(onePool("1"), `"local"
  max`, `"./sub"
  max`, 1)})
	repo.Git("update-index", "--add", "--cacheinfo", "160000,"+commit+",sub")
	repo.Git("commit", "-q", "-m", "a submodule")
	repo.Push()
	mustFault(t, open(t, Options{Source: repo.FileURL()}).Read(t.Context(), ""), condition.SpecInvalid, `"./sub" is no Terraform module`)
}

// treeOf writes a tree object as it comes, which git's own commands would refuse.
func treeOf(t *testing.T, repo *gitopstest.Repo, entries ...string) string {
	t.Helper()
	var raw strings.Builder
	for _, e := range entries {
		var mode, hash, name string
		if _, err := fmt.Sscanf(e, "%s %s %s", &mode, &hash, &name); err != nil {
			t.Fatal(err)
		}
		sum, err := hex.DecodeString(hash)
		noError(t, err)
		fmt.Fprintf(&raw, "%s %s\x00%s", mode, name, sum)
	}
	cmd := exec.Command("git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally")
	cmd.Dir, cmd.Stdin = repo.Checkout, strings.NewReader(raw.String())
	out, err := cmd.Output()
	noError(t, err)
	return strings.TrimSpace(string(out))
}

func TestNamesInACommitThatLeadElsewhereAreRefused(t *testing.T) {
	repo := gitopstest.New(t)
	spec := strings.Replace(onePool("1"), `"local"
  max`, `"./m"
  max`, 1)
	repo.Commit(map[string]string{"fleet.hcl": spec, "main.tf": "\n"})
	hcl, tf := repo.Git("rev-parse", "HEAD:fleet.hcl"), repo.Git("rev-parse", "HEAD:main.tf")
	for _, name := range []string{"../../../../evil.tf", "a/b.tf", "..", "."} {
		module := treeOf(t, repo, "100644 "+tf+" "+name, "100644 "+tf+" main.tf")
		top := treeOf(t, repo, "100644 "+hcl+" fleet.hcl", "40000 "+module+" m")
		commit := repo.Git("commit-tree", "-m", "evil", top)
		repo.Git("push", "-q", "-f", "origin", commit+":refs/heads/evil")
		f := open(t, Options{Source: repo.FileURL() + "?ref=evil"})
		mustFault(t, f.Read(t.Context(), ""), condition.SpecInvalid, "has an entry with the name")
		noneOutside(t, f.o.StateDir)
	}
}

// noneOutside asserts that no file that a test calls evil was made.
func noneOutside(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Dir(filepath.Dir(dir)), func(path string, _ fs.DirEntry, _ error) error {
		if strings.Contains(filepath.Base(path), "evil.tf") {
			t.Errorf("%s was made", path)
		}
		return nil
	})
	noError(t, err)
}

func TestATreeBombOnlyCostsAFault(t *testing.T) {
	repo := gitopstest.New(t)
	repo.Commit(map[string]string{"fleet.hcl": strings.Replace(onePool("1"), `"local"
  max`, `"./m"
  max`, 1), "main.tf": "\n"})
	hcl, tf := repo.Git("rev-parse", "HEAD:fleet.hcl"), repo.Git("rev-parse", "HEAD:main.tf")
	level := treeOf(t, repo)
	for range 12 {
		var entries []string
		for i := range 10 {
			entries = append(entries, fmt.Sprintf("40000 %s d%d", level, i))
		}
		level = treeOf(t, repo, entries...)
	}
	module := treeOf(t, repo, "40000 "+level+" d", "100644 "+tf+" main.tf")
	commit := repo.Git("commit-tree", "-m", "bomb", treeOf(t, repo, "100644 "+hcl+" fleet.hcl", "40000 "+module+" m"))
	repo.Git("push", "-q", "origin", commit+":refs/heads/bomb")
	f := open(t, Options{Source: repo.FileURL() + "?ref=bomb"})
	r := f.Read(t.Context(), "")
	mustFault(t, r, condition.SpecInvalid, "more than 10000 files and directories")
	if r.Fault.Revision != commit {
		t.Errorf("the fault is of %q", r.Fault.Revision)
	}
}
