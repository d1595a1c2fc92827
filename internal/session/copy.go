package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pkg/sftp"

	"greenroom/internal/ssh"
)

// Upload copies a file or directory of this machine to the guest. SFTP's errors name no file: those of the guest come with the
// path there, because the file that was being sent is not at fault.
func Upload(ctx context.Context, guest *ssh.Client, from, to string) error {
	err := guest.Upload(ctx, from, to)
	switch {
	case err == nil || !guests(err) || ctx.Err() != nil:
		return err
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("guest:%s cannot be written: its directory is not there; make it first with \"greenroom run\" and mkdir -p", to)
	}
	return fmt.Errorf("guest:%s cannot be written: %w", to, innermost(err))
}

// Download copies a file or directory of the guest to this machine. What cannot be written here comes with its whole path, of
// which only the last part is in the error.
func Download(ctx context.Context, guest *ssh.Client, from, to string) error {
	err := guest.Download(ctx, from, to)
	if here, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s cannot be written: %w", to, here)
	}
	return err
}

// guests tells whether an error of an upload is the guest's: those of this machine's files are all of type fs.PathError, but
// for making a directory, which an upload does in the guest alone.
func guests(err error) bool {
	if here, ok := errors.AsType[*fs.PathError](err); ok {
		return here.Op == "mkdir"
	}
	_, status := errors.AsType[*sftp.StatusError](err)
	return status || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

func innermost(err error) error {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err
}
