package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"tollgate/internal/config"
)

// Errors of changes.
var (
	// ErrUnknown means that no engine has that address.
	ErrUnknown = errors.New("no engine has this address")
	// ErrNotYours means that somebody else named the engine.
	ErrNotYours = errors.New("another key named this engine; an administrator can remove it")
	// ErrFull means that there are as many engines as there may be.
	ErrFull = fmt.Errorf("there are %d engines already, the most that a gateway takes", mostEngines)
)

// mostEngines bounds what may come at run time.
const mostEngines = 1000

// FileError means that the configuration file names the engine.
type FileError struct{ Line int }

func (e *FileError) Error() string {
	if e.Line == 0 {
		return "the configuration file names this engine by a default; change it there"
	}
	return fmt.Sprintf("line %d of the configuration file names this engine; change it there", e.Line)
}

// InvalidError means that an entry cannot be an engine.
type InvalidError struct {
	Field   string // of an [Entry], as in JSON
	Message string
}

func (e *InvalidError) Error() string { return e.Message }

// valid checks an entry and makes its address canonical.
func (f *Fleet) valid(e *Entry) error {
	address, err := config.CanonicalAddress(e.Address)
	switch {
	case err != nil:
		return &InvalidError{"address", err.Error()}
	case e.Weight < 1 || e.Weight > config.MaxWeight:
		return &InvalidError{"weight", fmt.Sprintf("a weight is a whole number from 1 to %d; an engine that should get nothing is removed", config.MaxWeight)}
	case slices.Contains(f.o.Self, address):
		return &InvalidError{"address", "this is the gateway itself; name an engine"}
	}
	e.Address = address
	return nil
}

// Check is [Fleet.Put] without the change: known says that it would change nothing.
func (f *Fleet) Check(e Entry) (known bool, err error) {
	if err := f.valid(&e); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.find(e.Address)
	if i < 0 {
		if len(f.entries) >= mostEngines {
			return false, ErrFull
		}
		return false, nil
	}
	return f.entries[i].is(e), f.entries[i].mayPut(e)
}

// mayPut says who may tell of an engine that is known.
func (e *entry) mayPut(again Entry) error {
	switch {
	case e.Origin == FromFile:
		return &FileError{Line: e.Line}
	case again.Origin == FromLauncher && e.By != again.By:
		return ErrNotYours
	}
	return nil
}

// is reports whether the entry is so already.
func (e *entry) is(again Entry) bool {
	return e.Weight == again.Weight && !e.draining && e.lost.IsZero() && e.Origin == again.Origin
}

// Put adds an engine, or tells a known one again: its weight is the new one, and it
// does not drain any more. created says which.
func (f *Fleet) Put(e Entry) (created bool, err error) {
	if err := f.valid(&e); err != nil {
		return false, err
	}
	created, err = f.put(e)
	if err == nil {
		f.announce()
	}
	return created, err
}

func (f *Fleet) put(e Entry) (created bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	i := f.find(e.Address)
	if i < 0 {
		if len(f.entries) >= mostEngines {
			return false, ErrFull
		}
		e.Since = now.UTC()
		fresh := &entry{Entry: e, put: now}
		if err := f.save(append(slices.Clone(f.entries), fresh)); err != nil {
			return false, err
		}
		f.entries = append(f.entries, fresh)
		f.watch(fresh)
		f.publish()
		f.log.Info("engine added", "engine", e.Address, "origin", e.Origin, "by", e.By)
		return true, nil
	}
	if err := f.entries[i].mayPut(e); err != nil {
		return false, err
	}
	return f.again(f.entries[i], e, now)
}

// again is a known entry that is told once more; the caller holds the lock.
func (f *Fleet) again(known *entry, e Entry, now time.Time) (created bool, err error) {
	known.put = now
	if known.is(e) {
		return false, nil // a launcher says so every few seconds
	}
	was, lost := known.Entry, !known.lost.IsZero()
	known.Weight, known.Origin, known.By = e.Weight, e.Origin, e.By
	if err := f.save(f.entries); err != nil {
		known.Entry = was
		return false, err
	}
	known.draining, known.lost = false, time.Time{}
	f.watch(known)
	f.publish()
	return lost, nil
}

// Remove drains an engine: no new requests, those that run finish, then it is gone.
// by is the key of a launcher, which may only remove what it named; "" may remove all
// but what the file names, which is a [*FileError].
func (f *Fleet) Remove(address, by string) error {
	f.mu.Lock()
	err := f.remove(address, by)
	f.mu.Unlock()
	if err == nil {
		f.announce()
	}
	return err
}

// Removable is [Fleet.Remove] without the change.
func (f *Fleet) Removable(address, by string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.removable(address, by)
	return err
}

