package meterlink

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A meter that cannot reach us writes the lines that it would have sent into a
// file beside the socket, before it lets go of an answer's end. A meter that lives
// sends them again; for one that died, the file is read here.
const (
	spillPrefix = "meter-"
	spillSuffix = ".spill"
)

func spillPath(dir, name string) string { return filepath.Join(dir, spillPrefix+name+spillSuffix) }

// spilled are the instances that have left a file.
func spilled(dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), spillPrefix)
		if name, ok2 := strings.CutSuffix(name, spillSuffix); ok && ok2 && isName(name) && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	return names
}

// replay hands on what a dead meter has left in its file, and removes it when every
// record is written; until ctx ends. It returns how many records there were.
func (s *Server) replay(ctx context.Context, name string) (int, error) {
	path := spillPath(s.o.Dir, name)
	f, err := os.Open(path) //nolint:gosec // the name was checked
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	left, err := readSpill(f)
	_ = f.Close()
	if err != nil {
		return 0, err
	}
	if len(left.counts) > 0 {
		s.o.Sink.Live(name, slices.Collect(maps.Values(left.counts)))
	}
	written := make(chan struct{}, len(left.records))
	for _, r := range left.records {
		r.Instance = name
		s.records.add(entry{r, func() { written <- struct{}{} }})
	}
	for range left.records {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-written:
		}
	}
	return len(left.records), os.Remove(path)
}

// left is what a spill file says: each record, and the last running counts of each
// stream that has none.
type left struct {
	records map[string]Record
	counts  map[string]Count
}

// readSpill reads a file of lines. A torn last line, and lines that nobody
// understands, say nothing.
func readSpill(r io.Reader) (left, error) {
	l := left{map[string]Record{}, map[string]Count{}}
	lines := bufio.NewReaderSize(r, readAhead)
	for {
		line, err := readLine(lines)
		switch {
		case errors.Is(err, io.EOF):
			return l, nil
		case err != nil:
			return l, err
		}
		w := words(line)
		switch string(w[0]) {
		case "e", "x":
			read := readRecord
			if w[0][0] == 'x' {
				read = readUnplanned
			}
			if rec, err := read(w[1:]); err == nil {
				l.records[rec.Lease] = rec
				delete(l.counts, rec.Lease)
			}
		case "s":
			c, err := readCount(w[1:])
			if _, ended := l.records[c.Lease]; err == nil && !ended {
				l.counts[c.Lease] = c
			}
		}
	}
}
