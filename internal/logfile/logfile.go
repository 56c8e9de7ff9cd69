// Package logfile writes a log that is rotated by size and by day, compressed,
// cleaned and counted.
//
// Only the [Writer] holds the file open: a child process writes to a pipe, and the
// launcher copies the pipe to the writer. So rotation never renames a file that another
// process writes to, and a full disk stops the log, never the child.
package logfile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine bounds the memory of a line that does not end; a longer one is cut
	// into lines of this size.
	maxLine = 1 << 20
	// liveShare of the bound of all files is the most that a live one gets.
	liveShare = 8
	// reopenEvery is how long to wait between attempts to open a file that
	// could not be opened.
	reopenEvery = time.Second
)

// Options of a [Writer].
type Options struct {
	// Path of the live file, by custom NAME.log. Its folder is created.
	Path string
	// MaxBytes rotates before a line that would make the file larger. Zero or
	// less: size does not matter. A single larger line has a file of its own.
	MaxBytes int64
	// KeepDays removes rotated files that are older, every CheckInterval. Zero
	// or less in either: nothing is removed.
	KeepDays      int
	CheckInterval time.Duration
	// MaxTotal bounds the bytes of all logs in the folder, also those of other writers:
	// above it the oldest rotated files are removed first. Zero or less: no bound. A
	// live file rotates at an eighth of it at the latest, so that the live files of all
	// logs and one file under compression fit.
	MaxTotal int64
	// Tail is how many last lines [Writer.Tail] can give.
	Tail int
}

// Writer is a rotating log file. It is safe for concurrent use: whole lines written by
// one call stay together, and every line is in exactly one file. Callers that write
// half lines must each have a pipe or file of their own, or their halves are mixed.
type Writer struct {
	o    Options
	name string // file name without its extension
	stop context.CancelFunc
	kick chan struct{} // something was rotated
	done chan struct{}

	mu      sync.Mutex
	file    *os.File  // guarded by mu; nil while it cannot be opened
	size    int64     // guarded by mu
	day     string    // guarded by mu; the UTC day of the file's content
	retry   time.Time // guarded by mu; the earliest time of the next attempt to open
	partial []byte    // guarded by mu; a line without its end
	tail    []string  // guarded by mu
	dropped int64     // guarded by mu
	closed  bool      // guarded by mu
}

// Open opens or continues the file; one that was last written on another UTC
// day is rotated first. The writer runs one goroutine until [Writer.Close].
func Open(o Options) (*Writer, error) {
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o750); err != nil {
		return nil, fmt.Errorf("create log folder: %w", err)
	}
	if o.MaxTotal > 0 && (o.MaxBytes <= 0 || o.MaxBytes > o.MaxTotal/liveShare) {
		o.MaxBytes = max(1, o.MaxTotal/liveShare)
	}
	base := filepath.Base(o.Path)
	ctx, stop := context.WithCancel(context.Background())
	w := &Writer{
		o: o, name: strings.TrimSuffix(base, filepath.Ext(base)),
		stop: stop, kick: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := w.open(); err != nil {
		stop()
		return nil, fmt.Errorf("open log: %w", err)
	}
	if w.size > 0 && w.day != today() {
		w.rotate()
	}
	w.kick <- struct{}{} // for files that an earlier process left uncompressed
	go w.maintain(ctx)
	return w, nil
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }

// open opens the file. REQUIRES: mu held, or w not shared yet.
func (w *Writer) open() error {
	f, err := os.OpenFile(w.o.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640) //nolint:gosec // a group may read logs
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	w.file, w.size, w.day = f, info.Size(), today()
	if w.size > 0 {
		w.day = info.ModTime().UTC().Format(time.DateOnly)
	}
	return nil
}

// Write always takes all of p. Where the disk is full it drops the lines and counts
// them. After [Writer.Close] it returns [os.ErrClosed].
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, os.ErrClosed
	}
	rest := p
	if len(w.partial) > 0 {
		i := bytes.IndexByte(rest, '\n') + 1
		w.partial = append(w.partial, rest[:i]...)
		rest = rest[i:]
		if i > 0 {
			w.lines(w.partial)
			w.partial = w.partial[:0]
		}
	}
	if i := bytes.LastIndexByte(rest, '\n') + 1; i > 0 {
		w.lines(rest[:i])
		rest = rest[i:]
	}
	w.partial = append(w.partial, rest...)
	for len(w.partial) >= maxLine {
		line := append(bytes.Clone(w.partial[:maxLine]), '\n')
		w.lines(line)
		w.partial = append(w.partial[:0], w.partial[maxLine:]...)
	}
	return len(p), nil
}

