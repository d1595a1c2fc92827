package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"greenroom/internal/guestd"
)

// What is not for argv comes to `guestd start` by environment.
const (
	envGuestsDir      = "GREENROOM_GUESTS_DIR"
	envIncarnation    = "GREENROOM_INCARNATION"
	envAuthorizedKeys = "GREENROOM_AUTHORIZED_KEYS"
	envUserData       = "GREENROOM_USER_DATA"
	maxGuestSpec      = 1 << 20
)

// newGuestd is what the bundled local module calls; see package guestd.
func newGuestd() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "guestd",
		Short:  "Sandbox guests on this host, as the bundled local module makes them",
		Hidden: true,
		Args:   cobra.NoArgs,
	}
	cmd.AddCommand(newGuestdStart(), newGuestdServe(), newGuestdStop(), newGuestdStatus())
	return cmd
}

// guestDir resolves a relative directory against the daemon's directory for guests.
func guestDir(dir string) (string, error) {
	switch base := os.Getenv(envGuestsDir); {
	case dir == "":
		return "", usage("--dir is missing: the guest's own directory")
	case filepath.IsAbs(dir):
		return dir, nil
	case base == "":
		return "", usage("--dir %q is relative, and %s, which it would be relative to, is not set", dir, envGuestsDir)
	default:
		return filepath.Join(base, dir), nil
	}
}

func newGuestdStart() *cobra.Command {
	var dir, spec string
	var birth guestd.Birth
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "start --dir DIR --name NAME",
		Short: "Start a guest, or find it alive, and print its guest.json",
		Long: "Start a guest and print its guest.json once it answers.\n\n" +
			"The authorized keys (one a line), the user data and the incarnation come from the JSON file of --spec, or from\n" +
			envAuthorizedKeys + ", " + envUserData + " and " + envIncarnation + ". A relative DIR is one in " + envGuestsDir + ".",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := guestDir(dir)
			if err != nil {
				return err
			}
			options := guestd.Options{Dir: dir}
			if options.Birth, err = birthOf(birth, spec); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			info, err := guestd.Start(ctx, options)
			if err != nil {
				return err
			}
			return printGuest(cmd.OutOrStdout(), info)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the guest's own directory")
	cmd.Flags().StringVar(&birth.Name, "name", "", "the guest's name")
	cmd.Flags().StringVar(&birth.Isolation, "isolation", guestd.IsolationProcess, "process or namespaces")
	cmd.Flags().StringVar(&spec, "spec", "", "JSON file (mode 0600) with incarnation, authorized_keys, user_data")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "give up after this time")
	return cmd
}

// birthOf completes what the flags say with the spec file or the environment.
func birthOf(flags guestd.Birth, spec string) (guestd.Birth, error) {
	birth := flags
	if spec != "" {
		text, err := readSecret(spec)
		if err != nil {
			return birth, err
		}
		if birth, err = guestd.ParseBirth(text); err != nil {
			return birth, err
		}
		birth.Name, birth.Isolation = flags.Name, flags.Isolation
		return birth, nil
	}
	incarnation, err := strconv.Atoi(os.Getenv(envIncarnation))
	if err != nil {
		return birth, usage("%s=%q is not a number; set it, or give --spec", envIncarnation, os.Getenv(envIncarnation))
	}
	birth.Incarnation = incarnation
	birth.AuthorizedKeys = strings.Split(os.Getenv(envAuthorizedKeys), "\n")
	birth.UserData = os.Getenv(envUserData)
	return birth, nil
}

// readSecret refuses a file that others may read.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %04o and others may read it: chmod 600 it", path, info.Mode().Perm())
	case info.Size() > maxGuestSpec:
		return nil, fmt.Errorf("%s has %d bytes: at most %d are allowed", path, info.Size(), maxGuestSpec)
	}
	return os.ReadFile(path)
}

func newGuestdServe() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "Be a guest; run by guestd start",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return guestd.Serve(cmd.Context(), dir) },
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the guest's own directory")
	return cmd
}

func newGuestdStop() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "stop --dir DIR",
		Short: "End all processes of a guest and remove its directory",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := guestDir(dir)
			if err != nil {
				return err
			}
			return guestd.Stop(cmd.Context(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the guest's own directory")
	return cmd
}

func newGuestdStatus() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "status --dir DIR",
		Short: "Print the guest.json of a guest that lives and answers; exit 1 otherwise",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := guestDir(dir)
			if err != nil {
				return err
			}
			info, err := guestd.Status(cmd.Context(), dir)
			if err != nil {
				return err
			}
			return printGuest(cmd.OutOrStdout(), info)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the guest's own directory")
	return cmd
}

func printGuest(w io.Writer, info guestd.Info) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(info)
}
