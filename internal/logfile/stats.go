package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// stamp is the time in a rotated name, UTC.
const stamp = "20060102T150405.000"

// ErrDays means a number of days that nobody can have meant.
var ErrDays = errors.New("days must be between 0 and 36500")

const maxDays = 36500

// Files is what a set of log files amounts to.
type Files struct {
	TotalBytes int64 `json:"total_bytes"`
	Files      int   `json:"files"`
	// Oldest and Newest are times of last writing, nil without a file.
	Oldest *time.Time `json:"oldest"`
	Newest *time.Time `json:"newest"`
}

func (f *Files) add(info fs.FileInfo) {
	f.TotalBytes += info.Size()
	f.Files++
	t := info.ModTime().UTC()
	if f.Oldest == nil || t.Before(*f.Oldest) {
		f.Oldest = &t
	}
	if f.Newest == nil || t.After(*f.Newest) {
		f.Newest = &t
	}
}

// Statistics of a log folder: all of it, and by live file name ("vllm.log"),
// that log's rotated files included.
type Statistics struct {
	Files
	Logs map[string]*Files `json:"logs"`
}

// Cleaning is what [Clean] did.
type Cleaning struct {
	Removed    []string   `json:"removed"` // file names, never nil
	FreedBytes int64      `json:"freed_bytes"`
	Stats      Statistics `json:"stats"` // of what is left
}

// Stats counts the log files (NAME.log and what was rotated from it) in dir. A
// folder that does not exist is an empty one; other files are not counted.
func Stats(dir string) (Statistics, error) {
	s := Statistics{Logs: map[string]*Files{}}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("read log folder: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		name := e.Name()
		if r, ok := parseRotated(name); ok {
			name = r.log + ".log"
		} else if filepath.Ext(name) != ".log" {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // rotated or removed meanwhile
		}
		if s.Logs[name] == nil {
			s.Logs[name] = &Files{}
		}
		s.Logs[name].add(info)
		s.add(info)
	}
	return s, nil
}

// Clean removes the rotated files in dir that are older than days; 0 removes
// all of them. Live files and files of other names stay. It fails with
// [ErrDays], or when a file could not be removed, and then still says what was.
func Clean(dir string, days int) (Cleaning, error) {
	if days < 0 || days > maxDays {
		return Cleaning{Removed: []string{}}, fmt.Errorf("clean logs: %w", ErrDays)
	}
	removed, freed, err := remove(dir, "", days)
	stats, statsErr := Stats(dir)
	return Cleaning{Removed: removed, FreedBytes: freed, Stats: stats}, errors.Join(err, statsErr)
}

// remove removes the rotated files of one log, or of all when log is empty.
func remove(dir, log string, days int) (removed []string, freed int64, err error) {
	removed = []string{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return removed, 0, nil
	}
	if err != nil {
		return removed, 0, fmt.Errorf("read log folder: %w", err)
	}
	before := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
	var errs []error
	for _, e := range entries {
		r, ok := parseRotated(e.Name())
		if !ok || !e.Type().IsRegular() || (log != "" && r.log != log) || r.at.After(before) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // compressed or removed meanwhile
		}
		err = os.Remove(filepath.Join(dir, e.Name()))
		switch {
		case err == nil:
			removed = append(removed, e.Name())
			freed += info.Size()
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return removed, freed, fmt.Errorf("clean logs: %w", err)
	}
	return removed, freed, nil
}

// file is a rotated file of the folder.
type file struct {
	name string
	at   time.Time // when it was rotated
	size int64
}

// newestFirst lists the rotated files of all logs in dir, the newest first, and
// counts the live ones. What cannot be read is not there.
func newestFirst(dir string) (all []file, live int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0
	}
	for _, e := range entries {
		r, isRotated := parseRotated(e.Name())
		if !e.Type().IsRegular() || !isRotated && filepath.Ext(e.Name()) != ".log" {
			continue
		}
		info, err := e.Info()
		switch {
		case err != nil: // compressed or removed meanwhile
		case isRotated:
			all = append(all, file{e.Name(), r.at, info.Size()})
		default:
			live++
		}
	}
	slices.SortFunc(all, func(a, b file) int { return b.at.Compare(a.at) })
	return all, live
}

type rotated struct {
	log        string // name without extension
	at         time.Time
	compressed bool
}

var rotatedName = regexp.MustCompile(`^(.+)-(\d{8}T\d{6}\.\d{3})\.log(\.gz)?$`)

// parseRotated says whether a file name is one that [Writer] gives, and so
// whether the file is ours to remove.
func parseRotated(name string) (rotated, bool) {
	m := rotatedName.FindStringSubmatch(name)
	if m == nil {
		return rotated{}, false
	}
	at, err := time.Parse(stamp, m[2])
	if err != nil {
		return rotated{}, false
	}
	return rotated{log: m[1], at: at, compressed: m[3] != ""}, true
}
