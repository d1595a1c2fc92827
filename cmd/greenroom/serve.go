package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"greenroom/internal/server"
	"greenroom/reconcile/gitops"
)

func newServe() *cobra.Command {
	var o server.Options
	var urlFile, hookFile, backendFile, format, level string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server: reconcile the specs and lease the guests",
		Args:  exactArgs(),
	}
	flags := cmd.Flags()
	stateDirFlag(cmd, &o.StateDir)
	flags.StringVar(&o.Specs, "specs", "specs", "the fleet's HCL files: a directory, or https://…/fleet.git//path?ref=main, ssh://, git@host:org/fleet.git, file://")
	flags.StringVar(&o.Source.TokenFile, "specs-token-file", "", "file with the token for specs over https (or GREENROOM_SPECS_TOKEN)")
	flags.StringVar(&o.Source.KeyFile, "specs-key-file", "", "file with the private key for specs over ssh")
	flags.StringVar(&o.Source.KnownHosts, "specs-known-hosts", "", "file with the keys of the hosts that serve specs over ssh, as known_hosts of OpenSSH")
	flags.DurationVar(&o.Source.Every, "specs-every", 0, "time between two looks at the specs (default 30s for a repository, 2s for a directory)")
	flags.StringVar(&o.Listen, "listen", "127.0.0.1:7070", "TCP address of the API")
	flags.StringVar(&o.Terraform.Binary, "terraform", "", "terraform or tofu binary (default: found on PATH, or installed)")
	flags.StringVar(&o.Terraform.Mirror, "mirror", "", "provider filesystem mirror; providers come from there and nowhere else")
	flags.StringSliceVar(&o.Terraform.Env, "env", nil, "names of environment variables to hand to Terraform, such as its providers' credentials")
	flags.StringVar(&backendFile, "backend-file", "", "JSON file with the backend of Terraform's states (default: files in the state directory)")
	flags.IntVar(&o.Terraform.Concurrency, "concurrency", 0, "most Terraform runs at once (default 4)")
	flags.StringVar(&urlFile, "redis-url-file", "", "file with the URL of Redis (or GREENROOM_REDIS_URL; default: the embedded store)")
	flags.StringVar(&o.TakeStore, "take-store", "", "name of the server that the store is taken from, which is gone for good: machines that only its states know are lost")
	flags.StringVar(&hookFile, "hook-secret-file", "", "file with the secret that webhooks are signed with (or GREENROOM_HOOK_SECRET; default: no webhooks)")
	flags.StringVar(&format, "log-format", "text", "text or json")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error; \"greenroom log level\" changes it while the server runs")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.Log, o.LogLevel, err = logger(cmd, format, level); err != nil {
			return err
		}
		redis.SetLogger(redisLog{o.Log})
		if err := sensible(cmd, o); err != nil {
			return err
		}
		if o.RedisURL, err = redisURL(urlFile); err != nil {
			return err
		}
		if o.HookSecret, err = hookSecret(hookFile); err != nil {
			return err
		}
		if o.Terraform.Mirror, err = mirrorDir(o.Terraform.Mirror); err != nil {
			return err
		}
		if o.Terraform.Backend, err = stateBackend(backendFile); err != nil {
			return err
		}
		if o.Specs, o.StateDir, err = directories(o.Specs, o.StateDir); err != nil {
			return err
		}
		return serve(cmd.Context(), o)
	}
	return cmd
}

// sensible refuses numbers that are out of range. Zero stands for the default, and is no number that anybody gives.
func sensible(cmd *cobra.Command, o server.Options) error {
	switch {
	case o.Terraform.Concurrency < 1 && cmd.Flags().Changed("concurrency"):
		return usage("--concurrency %d, want a number from 1 on", o.Terraform.Concurrency)
	case o.Source.Every <= 0 && cmd.Flags().Changed("specs-every"):
		return usage("--specs-every %v, want a time above 0", o.Source.Every)
	}
	return nil
}

// mirrorDir is the mirror as an absolute path: Terraform runs elsewhere. Without it every run would fail, each at its first step.
func mirrorDir(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("--mirror: there is no directory %s; make one with \"terraform providers mirror\", or leave --mirror out", dir)
	}
	return filepath.Abs(dir)
}

// unset are the names of variables that are not there.
func unset(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, ok := os.LookupEnv(name); return ok })
}

func serve(ctx context.Context, o server.Options) error {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" { // else somebody has decided
		go tendMemory(ctx)
	}
	s, err := server.New(o)
	if err != nil {
		return err
	}
	for _, name := range unset(o.Terraform.Env) {
		o.Log.Warn("Terraform runs without a variable that --env names", "err", name+" is not set")
	}
	o.Log.Info("serving", "addr", s.Addr().String(), "path", o.StateDir, "source", o.Specs)
	return s.Run(ctx)
}

// logger is the server's log, whose level can be changed while it runs.
func logger(cmd *cobra.Command, format, level string) (*slog.Logger, *slog.LevelVar, error) {
	first, err := server.ParseLevel(level)
	if err != nil {
		return nil, nil, usage("--log-level %q, want debug, info, warn or error", level)
	}
	l := &slog.LevelVar{}
	l.Set(first)
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), o)), l, nil
	case "json":
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), o)), l, nil
	}
	return nil, nil, usage("--log-format %q, want text or json", format)
}

// redisURL never comes from a flag: it may hold a password, and every user of the machine can read a command line.
func redisURL(file string) (string, error) {
	if file == "" {
		return os.Getenv("GREENROOM_REDIS_URL"), nil
	}
	text, err := readSecret(file)
	url := strings.TrimSpace(string(text))
	if err == nil && url == "" { // the embedded store would know nothing of the guests that Redis does
		err = fmt.Errorf("%s is empty; leave --redis-url-file out to use the embedded store", file)
	}
	if err != nil {
		return "", fmt.Errorf("read the URL of Redis: %w", err)
	}
	return url, nil
}

func hookSecret(file string) ([]byte, error) {
	if file == "" {
		return []byte(os.Getenv("GREENROOM_HOOK_SECRET")), nil
	}
	secret, err := readSecret(file)
	if err == nil && len(bytes.TrimSpace(secret)) == 0 {
		err = fmt.Errorf("%s is empty; leave --hook-secret-file out to have no webhooks", file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the secret of the webhooks: %w", err)
	}
	return secret, nil
}

// stateBackend reads what may hold credentials. A file that says nothing never means the default: states that are elsewhere would
// be taken for empty ones.
func stateBackend(file string) (json.RawMessage, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readSecret(file)
	if err == nil && (len(text) == 0 || string(text) == "null") {
		err = fmt.Errorf("%s names none; leave --backend-file out to keep the states in the state directory", file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the backend of Terraform's states: %w", err)
	}
	return text, nil
}

func directories(specs, state string) (string, string, error) {
	if dir, ok := gitops.Directory(specs); ok {
		info, err := os.Stat(dir)
		if err == nil && info.Mode().IsRegular() {
			return "", "", fmt.Errorf("--specs %s is a file: name its directory, %s", specs, filepath.Dir(dir))
		}
		if err != nil || !info.IsDir() {
			return "", "", fmt.Errorf("there is no directory %s with specs; make one with \"greenroom spec init %s\", or name another with --specs", specs, specs)
		}
		specs = dir
	}
	state, err := filepath.Abs(state)
	return specs, state, err
}
