package specs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// readInside reads a file that a spec names by a path relative to the spec directory.
func (d *decoder) readInside(name string) ([]byte, error) {
	if path.IsAbs(name) || strings.Contains(name, `\`) || slices.Contains(strings.Split(name, "/"), "..") {
		return nil, errLeaves
	}
	return d.read(path.Clean(name))
}

var (
	bundledName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	// onThisHost finds absolute paths, and Terraform's other ways to name a directory of the host that it runs on.
	onThisHost     = regexp.MustCompile(`^([A-Za-z0-9]+::)*(/|\.|~|(?i:file:))`)
	registrySource = regexp.MustCompile(`^([a-z0-9.-]+\.[a-z]+(:[0-9]+)?/)?[0-9A-Za-z_-]+/[0-9A-Za-z_-]+/[0-9a-z]+(//.+)?$`)
)

// moduleDir returns the directory of a module source that is a path, and "" for others, as Terraform tells
// them apart: https://developer.hashicorp.com/terraform/language/modules/sources.
func (d *decoder) moduleDir(at hcl.Range, source string) string {
	switch {
	case strings.HasPrefix(source, "./"), strings.HasPrefix(source, "../"), source == ".", source == "..":
		return d.insideModule(at, source)
	case d.opts.Absolute != nil && !slices.Contains(d.opts.Absolute, filepath.Clean(source)) && onThisHost.MatchString(source):
		d.report(at, sumModuleNotAllowed, "%q is a place on the host that reads these specs, and specs that are handed to it may not name this one. "+
			"Put the module into the spec directory and write its path with a leading \"./\", or name a git:: source elsewhere or a registry address.", source)
	case filepath.IsAbs(source):
		dir := filepath.Clean(source)
		d.checkModule(at, source, os.DirFS(dir))
		return dir
	case bundledName.MatchString(source):
		if d.opts.Bundled != nil && !slices.Contains(d.opts.Bundled, source) {
			d.report(at, sumUnknownModule, "No bundled module is called %q. %s A module in the spec directory is written with a leading \"./\".",
				source, hint(source, slices.Clone(d.opts.Bundled)))
		}
	case strings.Contains(source, "::"), registrySource.MatchString(source):
	default:
		d.report(at, sumBadModule, "%q is not a module source. Write the name of a bundled module (local), a path that begins with ./ or /, "+
			"a git:: source, or a registry address (namespace/name/provider).", source)
	}
	return ""
}

func (d *decoder) insideModule(at hcl.Range, source string) string {
	name := path.Clean(source)
	if !fs.ValidPath(name) {
		d.report(at, sumLeaves, "The module %q is outside of the spec directory. Move it into the directory, or name it by its absolute path.", source)
		return ""
	}
	sub, err := fs.Sub(d.fsys, name)
	if err == nil {
		d.checkModule(at, source, sub)
	}
	return filepath.Join(d.dir, filepath.FromSlash(name))
}

func (d *decoder) checkModule(at hcl.Range, source string, dir fs.FS) {
	entries, err := fs.ReadDir(dir, ".")
	if err == nil && !slices.ContainsFunc(entries, isTerraform) {
		err = errors.New("it has no file whose name ends in .tf or .tf.json")
	}
	if err != nil {
		d.report(at, sumModuleNotFound, "The directory %q is no Terraform module: %v. Create it, or correct the path, which is relative to the spec directory.",
			source, pathCause(err))
	}
}

func isTerraform(e fs.DirEntry) bool {
	return !e.IsDir() && (strings.HasSuffix(e.Name(), ".tf") || strings.HasSuffix(e.Name(), ".tf.json"))
}

// pathCause drops the operation and the path from err, because the path is said already.
func pathCause(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
