package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pkg/sftp"
)

// maxDepth bounds the directories that a download follows: what a guest sends is not trusted.
const maxDepth = 200

// Upload copies a local file or directory to the guest by SFTP, with modes and symbolic links.
// A remote path that is an existing directory receives it under its own name; one that ends with a
// slash is none but a directory; a relative one, or one that begins with ~/, starts in the guest's home.
func (c *Client) Upload(ctx context.Context, local, remote string) error {
	return c.withSFTP(ctx, func(s *sftp.Client) error {
		target := remoteHome(remote)
		info, err := s.Stat(target)
		isDir := err == nil && info.IsDir()
		if here, unread := os.Stat(local); unread == nil && !here.IsDir() && !isDir && namesDir(remote) {
			return unwritten(remote, cmp.Or(err, error(syscall.ENOTDIR)))
		}
		if isDir {
			base, err := filepath.Abs(local)
			if err != nil {
				return err
			}
			target = path.Join(target, filepath.Base(base))
		}
		return upload(s, local, target)
	})
}

// namesDir tells whether a path can only be that of a directory.
func namesDir(remote string) bool { return strings.HasSuffix(remote, "/") || path.Base(remote) == "." }

// unwritten is the error of an upload to a path of the guest. SFTP's own name no file, and the one that was being sent is not at
// fault.
func unwritten(remote string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("guest:%s cannot be written: its directory is not there; make it first with \"greenroom run\" and mkdir -p", remote)
	}
	return fmt.Errorf("guest:%s cannot be written: %w", remote, Innermost(err))
}

// Innermost is what is left of an error when all that it was wrapped in is said already.
func Innermost(err error) error {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err
}

// Download copies a file or directory of the guest to a local path, as Upload does the other way
// round. Nothing is written outside the local path, whatever the guest sends.
func (c *Client) Download(ctx context.Context, remote, local string) error {
	err := c.withSFTP(ctx, func(s *sftp.Client) error {
		source := remoteHome(remote)
		info, err := s.Stat(source)
		if err != nil {
			return fmt.Errorf("find %s on the guest: %w", remote, err)
		}
		if here, err := os.Stat(local); err == nil && here.IsDir() {
			return downloadInto(s, source, local, info)
		}
		if !info.IsDir() {
			return downloadFile(s, os.OpenFile, source, local, info) // our user has named it, whatever it is: a link, a device
		}
		return downloadTree(s, source, local, info)
	})
	if here, ok := errors.AsType[*fs.PathError](err); ok { // it has only the last part of the path
		return fmt.Errorf("%s cannot be written: %w", local, here)
	}
	return err
}

