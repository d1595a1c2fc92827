package guestd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Stop ends every process of the guest of dir, whether or not guestd itself still lives, and
// removes the directory. It is idempotent: where there is nothing, it has nothing to do.
func Stop(ctx context.Context, dir string) error {
	dir, err := canonical(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	release, err := claim(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return end(ctx, dir, endGrace)
	}
	if err != nil {
		return err
	}
	defer release()
	if err := destroy(ctx, dir, endGrace); err != nil {
		return fmt.Errorf("stop the guest of %s: %w", dir, err)
	}
	return nil
}

// destroy ends the guest of a claimed directory and removes it.
func destroy(ctx context.Context, dir string, grace time.Duration) error {
	if err := checkOurs(dir); err != nil {
		return err
	}
	if err := end(ctx, dir, grace); err != nil {
		return err
	}
	return errors.Join(empty(dir), os.Remove(dir))
}
