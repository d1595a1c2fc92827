package terraform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-version"
	install "github.com/hashicorp/hc-install"
	"github.com/hashicorp/hc-install/product"
	"github.com/hashicorp/hc-install/releases"
	"github.com/hashicorp/hc-install/src"
	"github.com/hashicorp/terraform-exec/tfexec"
)

const (
	versionTimeout  = 30 * time.Second
	downloadTimeout = 5 * time.Minute
)

// findBinary chooses the binary. A configured path always wins: downloads have failed for everyone
// when a signing key expired (https://github.com/hashicorp/hc-install/issues/370).
func (d *Driver) findBinary(ctx context.Context) (path, ver string, err error) {
	if d.opts.Binary != "" {
		v, err := d.versionOf(ctx, d.opts.Binary)
		if err != nil {
			return "", "", fmt.Errorf("%w: the configured %s: %w; set it to a terraform or tofu that runs, or unset it", ErrNoBinary, d.opts.Binary, err)
		}
		return d.opts.Binary, v.String(), nil
	}
	allowed, err := version.NewConstraint(d.opts.Constraint)
	if err != nil {
		return "", "", fmt.Errorf("terraform version constraint %q: %w", d.opts.Constraint, err)
	}
	bin := filepath.Join(d.opts.StateDir, "bin")
	for _, name := range []string{"terraform", "tofu", filepath.Join(bin, "terraform")} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if v, err := d.versionOf(ctx, path); err == nil && allowed.Check(v) {
			return path, v.String(), nil
		}
	}
	return d.install(ctx, allowed, bin)
}

func (d *Driver) install(ctx context.Context, allowed version.Constraints, bin string) (path, ver string, err error) {
	d.opts.Log.Info("installing terraform", "version", allowed.String(), "path", bin)
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	path, err = install.NewInstaller().Ensure(ctx, []src.Source{
		&releases.LatestVersion{Product: product.Terraform, Constraints: allowed, InstallDir: bin, Timeout: downloadTimeout},
	})
	if err == nil {
		var v *version.Version
		if v, err = d.versionOf(ctx, path); err == nil {
			return path, v.String(), nil
		}
	}
	return "", "", fmt.Errorf("%w: none on PATH satisfies %q, and installing one failed: %w; install terraform, or configure the path of a terraform or tofu binary", ErrNoBinary, allowed, err)
}

func (d *Driver) versionOf(ctx context.Context, path string) (*version.Version, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		return nil, errors.New("it is a directory")
	}
	tf, err := tfexec.NewTerraform(d.opts.StateDir, path)
	if err != nil {
		return nil, err
	}
	if err := tf.SetEnv(d.env()); err != nil {
		return nil, err
	}
	// Not cut short by a caller that ends: terraform-exec would leave the child unreaped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), versionTimeout)
	defer cancel()
	d.started.Add(1)
	v, _, err := tf.Version(ctx, true)
	if ctx.Err() != nil { // then the error can't even be formatted, see session.do
		return nil, fmt.Errorf("asking for its version: %w", context.Cause(ctx))
	}
	return v, err
}

// identify asks the binary for its version again when its file has changed since, and returns both. Where that fails, so will
// the run, and it says why.
func (d *Driver) identify() (path, version string) {
	d.known.Lock()
	defer d.known.Unlock()
	now, err := os.Stat(d.binary)
	if err != nil || os.SameFile(now, d.file) && now.ModTime().Equal(d.file.ModTime()) && now.Size() == d.file.Size() {
		return d.binary, d.version
	}
	v, err := d.versionOf(context.Background(), d.binary)
	if err != nil {
		d.opts.Log.Warn("the terraform binary has changed and does not tell its version", "path", d.binary, "err", err)
		return d.binary, d.version
	}
	d.file, d.version = now, v.String()
	return d.binary, d.version
}

// baseEnv are the variables that always reach Terraform.
var baseEnv = []string{"PATH", "HOME", "TMPDIR"}

// terraformEnv is the whole environment of a Terraform process: an allow-list, and what modules
// that make guests on this very host need.
func terraformEnv(extra []string, self, guests, cliConfig string) map[string]string {
	env := map[string]string{
		"GREENROOM_BINARY":     self,
		"GREENROOM_GUESTS_DIR": guests,
		"TF_CLI_CONFIG_FILE":   cliConfig,
		"CHECKPOINT_DISABLE":   "1",
	}
	for _, name := range slices.Concat(extra, baseEnv) {
		if value, ok := os.LookupEnv(name); ok {
			env[name] = value
		}
	}
	return env
}

// env is the environment of a process that needs no CLI configuration.
func (d *Driver) env() map[string]string {
	return terraformEnv(d.opts.Env, d.opts.Self, d.guestsDir(), os.DevNull)
}

func (d *Driver) guestsDir() string { return filepath.Join(d.opts.StateDir, "guests") }
