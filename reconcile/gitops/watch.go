package gitops

import (
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
)

// maxWatched is how many directories are watched at most; changes in others are seen at the next look.
const maxWatched = 500

// watcher hints that the files of a spec directory may have changed. It may miss changes: the digest is what counts.
type watcher struct {
	dir     string            // of the specs
	notify  *fsnotify.Watcher // nil: there is none
	changed chan struct{}
	done    chan struct{}
	log     *slog.Logger
}

func watch(dir string, log *slog.Logger) *watcher {
	w := &watcher{dir: dir, changed: make(chan struct{}, 1), done: make(chan struct{}), log: log}
	var err error
	if w.notify, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("changes of the specs are seen only every now and then, because the system gives no notice of them", "err", err)
		close(w.done)
		return w
	}
	go w.run()
	return w
}

func (w *watcher) run() {
	defer close(w.done)
	for {
		select {
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			if e.Op == fsnotify.Chmod || filepath.Dir(e.Name) == filepath.Dir(w.dir) && e.Name != w.dir { // what is beside the specs
				continue
			}
		case _, ok := <-w.notify.Errors: // events were lost
			if !ok {
				return
			}
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// follow watches the directories of everything that a fleet is read from, and no others.
func (w *watcher) follow(in inputs) {
	if w.notify == nil {
		return
	}
	wanted := map[string]bool{w.dir: true, filepath.Dir(w.dir): true} // the latter for a directory that comes back
	for _, name := range in.Files {
		wanted[filepath.Dir(filepath.Join(w.dir, filepath.FromSlash(name)))] = true
	}
	for _, name := range in.Modules {
		if !filepath.IsAbs(name) {
			name = filepath.Join(w.dir, filepath.FromSlash(name))
		}
		addTree(wanted, name)
	}
	for _, path := range w.notify.WatchList() {
		if !wanted[path] {
			_ = w.notify.Remove(path)
		}
		delete(wanted, path)
	}
	for _, path := range slices.Sorted(maps.Keys(wanted)) {
		if len(w.notify.WatchList()) >= maxWatched {
			return
		}
		if err := w.notify.Add(path); err != nil {
			w.log.Debug("not watched", "path", path, "err", err)
		}
	}
}

// addTree adds the directories of a module, as far as the limit goes.
func addTree(wanted map[string]bool, top string) {
	_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, _ error) error {
		switch {
		case len(wanted) > maxWatched:
			return fs.SkipAll
		case e == nil || !e.IsDir():
			return nil
		case e.Name() == ".git" || e.Name() == ".terraform":
			return fs.SkipDir
		}
		wanted[path] = true
		return nil
	})
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close()
	}
	<-w.done
}
