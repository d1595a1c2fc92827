package gitops

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"greenroom/reconcile"
	"greenroom/reconcile/condition"
)

const (
	settleTries = 40               // looks at a directory that is being written to, debounce apart
	rereadAfter = 30 * time.Second // specs with faults, which may be mended where nobody looks
)

// lookDirectory computes the digest of what the last reading was made of, and has the directory read anew when it differs. A
// directory that is just being written to, as a checkout does, is given a moment to come to rest.
func (s *Source) lookDirectory(ctx context.Context) (reconcile.Revision, bool) {
	digest, err := s.lookAt(s.inputs)
	if err == nil && digest == s.digest && (!s.bad || time.Since(s.read) < rereadAfter) {
		return reconcile.Revision{}, false
	}
	var a answer
	for range settleTries {
		if digest, err = s.lookAt(s.inputs); err != nil {
			s.digest = ""
			return reconcile.Revision{Fault: gone(s.at.Dir, err)}, true
		}
		if !sleep(ctx, debounce) {
			return reconcile.Revision{}, false
		}
		if again, err := s.lookAt(s.inputs); err != nil || again != digest {
			continue
		}
		a = s.ask(ctx, task{Directory: &directoryTask{Dir: s.at.Dir, Modules: filepath.Join(s.o.StateDir, "modules")}, Within: s.within.directory})
		if a.Digest == "" {
			break // it could not be read
		}
		s.inputs = a.Inputs
		if now, err := s.lookAt(s.inputs); err == nil && now == a.Digest {
			break // what was read is what is there
		}
	}
	if !a.Done { // it is written to all the time
		return reconcile.Revision{}, false
	}
	s.digest, s.read = a.Digest, time.Now()
	s.bad = a.Fault != nil && a.Fault.Reason == condition.SpecInvalid
	return a.revision(), true
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