// withSFTP lends a session of the SFTP subsystem, which the end of ctx closes.
func (c *Client) withSFTP(ctx context.Context, do func(*sftp.Client) error) error {
	cut := context.AfterFunc(ctx, func() { c.conn.Close() })
	s, err := sftp.NewClient(c.conn, sftp.UseConcurrentWrites(true))
	if cut() && err == nil {
		defer s.Close()
		defer context.AfterFunc(ctx, func() { s.Close() })()
		err = do(s)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// remoteHome turns ~ into the relative path that SFTP resolves against the home directory.
func remoteHome(remote string) string {
	if remote == "" || remote == "~" {
		return "."
	}
	return path.Clean(strings.TrimPrefix(remote, "~/"))
}

// upload copies a tree. Modes of directories come last, because one may forbid writing into it.
func upload(s *sftp.Client, local, remote string) error {
	type mode struct {
		path string
		perm fs.FileMode
	}
	var dirs []mode
	root, err := filepath.EvalSymlinks(local)
	if err != nil {
		return err
	}
	err = filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		target := path.Join(remote, filepath.ToSlash(rel))
		if entry.IsDir() {
			dirs = append(dirs, mode{target, info.Mode().Perm()})
		}
		return uploadOne(s, file, target, info)
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = unwritten(dirs[i].path, s.Chmod(dirs[i].path, dirs[i].perm))
	}
	return err
}

func uploadOne(s *sftp.Client, local, remote string, info fs.FileInfo) error {
	switch info.Mode().Type() {
	case fs.ModeDir:
		return unwritten(remote, s.MkdirAll(remote))
	case fs.ModeSymlink:
		return uploadLink(s, local, remote)
	case 0:
		return uploadFile(s, local, remote, info.Mode().Perm())
	}
	return fmt.Errorf("upload %s: is no file, directory or symbolic link (%s)", local, info.Mode().Type())
}

func uploadLink(s *sftp.Client, local, remote string) error {
	link, err := os.Readlink(local)
	if err != nil {
		return err
	}
	if info, err := s.Lstat(remote); err == nil && info.Mode().Type() == fs.ModeSymlink {
		if err := s.Remove(remote); err != nil {
			return unwritten(remote, err)
		}
	}
	return unwritten(remote, s.Symlink(link, remote))
}

func uploadFile(s *sftp.Client, local, remote string, perm fs.FileMode) error {
	in, err := os.Open(local)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := s.OpenFile(remote, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return unwritten(remote, err)
	}
	_, err = out.ReadFrom(in)
	if unread, ok := errors.AsType[*fs.PathError](err); ok {
		return errors.Join(unread, out.Close())
	}
	return unwritten(remote, cmp.Or(err, out.Chmod(perm), out.Close()))
}

// downloadInto copies to a directory of ours, under the name that our user gave: what the guest says is not trusted, and asked only
// where that is none, as of its home.
func downloadInto(s *sftp.Client, remote, local string, info fs.FileInfo) error {
	name := path.Base(remote)
	if isNoName(name) {
		full, err := s.RealPath(remote)
		if name = path.Base(full); err != nil || isNoName(name) {
			return errors.Join(fmt.Errorf("%s on the guest has no name of its own: name the file or directory to write", remote), err)
		}
	}
	root, err := os.OpenRoot(local)
	if err != nil {
		return err
	}
	defer root.Close()
	if info.IsDir() {
		return downloadDir(s, root, remote, name, info.Mode().Perm(), 0)
	}
	return downloadFile(s, root.OpenFile, remote, name, info)
}

func isNoName(name string) bool { return name == "." || name == ".." || name == "/" }

// downloadTree writes a directory within an os.Root.
func downloadTree(s *sftp.Client, remote, local string, info fs.FileInfo) error {
	if err := os.MkdirAll(local, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(local)
	if err != nil {
		return err
	}
	defer root.Close()
	return downloadDir(s, root, remote, ".", info.Mode().Perm(), 0)
}

func downloadDir(s *sftp.Client, root *os.Root, remote, local string, perm fs.FileMode, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("download %s: more than %d directories deep", remote, maxDepth)
	}
	entries, err := s.ReadDir(remote)
	if err != nil {
		return fmt.Errorf("download %s: %w", remote, err)
	}
	if err := root.MkdirAll(local, 0o700); err != nil {
		return err
	}
	for _, entry := range entries {
		from, to := path.Join(remote, entry.Name()), filepath.Join(local, entry.Name())
		if err := downloadOne(s, root, from, to, entry, depth); err != nil {
			return err
		}
	}
	return root.Chmod(local, perm)
}

func downloadOne(s *sftp.Client, root *os.Root, from, to string, entry fs.FileInfo, depth int) error {
	switch entry.Mode().Type() {
	case fs.ModeDir:
		return downloadDir(s, root, from, to, entry.Mode().Perm(), depth+1)
	case fs.ModeSymlink:
		link, err := s.ReadLink(from)
		if err != nil {
			return fmt.Errorf("download %s: %w", from, err)
		}
		if info, err := root.Lstat(to); err == nil && info.Mode().Type() == fs.ModeSymlink {
			if err := root.Remove(to); err != nil {
				return err
			}
		}
		return root.Symlink(link, to)
	case 0:
		return downloadFile(s, root.OpenFile, from, to, entry)
	}
	return fmt.Errorf("download %s: is no file, directory or symbolic link (%s)", from, entry.Mode().Type())
}

// downloadFile reads to the end of the file rather than to the size that the guest told, because
// files of /proc tell 0.
func downloadFile(s *sftp.Client, open func(string, int, fs.FileMode) (*os.File, error), remote, local string, info fs.FileInfo) error {
	in, err := s.Open(remote)
	if err != nil {
		return fmt.Errorf("download %s: %w", remote, err)
	}
	defer in.Close()
	out, err := open(local, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if here, unread := out.Stat(); unread == nil && here.Mode().IsRegular() { // a device, or a pipe, keeps its own mode
		err = errors.Join(err, out.Chmod(info.Mode().Perm()))
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("download %s: %w", remote, err)
	}
	return nil
}