// lines writes whole lines, in as few calls as rotation allows. mu is held.
func (w *Writer) lines(p []byte) {
	w.remember(p)
	for len(p) > 0 {
		if w.size > 0 && w.day != today() {
			w.rotate()
		}
		n := w.fit(p)
		if n == 0 {
			w.rotate()
			n = max(w.fit(p), bytes.IndexByte(p, '\n')+1)
		}
		w.put(p[:n])
		p = p[n:]
	}
}

// fit is the length of the whole lines at the start of p that the file has
// room for; an empty file has room for one line of any length. mu is held.
func (w *Writer) fit(p []byte) int {
	room := w.o.MaxBytes - w.size
	if w.o.MaxBytes <= 0 || int64(len(p)) <= room {
		return len(p)
	}
	n := bytes.LastIndexByte(p[:max(room, 0)], '\n') + 1
	if n == 0 && w.size == 0 {
		n = bytes.IndexByte(p, '\n') + 1
	}
	return n
}

// put writes p to the file or drops it whole. mu is held.
func (w *Writer) put(p []byte) {
	if w.file == nil {
		if time.Now().Before(w.retry) || w.open() != nil {
			if !time.Now().Before(w.retry) {
				w.retry = time.Now().Add(reopenEvery)
			}
			w.dropped += int64(bytes.Count(p, []byte{'\n'}))
			return
		}
	}
	n, err := w.file.Write(p)
	if err == nil {
		w.size += int64(n)
		return
	}
	w.dropped += int64(bytes.Count(p, []byte{'\n'}))
	// Remove the half line again. If that fails too, open the file anew, which also
	// reads its true size.
	if n > 0 && w.file.Truncate(w.size) != nil {
		_ = w.file.Close()
		w.file, w.size = nil, 0
		w.retry = time.Now().Add(reopenEvery)
	}
}

// rotate gives the live file its final name and opens a new one. mu is held. If the
// rename fails the file goes on growing.
func (w *Writer) rotate() {
	if w.file == nil || w.size == 0 {
		return
	}
	if err := os.Rename(w.o.Path, w.freeName()); err != nil && !os.IsNotExist(err) {
		w.day = today()
		return
	}
	_ = w.file.Close()
	w.file, w.size = nil, 0
	if w.open() != nil {
		w.retry = time.Now().Add(reopenEvery)
	}
	w.trim() // here too: a fast writer fills the folder before the loop runs
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// freeName returns a name for a rotated file that does not exist yet.
func (w *Writer) freeName() string {
	dir := filepath.Dir(w.o.Path)
	for t := time.Now().UTC(); ; t = t.Add(time.Millisecond) {
		path := filepath.Join(dir, w.name+"-"+t.Format(stamp)+".log")
		if !exists(path) && !exists(path+".gz") {
			return path
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// tailLine bounds a remembered line, in bytes.
const tailLine = 2048

// remember keeps the last lines of p. mu is held.
func (w *Writer) remember(p []byte) {
	if w.o.Tail <= 0 {
		return
	}
	for line := range bytes.Lines(p) {
		w.tail = append(w.tail, display(line))
	}
	if n := len(w.tail) - w.o.Tail; n > 0 {
		w.tail = append(w.tail[:0], w.tail[n:]...)
	}
}

// display returns a line as a terminal would show it: without text that a progress bar
// has overwritten with a carriage return.
func display(line []byte) string {
	line = bytes.TrimRight(line, "\r\n")
	if i := bytes.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	return string(line[:min(len(line), tailLine)])
}

// Tail is at most the last n lines, oldest first, a line that has not ended yet
// included. It works without the file.
func (w *Writer) Tail(n int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := append([]string(nil), w.tail...)
	if len(w.partial) > 0 && w.o.Tail > 0 {
		all = append(all, display(w.partial))
	}
	return all[max(0, len(all)-n):]
}

// Dropped is the number of lines that could not be written.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Close ends a last line that has no end, closes the file and waits for the
// goroutine. Later calls do nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		<-w.done
		return nil
	}
	w.closed = true
	if len(w.partial) > 0 {
		w.lines(append(w.partial, '\n'))
		w.partial = nil
	}
	var err error
	if w.file != nil {
		err = w.file.Close()
		w.file = nil
	}
	w.mu.Unlock()
	w.stop()
	<-w.done
	return err
}

var _ io.WriteCloser = (*Writer)(nil)