func (f *Fleet) removable(address, by string) (int, error) {
	canonical, err := config.CanonicalAddress(address)
	if err != nil {
		return 0, &InvalidError{"address", err.Error()}
	}
	i := f.find(canonical)
	switch {
	case i < 0:
		return 0, ErrUnknown
	case f.entries[i].Origin == FromFile:
		return 0, &FileError{Line: f.entries[i].Line}
	case by != "" && f.entries[i].By != by:
		return 0, ErrNotYours
	}
	return i, nil
}

func (f *Fleet) remove(address, by string) error {
	i, err := f.removable(address, by)
	if err != nil {
		return err
	}
	e := f.entries[i]
	if err := f.save(slices.Delete(slices.Clone(f.entries), i, i+1)); err != nil {
		return err
	}
	if e.draining {
		return nil
	}
	e.draining = true
	f.log.Info("engine drains", "engine", e.Address)
	f.drained(e)
	f.publish()
	return nil
}

// find is the index of an entry, -1 where there is none; the caller holds the lock.
func (f *Fleet) find(address string) int {
	return slices.IndexFunc(f.entries, func(e *entry) bool { return e.Address == address })
}

// drained takes an entry out when nothing runs at it; the caller holds the lock.
func (f *Fleet) drained(e *entry) bool {
	for _, m := range e.members {
		n := int(m.load.running.Load() + m.load.waiting.Load())
		if f.busy != nil {
			n = f.busy(m.endpoint)
		} else if !m.ready {
			n = 0
		}
		if n > 0 {
			return false
		}
	}
	f.unwatch(e)
	f.entries = slices.DeleteFunc(f.entries, func(o *entry) bool { return o == e })
	f.log.Info("engine removed", "engine", e.Address)
	return true
}

// tidy takes out what has drained and what nobody speaks for any more.
func (f *Fleet) tidy() {
	f.mu.Lock()
	changed := false
	now := time.Now()
	for _, e := range slices.Clone(f.entries) {
		switch {
		case e.draining:
			changed = f.drained(e) || changed
		case e.Origin != FromLauncher:
		case !e.lost.IsZero() && now.Sub(e.lost) > remembered:
			f.entries = slices.DeleteFunc(f.entries, func(o *entry) bool { return o == e })
			changed = true
			if err := f.save(f.entries); err != nil {
				f.log.Warn("cannot keep the list of engines", "error", err)
			}
		case e.lost.IsZero() && now.Sub(e.put) > f.o.Silence:
			f.lose(e, now)
			changed = true
		}
	}
	if changed {
		f.publish()
	}
	f.mu.Unlock()
	if changed {
		f.announce()
	}
}

// lose takes an engine out whose launcher is silent. Its models stay known for a
// while; the caller holds the lock.
func (f *Fleet) lose(e *entry, now time.Time) {
	f.unwatch(e)
	e.lost = now
	for _, m := range e.members {
		m.asked, m.ready, m.err = true, false, "its launcher has been silent for "+f.o.Silence.String()
		m.stop()
	}
	f.log.Warn("engine taken out: its launcher is silent", "engine", e.Address)
}

// kept is the file of engines that came at run time.
type kept struct {
	Engines []Entry `json:"engines"`
}

// save writes what is not of the configuration file; the caller holds the lock.
func (f *Fleet) save(entries []*entry) error {
	if f.o.Path == "" {
		return nil
	}
	k := kept{Engines: []Entry{}}
	for _, e := range entries {
		if e.Origin != FromFile && !e.draining {
			k.Engines = append(k.Engines, e.Entry)
		}
	}
	b, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return fmt.Errorf("encode engines: %w", err)
	}
	if err := renameio.WriteFile(f.o.Path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write engines: %w", err)
	}
	return nil
}

// restore begins with the file's engines and those that came at run time before.
func (f *Fleet) restore() error {
	for _, e := range f.o.File {
		address, err := config.CanonicalAddress(e.Address)
		if err != nil {
			return fmt.Errorf("engine of the configuration: %w", err)
		}
		e.Address, e.Origin, e.Weight = address, FromFile, max(1, e.Weight)
		f.entries = append(f.entries, &entry{Entry: e})
	}
	if f.o.Path == "" {
		return nil
	}
	b, err := os.ReadFile(f.o.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return fmt.Errorf("read engines that came at run time from %s: %w; mend the file, or remove it and name them again", f.o.Path, err)
	}
	now := time.Now()
	for _, e := range k.Engines {
		address, err := config.CanonicalAddress(e.Address)
		if err != nil || e.Weight < 1 || e.Weight > config.MaxWeight || e.Origin != FromAPI && e.Origin != FromLauncher {
			return fmt.Errorf("%s: %q is no engine that came at run time; mend the file, or remove it and name them again", f.o.Path, e.Address)
		}
		e.Address = address
		if f.find(address) < 0 { // else the file names it now
			f.entries = append(f.entries, &entry{Entry: e, put: now})
		}
	}
	return nil
}
