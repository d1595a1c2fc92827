package gitops

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"greenroom/reconcile"
)

const (
	settleTries = 40               // looks at a directory that is being written to, debounce apart
	readTries   = 5                // readings of one that changes all the while
	rereadAfter = 30 * time.Second // what has a fault, which may be mended where nobody looks
)

// lookDirectory computes the digest of what the last reading was made of, and has the directory read anew when it differs. A
// directory that is just being written to, as a checkout does, is given a moment to come to rest.
func (s *Source) lookDirectory(ctx context.Context) (reconcile.Revision, bool) {
	digest, err := s.lookAt(s.inputs)
	if err == nil && digest == s.digest && (!s.bad || time.Since(s.read) < rereadAfter) {
		return reconcile.Revision{}, false
	}
	var a answer
	for range readTries {
		if err := s.settle(ctx); err != nil {
			s.digest = ""
			return reconcile.Revision{Fault: gone(s.at.Dir, err)}, true
		}
		a = s.ask(ctx, task{Directory: &directoryTask{Dir: s.at.Dir, Modules: filepath.Join(s.o.StateDir, "modules")}, Within: s.within.directory})
		if s.digest = a.Digest; a.Digest == "" {
			break // it could not be read
		}
		s.inputs = a.Inputs
		if s.digest, err = s.lookAt(s.inputs); err == nil && s.digest == a.Digest {
			break // what was read is what is there
		}
	}
	s.read, s.bad = time.Now(), a.Fault != nil
	return a.revision(), true
}

// settle waits until the directory is the same twice in a row, or has had its time.
func (s *Source) settle(ctx context.Context) error {
	before, err := s.lookAt(s.inputs)
	for range settleTries {
		if err != nil || !sleep(ctx, debounce) {
			break
		}
		var now string
		if now, err = s.lookAt(s.inputs); now == before {
			break
		}
		before = now
	}
	return err
}

func (s *Source) lookAt(in inputs) (string, error) {
	root, err := os.OpenRoot(s.at.Dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	now, err := in.look(root)
	if err != nil {
		return "", err
	}
	return now.digest(), nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
