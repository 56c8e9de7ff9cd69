package logfile

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// temporary is the suffix of a file that is being compressed.
const temporary = ".gz.tmp"

// maintain compresses, cleans and watches the live file until ctx ends. It drops errors
// and tries again later: a log must not fail.
func (w *Writer) maintain(ctx context.Context) {
	defer close(w.done)
	var tick <-chan time.Time
	if w.o.CheckInterval > 0 {
		t := time.NewTicker(w.o.CheckInterval)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
			w.compressAll(ctx)
		case <-tick:
			w.check()
			w.compressAll(ctx)
		}
		w.trim()
		if w.o.KeepDays > 0 && w.o.CheckInterval > 0 {
			_, _, _ = remove(filepath.Dir(w.o.Path), w.name, w.o.KeepDays)
		}
	}
}

// trim removes the oldest rotated files of all logs in the folder until the rest fits
// into the bound, with room for full live files and for one file under compression.
func (w *Writer) trim() {
	if w.o.MaxTotal <= 0 {
		return
	}
	all, live := newestFirst(filepath.Dir(w.o.Path))
	room := w.o.MaxTotal - int64(live+1)*w.o.MaxBytes
	for _, f := range all {
		if room -= f.size; room < 0 {
			_ = os.Remove(filepath.Join(filepath.Dir(w.o.Path), f.name))
		}
	}
}

// check rotates yesterday's content although nothing is written today, and
// opens the file anew when somebody has removed or replaced it.
func (w *Writer) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.file == nil {
		return
	}
	if w.size > 0 && w.day != today() {
		w.rotate()
		return
	}
	mine, err := w.file.Stat()
	if err != nil {
		return
	}
	if now, err := os.Lstat(w.o.Path); err == nil && os.SameFile(mine, now) {
		return
	}
	_ = w.file.Close()
	w.file, w.size = nil, 0
	if w.open() != nil {
		w.retry = time.Now().Add(reopenEvery)
	}
}

// compressAll compresses what is rotated and not compressed, an earlier
// process's left-overs included.
func (w *Writer) compressAll(ctx context.Context) {
	dir := filepath.Dir(w.o.Path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		name, isRotated := parseRotated(strings.TrimSuffix(e.Name(), temporary))
		if !isRotated || name.log != w.name || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if strings.HasSuffix(path, temporary) { // of a process that was killed
			_ = os.Remove(path)
			continue
		}
		if name.compressed {
			continue
		}
		if compress(ctx, path) != nil && ctx.Err() != nil {
			return
		}
	}
}

// compress replaces path by path.gz. The original goes only when the compressed
// file is complete and has its name.
func compress(ctx context.Context, path string) (err error) {
	from, err := os.Open(path) //nolint:gosec // a name that this package gave
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	defer func() { _ = from.Close() }()
	info, err := from.Stat()
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	temp := path + temporary
	to, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, info.Mode().Perm()) //nolint:gosec // as above
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("compress log: %w", errors.Join(err, os.Remove(temp)))
		}
	}()
	z := gzip.NewWriter(to)
	z.ModTime = info.ModTime()
	_, err = io.Copy(z, &cancelReader{ctx: ctx, r: from})
	if err := errors.Join(err, z.Close(), to.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(temp, info.ModTime(), info.ModTime()); err != nil {
		return err
	}
	if err := os.Rename(temp, path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}

// cancelReader ends a long copy when the writer is closed.
type cancelReader struct {
	ctx context.Context //nolint:containedctx // lives for one io.Copy
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
