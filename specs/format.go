package specs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format lays out src in the canonical style of HCL. What does not parse is returned as it is, because its
// layout would be a guess.
func Format(src []byte) []byte {
	if _, diags := parse(src, ""); diags.HasErrors() {
		return src
	}
	return hclwrite.Format(src)
}

// FormatFiles lays out one spec file, or those of a directory that [Load] would read, and returns the paths of
// those that were not in the canonical style. They are replaced only when write is set. A file that does not
// parse is left alone and gives an error, after the others were done.
func FormatFiles(name string, write bool) (changed []string, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("%w; name a spec file or a directory of them", err)
	}
	files := []string{name}
	if info.IsDir() {
		if files, err = specPaths(name); err != nil {
			return nil, err
		}
	}
	var errs []error
	for _, file := range files {
		differs, err := formatFile(file, write)
		if differs {
			changed = append(changed, file)
		}
		errs = append(errs, err)
	}
	return changed, errors.Join(errs...)
}

func specPaths(dir string) ([]string, error) {
	names, diags := specNames(os.DirFS(dir))
	if diags.HasErrors() {
		return nil, fmt.Errorf("%s: %s: %s", dir, diags[0].Summary, diags[0].Detail)
	}
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
	}
	return names, nil
}

func formatFile(name string, write bool) (differs bool, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return false, err
	}
	if info.Size() > MaxFileSize || !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s is not a regular file of at most %d bytes, as spec files are", name, MaxFileSize)
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return false, err
	}
	if _, diags := parse(src, name); diags.HasErrors() {
		return false, fmt.Errorf("%s does not parse: %s; run \"greenroom spec validate\" and mend it first", name, diags[0].Summary)
	}
	laid := Format(src)
	if bytes.Equal(src, laid) {
		return false, nil
	}
	if !write {
		return true, nil
	}
	return true, replace(name, laid, info.Mode().Perm())
}

// replace swaps a file for its new contents, or creates it, so that a server that watches it never reads half of it. Unlike
// internal/atomicfile, which this package must not know, it keeps a file's mode and goes where a link leads: the files are people's.
// Nor is the directory synced: what a power cut brings back is the old file, whole, and people ask once more.
func replace(name string, body []byte, mode fs.FileMode) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".fmt-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(body)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
