package ssh_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree describes a directory: modes, contents and link targets by path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		must(t, err)
		info, err := entry.Info()
		must(t, err)
		rel, err := filepath.Rel(dir, path)
		must(t, err)
		content := ""
		switch {
		case entry.Type() == fs.ModeSymlink:
			content, err = os.Readlink(path)
		case entry.Type().IsRegular():
			var text []byte
			text, err = os.ReadFile(path)
			content = string(text)
		}
		must(t, err)
		found[rel] = info.Mode().String() + " " + content
		return nil
	}))
	return found
}

func makeTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "project")
	must(t, os.MkdirAll(filepath.Join(dir, "src", "deep"), 0o750))
	must(t, os.WriteFile(filepath.Join(dir, "src", "run.sh"), []byte("#!/bin/sh\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "src", "deep", "empty"), nil, 0o600))
	must(t, os.Symlink("src/run.sh", filepath.Join(dir, "run")))
	must(t, os.Chmod(filepath.Join(dir, "src"), 0o550))
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "src"), 0o750) })
	return dir
}

func TestDirectoriesTravelBothWaysAsTheyAre(t *testing.T) {
	client, home := dial(t)
	project := makeTree(t)
	must(t, client.Upload(limit(t), project, "~/copy"))
	if diff := cmp.Diff(tree(t, project), tree(t, filepath.Join(home, "copy"))); diff != "" {
		t.Errorf("upload (-here +guest):\n%s", diff)
	}
	must(t, os.Mkdir(filepath.Join(home, "into"), 0o700))
	must(t, client.Upload(limit(t), project, "into"))
	must(t, client.Upload(limit(t), project, "into"))
	if diff := cmp.Diff(tree(t, project), tree(t, filepath.Join(home, "into", "project"))); diff != "" {
		t.Errorf("upload into a directory (-here +guest):\n%s", diff)
	}
	back := t.TempDir()
	must(t, client.Download(limit(t), "copy", back))
	must(t, client.Download(limit(t), "copy", back))
	if diff := cmp.Diff(tree(t, project), tree(t, filepath.Join(back, "copy"))); diff != "" {
		t.Errorf("download (-here +back):\n%s", diff)
	}
	must(t, client.Download(limit(t), "copy/src/run.sh", filepath.Join(back, "single")))
	if info, err := os.Stat(filepath.Join(back, "single")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("one file: %v, %v", info, err)
	}
	must(t, client.Download(limit(t), "/proc/self/status", back))
	if text, err := os.ReadFile(filepath.Join(back, "status")); err != nil || len(text) == 0 {
		t.Errorf("a file of no size came empty: %v", err)
	}
}

func TestWhatCannotBeCopiedIsNamed(t *testing.T) {
	client, home := dial(t)
	if err := client.Download(limit(t), "missing", t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing on the guest: %v", err)
	}
	if err := client.Upload(limit(t), filepath.Join(t.TempDir(), "missing"), "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing here: %v", err)
	}
	if _, _, err := client.Script(limit(t), []byte("mkdir d && mkfifo d/pipe"), nil); err != nil {
		t.Fatal(err)
	}
	if err := client.Download(limit(t), "d", t.TempDir()); err == nil {
		t.Error("a pipe was copied")
	}
	if err := client.Upload(limit(t), filepath.Join(home, "d"), "e"); err == nil {
		t.Error("a pipe was copied")
	}
	ctx, cancel := context.WithCancel(limit(t))
	cancel()
	if err := client.Upload(ctx, home, "e"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestADownloadCannotBeLedOutOfItsDirectory(t *testing.T) {
	client, home := dial(t)
	outside := t.TempDir()
	local := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(home, "trap", "dir"), 0o700))
	must(t, os.WriteFile(filepath.Join(home, "trap", "dir", "evil"), []byte("x"), 0o600))
	must(t, os.MkdirAll(filepath.Join(local, "trap"), 0o700))
	must(t, os.Symlink(outside, filepath.Join(local, "trap", "dir")))
	if err := client.Download(limit(t), "trap", local); err == nil {
		t.Error("no error")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("written outside: %v, %v", entries, err)
	}
}

func TestADownloadGoesWhereItsUserSaysAndNotWhereTheGuestDoes(t *testing.T) {
	client, home := dial(t)
	must(t, os.WriteFile(filepath.Join(home, "f"), []byte("text"), 0o640))
	elsewhere, here := filepath.Join(t.TempDir(), "file"), t.TempDir()
	must(t, os.Symlink(elsewhere, filepath.Join(here, "link")))
	must(t, client.Download(limit(t), "f", filepath.Join(here, "link")))
	if text, err := os.ReadFile(elsewhere); err != nil || string(text) != "text" {
		t.Errorf("through a link: %q, %v", text, err)
	}
	pipe := filepath.Join(here, "pipe")
	must(t, syscall.Mkfifo(pipe, 0o600))
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0)
	must(t, err)
	defer reader.Close()
	must(t, client.Download(limit(t), "f", pipe))
	if info, err := os.Stat(pipe); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode of what is no file was changed: %v, %v", info, err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.Symlink(outside, filepath.Join(here, "f")))
	if err := client.Download(limit(t), "f", here); err == nil {
		t.Error("the name was the guest's, and its link was followed")
	}
	if _, err := os.Lstat(outside); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestAnUploadThatFailsNamesThePathInTheGuest(t *testing.T) {
	client, home := dial(t)
	file := filepath.Join(t.TempDir(), "here.txt")
	must(t, os.WriteFile(file, []byte("here"), 0o600))
	must(t, os.WriteFile(filepath.Join(home, "there.txt"), []byte("there"), 0o600))
	for to, want := range map[string]string{
		"no/dir/x":    `guest:no/dir/x cannot be written: its directory is not there; make it first with "greenroom run" and mkdir -p`,
		"nodir/":      `guest:nodir/ cannot be written: its directory is not there; make it first with "greenroom run" and mkdir -p`,
		"nodir/.":     `guest:nodir/. cannot be written: its directory is not there; make it first with "greenroom run" and mkdir -p`,
		"there.txt/":  "guest:there.txt/ cannot be written: not a directory",
		"there.txt/x": "guest:there.txt/x cannot be written: ",
	} {
		if err := client.Upload(limit(t), file, to); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("to %s: %v, want %s", to, err, want)
		}
	}
	if text, err := os.ReadFile(filepath.Join(home, "there.txt")); err != nil || string(text) != "there" {
		t.Errorf("afterwards there is %q, %v", text, err)
	}
	if err := client.Upload(limit(t), filepath.Dir(file), "made/"); err != nil { // as cp -r does
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(home, "made", "here.txt")); err != nil {
		t.Error(err)
	}
}
