package apikey

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/audit"
	"tollgate/internal/strictfile"
)

// shrinkFrom is the number of keys from which on a file that loses more than
// half of them is not believed.
const shrinkFrom = 10

// ErrShrunk says that the file drops more than half of its keys. Only force, or [Edit],
// may do that.
var ErrShrunk = errors.New("key file drops more than half of its keys; reload with force to take it")

// Summary is the outcome of a reload.
type Summary struct {
	Keys    int `json:"keys"`
	Enabled int `json:"enabled"`
	Changed int `json:"changed"` // added, removed or altered
}

// Changed is called after a reload that changed a key. The editor is the author of the
// file; it is [audit.ByFile] where [Edit] did not write it.
type Changed func(old, next *Ring, by audit.Editor)

// Keyring keeps a key file loaded. All methods are safe for concurrent use.
type Keyring struct {
	path   string
	source Source // nil: the file itself
	log    hclog.Logger
	ring   atomic.Pointer[Ring]
	ok     atomic.Bool

	mu       sync.Mutex // one reload at a time; not held while hooks run
	sum      [sha256.Size]byte
	onChange []Changed       // guarded by hooks
	onReload []func(ok bool) // guarded by hooks
	hooks    sync.Mutex
}

// Open loads the file; a missing or broken one is a [*FileError]. Use [Ensure]
// first where a missing file should be written. A nil logger logs nothing.
func Open(path string, log hclog.Logger) (*Keyring, error) {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	k := &Keyring{path: path, log: log}
	data, err := strictfile.Read(path, MaxFile)
	if err != nil {
		return nil, err
	}
	ring, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	k.sum = sha256.Sum256(data)
	k.ring.Store(ring)
	k.ok.Store(true)
	return k, nil
}

// Path is the file.
func (k *Keyring) Path() string { return k.path }

// Current is the last good reading of the file.
func (k *Keyring) Current() *Ring { return k.ring.Load() }

// LastReloadOK is false from a reload that failed until one that succeeds.
func (k *Keyring) LastReloadOK() bool { return k.ok.Load() }

// OnChange has fn called after each reload that changed a key, outside of any
// lock, by the goroutine that reloaded. fn may use the keyring.
func (k *Keyring) OnChange(fn Changed) {
	k.hooks.Lock()
	defer k.hooks.Unlock()
	k.onChange = append(k.onChange, fn)
}

// OnReload has fn called after each reload, outside of any lock.
func (k *Keyring) OnReload(fn func(ok bool)) {
	k.hooks.Lock()
	defer k.hooks.Unlock()
	k.onReload = append(k.onReload, fn)
}

// Reload reads the file. When it cannot be read, has a mistake ([*FileError]) or
// drops more than half of ten or more keys ([ErrShrunk]), nothing changes. Force
// takes a shrunk file; so does Reload by itself when [Edit] wrote the file.
//
// Keys that live elsewhere are asked for there first; force has no meaning.
func (k *Keyring) Reload(force bool) (Summary, error) {
	if k.source != nil {
		if err := k.source.Pull(); err != nil {
			return Summary{}, err
		}
	}
	return k.load(force)
}

// load reads the file.
func (k *Keyring) load(force bool) (Summary, error) {
	k.mu.Lock()
	old := k.ring.Load()
	next, by, err := k.read(old, force)
	var s Summary
	if err == nil {
		s = Summary{Keys: next.Len(), Enabled: next.Enabled(), Changed: next.changed(old)}
		k.ring.Store(next)
	}
	k.ok.Store(err == nil)
	k.mu.Unlock()

	k.hooks.Lock()
	onReload, onChange := k.onReload, k.onChange
	k.hooks.Unlock()
	for _, fn := range onReload {
		fn(err == nil)
	}
	if err != nil {
		return Summary{}, err
	}
	if s.Changed > 0 {
		for _, fn := range onChange {
			fn(old, next, by)
		}
	}
	return s, nil
}

// read is the ring of the file as it is now, and who wrote it; old itself when it
// has not changed. Called with mu held.
func (k *Keyring) read(old *Ring, force bool) (*Ring, audit.Editor, error) {
	by := audit.Editor{Who: audit.ByFile}
	data, err := strictfile.Read(k.path, MaxFile)
	if err != nil {
		return nil, by, err
	}
	sum := sha256.Sum256(data)
	if sum == k.sum {
		return old, by, nil
	}
	next, err := Parse(k.path, data)
	if err != nil {
		return nil, by, err
	}
	ours, edited := editor(k.path, data)
	if edited {
		by = ours
	}
	gone := old.dropped(next)
	if !force && old.Len() >= shrinkFrom && 2*gone > old.Len() && !edited {
		return nil, by, fmt.Errorf("%w (%d of %d are gone)", ErrShrunk, gone, old.Len())
	}
	k.sum = sum
	return next, by, nil
}

// Load reads the file again without asking a [Source], for what follows one.
func (k *Keyring) Load() error {
	_, err := k.load(false)
	return err
}

// Edit changes the file as [Edit] does, or the [Source] of a shared keyring, and
// loads the result.
func (k *Keyring) Edit(by audit.Editor, fn func(*File) error) error {
	edit := func(by audit.Editor, fn func(*File) error) error { return Edit(k.path, by, fn) }
	if k.source != nil {
		edit = k.source.Edit
	}
	if err := edit(by, fn); err != nil {
		return err
	}
	if _, err := k.load(false); err != nil {
		return fmt.Errorf("load edited keys: %w", err)
	}
	return nil
}
