package apikey

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the folder must be quiet before the file is read: a writer that
	// does not rename has then most likely finished.
	settle = 100 * time.Millisecond
	// settleAtMost bounds the wait in a folder that is never quiet.
	settleAtMost = time.Second
	// poll is how often the file is checked without an event: a replaced folder and
	// network file systems send none.
	poll = 2 * time.Second
)

// signature tells whether a file may have changed without reading it.
type signature struct {
	modified int64 // Unix nanoseconds
	size     int64
	info     os.FileInfo // identity; nil for a file that is not there
}

func (k *Keyring) signature() signature {
	info, err := os.Stat(k.path)
	if err != nil {
		return signature{}
	}
	return signature{modified: info.ModTime().UnixNano(), size: info.Size(), info: info}
}

func (s signature) equal(o signature) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil
	}
	return s.modified == o.modified && s.size == o.size && os.SameFile(s.info, o.info)
}

// Run reloads the file when it changes, until the context ends; then it returns
// nil. A file that breaks or vanishes is logged once and its last good reading
// stays. Run starts no goroutine that outlives it.
func (k *Keyring) Run(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		// For example there are no inotify instances left. Polling is enough.
		k.log.Warn("cannot watch the key file, polling it", "error", err)
		w = &fsnotify.Watcher{} // nil channels, never ready
	} else {
		defer func() { _ = w.Close() }()
	}
	l := &watch{k: k, w: w, active: err == nil}
	l.subscribe()
	// The file may have changed since Open.
	l.check(false)
	return l.run(ctx)
}

// watch is the state of one Run.
type watch struct {
	k       *Keyring
	w       *fsnotify.Watcher
	active  bool // w can be used
	seen    signature
	started bool
	folder  os.FileInfo // that is watched; nil when none
}

// subscribe watches the folder, again when it was replaced by another.
func (l *watch) subscribe() {
	if !l.active {
		return
	}
	dir := filepath.Dir(l.k.path)
	info, err := os.Stat(dir)
	if err != nil {
		l.folder = nil
		return
	}
	if l.folder != nil && os.SameFile(info, l.folder) {
		return
	}
	_ = l.w.Remove(dir) // of the old folder; an error says that it is gone
	if l.w.Add(dir) == nil {
		l.folder = info
	}
}

func (l *watch) run(ctx context.Context) error {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	quiet := time.NewTimer(settle)
	quiet.Stop()
	defer quiet.Stop()
	var first time.Time // event of a burst; zero outside of one
	touched := false    // the burst named the file itself
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-l.w.Events:
			if !ok {
				return errors.New("key file watcher ended")
			}
			touched = touched || filepath.Base(event.Name) == filepath.Base(l.k.path)
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			quiet.Reset(min(settle, max(first.Add(settleAtMost).Sub(now), 0)))
		case <-l.w.Errors:
			// Events were lost; the poll finds what they were about.
		case <-quiet.C:
			l.check(touched)
			first, touched = time.Time{}, false
		case <-ticker.C:
			l.subscribe()
			l.check(false)
		}
	}
}

// check reloads when the file is not the one that was seen last, or was touched:
// two writes of the same length within the clock of the file system look alike.
func (l *watch) check(touched bool) {
	now := l.k.signature()
	if !touched && l.started && now.equal(l.seen) {
		return
	}
	l.seen, l.started = now, true
	s, err := l.k.load(false)
	switch {
	case err != nil:
		l.k.log.Error("cannot reload keys, the last good ones stay", "error", err)
	case s.Changed > 0:
		l.k.log.Info("keys reloaded", "keys", s.Keys, "enabled", s.Enabled, "changed", s.Changed)
	}
}
