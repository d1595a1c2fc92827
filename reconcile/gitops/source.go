package gitops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"greenroom/reconcile"
	"greenroom/reconcile/condition"
)

// Options of a source. Source and StateDir are needed.
type Options struct {
	// Source is a directory, or a repository: https://host/org/fleet.git//path?ref=main, ssh://, git@host:org/fleet.git//path, file://.
	Source string
	// StateDir is absolute; it gets the clone (source.git), and the trees of modules.
	StateDir string
	// TokenFile has a token for an https source, or a name and a token with a colon in between. Default: GREENROOM_SPECS_TOKEN.
	TokenFile string
	// KeyFile and KnownHosts are for an ssh source, which needs both.
	KeyFile, KnownHosts string
	// Every is the time between two looks: by default 30s at a repository, 2s at a directory, whose changes are seen at once anyway.
	Every time.Duration
	// Self is the greenroom binary that is run as the reader (default: this executable).
	Self string
	// ReaderArgs are the arguments with which it is (default "reader").
	ReaderArgs []string
	// InForce names the revision in force, to tell whether a new one descends from it. Default: none is.
	InForce func() string
	Log     *slog.Logger
}

// previewsAtOnce is how many revisions are read at once besides the followed one.
const previewsAtOnce = 2

// Source is where specs come from. Run Follow once; the other methods may be called concurrently.
type Source struct {
	o        Options
	at       address
	poke     chan struct{}
	previews *semaphore.Weighted
	within   deadlines
	room     int64        // of the modules of previews, see shelf
	asked    atomic.Int64 // children so far

	// What the follower knows of its last look.
	seen   string // object that the ref named; empty: look again
	inputs inputs
	digest string // of the inputs; empty: read again
	read   time.Time
	bad    bool
}

// Open checks the form of a source and its credentials' files. It does not look at the source itself.
func Open(o Options) (*Source, error) {
	at, err := parseAddress(o.Source)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(o.StateDir) {
		return nil, fmt.Errorf("state directory %q: an absolute path is needed", o.StateDir)
	}
	if err := o.checkCredentials(at); err != nil {
		return nil, err
	}
	if o.Self == "" {
		if o.Self, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("finding this binary to run it as the reader: %w", err)
		}
	}
	if o.ReaderArgs == nil {
		o.ReaderArgs = []string{"reader"}
	}
	if o.InForce == nil {
		o.InForce = func() string { return "" }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	every := 30 * time.Second
	if at.isDir() {
		every = 2 * time.Second
	}
	o.Every = cmp.Or(max(o.Every, 0), every)
	return &Source{o: o, at: at, poke: make(chan struct{}, 1), previews: semaphore.NewWeighted(previewsAtOnce), within: defaultDeadlines, room: shelfRoom}, nil
}

func (o *Options) checkCredentials(at address) error {
	token := o.TokenFile != "" || os.Getenv(tokenVariable) != ""
	switch {
	case o.TokenFile != "" && at.Scheme != "https" && at.Scheme != "http":
		return errors.New("a token file is for sources that begin with https://")
	case (o.KeyFile != "" || o.KnownHosts != "") && at.Scheme != "ssh":
		return errors.New("a key file and known hosts are for sources that begin with ssh://, or are written git@host:path")
	case at.Scheme == "http" && token && !at.isLoopback():
		return errors.New("a token would go over the network in the clear: use https:// instead of http://")
	case at.Scheme == "ssh" && (o.KeyFile == "" || o.KnownHosts == ""):
		return errors.New("a source over ssh needs a private key (--specs-key-file) and the key of its host (--specs-known-hosts); " +
			"ssh-keyscan HOST prints the latter, to be compared with what the host's operator publishes")
	}
	for _, file := range []*string{&o.TokenFile, &o.KeyFile, &o.KnownHosts} {
		if *file == "" {
			continue
		}
		if _, err := readSecret(*file); err != nil {
			return fmt.Errorf("credentials for the specs: %w", err)
		}
		abs, err := filepath.Abs(*file)
		if err != nil {
			return err
		}
		*file = abs
	}
	return nil
}

// Directory returns the directory that a source is, if it is one and not a repository.
func Directory(source string) (dir string, ok bool) {
	at, err := parseAddress(source)
	return at.Dir, err == nil && at.isDir()
}

