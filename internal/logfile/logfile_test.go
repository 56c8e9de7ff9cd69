package logfile_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"tollgate/internal/logfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, o logfile.Options) *logfile.Writer {
	t.Helper()
	w, err := logfile.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if n, err := io.WriteString(w, s); n != len(s) || err != nil {
		t.Fatalf("write: got %d, %v", n, err)
	}
}

// content is every file of the folder, decompressed, by name.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = f
		if strings.HasSuffix(e.Name(), ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		b, err := io.ReadAll(r)
		_ = f.Close()
		if err != nil {
			t.Fatalf("%s: %v", e.Name(), err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

func TestTenWritersLoseAndTearNoLineOverRotations(t *testing.T) {
	const writers = 10
	each, pad, limit := 2000, 0, 64<<10
	if os.Getenv("PROOF") == "1" { // 1 GiB through 10 MiB files
		each, pad, limit = 100_000, 1000, 10<<20
	}
	dir := t.TempDir()
	w := open(t, logfile.Options{Path: filepath.Join(dir, "vllm.log"), MaxBytes: int64(limit)})
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				_, _ = fmt.Fprintf(w, "writer %d line %d %s\n", i, j, strings.Repeat("x", pad+j%90))
			}
		})
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	files := content(t, dir)
	if len(files) < 10 {
		t.Errorf("rotated too seldom: %d files", len(files))
	}
	for name, body := range files {
		if len(body) > limit {
			t.Errorf("%s: %d bytes is above the limit", name, len(body))
		}
		for line := range strings.Lines(body) {
			seen[line]++
		}
	}
	for i := range writers {
		for j := range each {
			line := fmt.Sprintf("writer %d line %d %s\n", i, j, strings.Repeat("x", pad+j%90))
			if seen[line] != 1 {
				t.Fatalf("%q is there %d times", line, seen[line])
			}
		}
	}
	if len(seen) != writers*each {
		t.Errorf("distinct lines: got %d, want %d", len(seen), writers*each)
	}
}

func TestRotatedFilesAreCompressedInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := open(t, logfile.Options{Path: filepath.Join(dir, "envoy.log"), MaxBytes: 8})
		write(t, w, "first 1\nsecond 2\n")
		synctest.Wait()
		want := map[string]string{"envoy-20000101T000000.000.log.gz": "first 1\n", "envoy.log": "second 2\n"}
		if diff := cmp.Diff(want, content(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
}

func TestLeftOversOfAKilledProcessAreCompressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for name, body := range map[string]string{
			"envoy-19991231T000000.000.log": "whole\n", "envoy-19991231T000000.000.log.gz.tmp": "half",
			"other-19991231T000000.000.log": "not mine\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		open(t, logfile.Options{Path: filepath.Join(dir, "envoy.log")})
		synctest.Wait()
		want := map[string]string{
			"envoy-19991231T000000.000.log.gz": "whole\n", "envoy.log": "", "other-19991231T000000.000.log": "not mine\n",
		}
		if diff := cmp.Diff(want, content(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
}

func TestANewDayIsANewFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := open(t, logfile.Options{Path: filepath.Join(dir, "a.log"), CheckInterval: 5 * time.Hour})
		write(t, w, "monday\n")
		time.Sleep(25 * time.Hour) // nothing is written: the loop notices
		synctest.Wait()
		write(t, w, "tuesday\n")
		time.Sleep(23*time.Hour + 30*time.Minute)
		write(t, w, "wednesday\n") // before the loop looks
		_ = w.Close()
		var bodies []string
		for _, body := range content(t, dir) {
			bodies = append(bodies, body)
		}
		slices.Sort(bodies)
		if diff := cmp.Diff([]string{"monday\n", "tuesday\n", "wednesday\n"}, bodies); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
}

func TestHalfALineIsCompletedAndFlushedAtClose(t *testing.T) {
	dir := t.TempDir()
	w := open(t, logfile.Options{Path: filepath.Join(dir, "a.log"), MaxBytes: 6, Tail: 3})
	write(t, w, "on")
	write(t, w, "e\ntwo\nthr")
	write(t, w, "ee\rfour")
	if diff := cmp.Diff([]string{"one", "two", "four"}, w.Tail(5)); diff != "" {
		t.Errorf("tail (-want +got):\n%s", diff)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := content(t, dir)["a.log"]; got != "three\rfour\n" {
		t.Errorf("live file: got %q", got)
	}
	if _, err := w.Write([]byte("late\n")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after close: got %v, want os.ErrClosed", err)
	}
}

func TestAnEndlessLineIsCut(t *testing.T) {
	dir := t.TempDir()
	w := open(t, logfile.Options{Path: filepath.Join(dir, "a.log")})
	for range 5 {
		write(t, w, strings.Repeat("x", 300<<10))
	}
	_ = w.Close()
	lines := strings.Split(strings.TrimSuffix(content(t, dir)["a.log"], "\n"), "\n")
	if len(lines) != 2 || len(lines[0]) != 1<<20 || len(lines[0])+len(lines[1]) != 1500<<10 {
		t.Errorf("got %d lines", len(lines))
	}
}

func TestAFullDiskDropsAndCounts(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.log")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	w := open(t, logfile.Options{Path: path, Tail: 2})
	write(t, w, "one\ntwo\n")
	write(t, w, "three\n")
	if got := w.Dropped(); got != 3 {
		t.Errorf("dropped: got %d, want 3", got)
	}
	if diff := cmp.Diff([]string{"two", "three"}, w.Tail(2)); diff != "" {
		t.Errorf("tail (-want +got):\n%s", diff)
	}
}

func TestARemovedFileIsWrittenAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.log")
		w := open(t, logfile.Options{Path: path, CheckInterval: time.Minute})
		write(t, w, "gone\n")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		write(t, w, "here\n")
		if got := content(t, dir)["a.log"]; got != "here\n" {
			t.Errorf("got %q", got)
		}
	})
}

func TestTheLoopCleansItsOwnOldFilesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for _, name := range []string{
			"a-19991201T000000.000.log.gz", "b-19991201T000000.000.log.gz", "a-report.log", "a-19991331T000000.000.log.gz",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w := open(t, logfile.Options{Path: filepath.Join(dir, "a.log"), KeepDays: 7, CheckInterval: time.Hour})
		write(t, w, "x\n")
		time.Sleep(time.Hour)
		synctest.Wait()
		if exists(dir, "a-19991201T000000.000.log.gz") {
			t.Error("the old file is still there")
		}
		for _, name := range []string{"a.log", "b-19991201T000000.000.log.gz", "a-report.log", "a-19991331T000000.000.log.gz"} {
			if !exists(dir, name) {
				t.Errorf("%s was removed", name)
			}
		}
		time.Sleep(8 * 24 * time.Hour) // the file of the first day is old now
		synctest.Wait()
		s, err := logfile.Stats(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Logs["a.log"].Files; got != 1 {
			t.Errorf("files of a.log: got %d, want the live one", got)
		}
	})
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// Three writers share a folder and its bound: it holds at every moment, and what
// is lost is the oldest, of whichever log.
func TestAllLogsTogetherHaveABound(t *testing.T) {
	const bound, kib = 64 << 10, 1 << 10
	dir := t.TempDir()
	ancient := filepath.Join(dir, "old-20200101T000000.000.log.gz")
	stranger := filepath.Join(dir, "notes.txt")
	for _, name := range []string{ancient, stranger} {
		if err := os.WriteFile(name, make([]byte, 20*kib), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var writers []*logfile.Writer
	for _, name := range []string{"gateway.log", "envoy.log", "vllm.log"} {
		writers = append(writers, open(t, logfile.Options{Path: filepath.Join(dir, name), MaxBytes: 1 << 30, MaxTotal: bound}))
	}
	most := fill(t, dir, writers)
	for _, w := range writers {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := logfile.Stats(dir)
	if err != nil || stats.TotalBytes > bound || most > bound {
		t.Errorf("%d bytes at the end, %d at most, of %d; %v", stats.TotalBytes, most, bound, err)
	}
	if _, err := os.Stat(ancient); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the oldest file of another log is still there: %v", err)
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Errorf("a file that is no log: %v", err)
	}
	var all strings.Builder
	for _, text := range content(t, dir) {
		all.WriteString(text)
	}
	if !strings.Contains(all.String(), "001999 ") || strings.Contains(all.String(), "000000 ") {
		t.Error("the newest line is lost, or the oldest kept")
	}
}

// fill writes 2,000 lines that cannot be compressed, in turn, and returns the most
// bytes that lay in the folder.
func fill(t *testing.T, dir string, writers []*logfile.Writer) (most int64) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		line := make([]byte, 256)
		for j := range line {
			line[j] = byte('!' + random.IntN(90))
		}
		write(t, writers[i%len(writers)], fmt.Sprintf("%06d %s\n", i, line))
		if i%50 != 49 {
			continue
		}
		stats, err := logfile.Stats(dir)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, stats.TotalBytes)
	}
	return most
}

func TestStatsAndCleanHaveTheShapeOfTheAPI(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 11, 24, 8, 30, 0, 0, time.UTC)
	old := time.Now().Add(-9 * 24 * time.Hour).UTC().Format("vllm-20060102T150405.000.log.gz")
	young := time.Now().Add(-5 * 24 * time.Hour).UTC().Format("vllm-20060102T150405.000.log")
	for name, size := range map[string]int{"vllm.log": 10, old: 5, young: 7, "gateway.log": 1, "notes.txt": 100} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at.Add(time.Duration(size)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := logfile.Clean(dir, 7)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"removed":["` + old + `"],"freed_bytes":5,"stats":{"total_bytes":18,"files":3,` +
		`"oldest":"2026-11-24T09:30:00Z","newest":"2026-11-24T18:30:00Z","logs":{` +
		`"gateway.log":{"total_bytes":1,"files":1,"oldest":"2026-11-24T09:30:00Z","newest":"2026-11-24T09:30:00Z"},` +
		`"vllm.log":{"total_bytes":17,"files":2,"oldest":"2026-11-24T15:30:00Z","newest":"2026-11-24T18:30:00Z"}}}}`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if _, err := logfile.Clean(dir, -1); !errors.Is(err, logfile.ErrDays) {
		t.Errorf("negative days: got %v, want ErrDays", err)
	}
	if got, err := logfile.Clean(filepath.Join(dir, "none"), 0); err != nil || got.Removed == nil {
		t.Errorf("missing folder: got %+v, %v", got, err)
	}
}
