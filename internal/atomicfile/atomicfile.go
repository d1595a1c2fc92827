// Package atomicfile replaces files, so that who reads one finds the old or the new contents, whole.
//
// It exists so that what such a swap leaves after a power cut is decided once: a token that was revoked, or an approval that was
// used, must not come back. A rename alone does not promise that: until the directory is synced the disk may know the old file only.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// Write replaces a file, or makes it, and returns when the disk has it. An error leaves the old contents or the new ones.
//
// Only the owner may read the file, from its first byte on. A symbolic link of that name is replaced; what it leads to is not
// touched.
func Write(name string, body []byte) error { return write(name, body, (*os.File).Sync) }

// Swap is Write but leaves it to the system when the disk gets the file, and waits for no disk. After a crash of the machine the
// file may be the old one, the new one or empty: it is for what is of no use then, or made anew.
func Swap(name string, body []byte) error {
	return swap(name, body, func(*os.File) error { return nil })
}

func write(name string, body []byte, sync func(*os.File) error) error {
	if err := swap(name, body, sync); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(sync(dir), dir.Close())
}

func swap(name string, body []byte, sync func(*os.File) error) error {
	next, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = next.Write(body)
	if err = errors.Join(err, sync(next), next.Close()); err == nil {
		err = os.Rename(next.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	return nil
}