// String is the source for people, without anything that is secret.
func (s *Source) String() string { return s.at.String() }

// Ref is what is followed; empty: the branch that the repository calls HEAD, or a directory.
func (s *Source) Ref() string { return s.at.Ref }

// Poke has the source looked at now, even when it is paused after a failure. It never blocks.
func (s *Source) Poke() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// Read reads what another ref names now: a branch, a tag, a commit in full or refs/pull/1/head. An empty one is the followed.
func (s *Source) Read(ctx context.Context, ref string) reconcile.Revision {
	if s.at.isDir() {
		return faulty(condition.RefMissing, fmt.Errorf("the specs come from the directory %s, which has no other revisions; plan a directory instead", s.at.Dir))
	}
	if ref != "" {
		if err := checkRef(ref); err != nil {
			return faulty(condition.RefMissing, err)
		}
	}
	t := s.gitTask()
	t.Ref, t.Preview, t.Modules, t.Room = cmp.Or(ref, s.at.Ref), true, s.previewModules(), s.room
	return s.preview(ctx, task{Git: &t, Within: s.within.fetch})
}

// Archive reads an uploaded spec directory, a zip as [Zip] makes it. Absolute lists the module directories that it may name by
// an absolute path; nil: any.
func (s *Source) Archive(ctx context.Context, zip []byte, absolute []string) reconcile.Revision {
	if len(zip) > MaxArchive {
		return faulty(condition.TooLarge, fmt.Errorf("the archive has %d bytes, and at most %d are read", len(zip), MaxArchive))
	}
	t := archiveTask{Zip: zip, Modules: s.previewModules(), Room: s.room, Absolute: absolute, Any: absolute == nil}
	return s.preview(ctx, task{Archive: &t, Within: s.within.archive})
}

// previewModules is where the modules of previews are kept for a while: nothing that is in force uses them.
func (s *Source) previewModules() string {
	return filepath.Join(s.o.StateDir, "previewed-modules")
}

func (s *Source) preview(ctx context.Context, t task) reconcile.Revision {
	if err := s.previews.Acquire(ctx, 1); err != nil {
		return faulty(condition.Unreachable, fmt.Errorf("waiting for other previews to be read: %w", err))
	}
	defer s.previews.Release(1)
	a := s.ask(ctx, t)
	s.tell(a)
	return a.revision()
}

func (s *Source) tell(a answer) {
	for _, note := range a.Notes {
		s.o.Log.Warn(note, "source", s.String())
	}
}

func (s *Source) gitTask() gitTask {
	return gitTask{
		Address: s.at, Ref: s.at.Ref, Clone: filepath.Join(s.o.StateDir, "source.git"), Modules: filepath.Join(s.o.StateDir, "modules"),
		TokenFile: s.o.TokenFile, KeyFile: s.o.KeyFile, KnownHosts: s.o.KnownHosts,
	}
}

// Follow hands each new revision to offer, the first one at once, and each fault that keeps the newest from being had, until
// ctx ends. What has not changed is not offered twice.
func (s *Source) Follow(ctx context.Context, offer func(reconcile.Revision)) error {
	f := follower{look: s.lookGit, offer: offer, every: s.o.Every, poke: s.poke, jitter: rand.Float64}
	if s.at.isDir() {
		w := watch(s.at.Dir, s.o.Log)
		defer w.close()
		f.hint = w.changed
		f.look = func(ctx context.Context) (reconcile.Revision, bool) {
			r, news := s.lookDirectory(ctx)
			w.follow(s.inputs)
			return r, news
		}
	}
	f.run(ctx)
	return nil
}

// lookGit asks what the followed ref names, and reads it when that is another object than the last time.
func (s *Source) lookGit(ctx context.Context) (reconcile.Revision, bool) {
	t := s.gitTask()
	t.Seen, t.InForce = s.seen, s.o.InForce()
	within := s.within.fetch
	if _, err := os.Stat(filepath.Join(t.Clone, filepath.FromSlash(followedRef))); err != nil { // none yet, or thrown away
		within, t.Seen = s.within.clone, ""
	}
	a := s.ask(ctx, task{Git: &t, Within: within})
	s.tell(a)
	s.seen = a.Seen
	return a.revision(), !a.Same
}
