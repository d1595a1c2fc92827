package specs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"greenroom/specs/examples"
)

// ErrExists is returned by [Init] when it would overwrite a file.
var ErrExists = errors.New("file exists already")

// Init writes a commented fleet to start from into dir, which it creates where it is missing: fleet.hcl and
// the scripts it names, on the bundled "local" module. It writes nothing, and returns an error that is
// ErrExists, when one of the files is there already, unless force is set.
func Init(dir string, force bool) error {
	starter, err := fs.Sub(examples.FS, "local")
	if err != nil {
		return err
	}
	files, err := starterFiles(starter)
	if err != nil {
		return err
	}
	if present, _ := filepath.Glob(filepath.Join(dir, "*.hcl")); len(present) > 0 && !force {
		return fmt.Errorf("%s: %w; a second fleet beside it would be one with it: choose another directory, or pass --force", present[0], ErrExists)
	}
	for _, name := range files {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil && !force {
			return fmt.Errorf("%s: %w; choose another directory, or pass --force to overwrite it", filepath.Join(dir, name), ErrExists)
		}
	}
	for _, name := range files {
		if err := copyOut(starter, name, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("write the starter fleet: %w", err)
		}
	}
	return nil
}

func starterFiles(starter fs.FS) (names []string, err error) {
	err = fs.WalkDir(starter, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	})
	return names, err
}

func copyOut(from fs.FS, name, to string) error {
	body, err := fs.ReadFile(from, name)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if filepath.Ext(name) == ".sh" {
		mode = 0o755
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, body, mode)
}
