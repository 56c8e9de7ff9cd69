package strictfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/strictfile"
)

func TestAtCountsLinesAndCharacters(t *testing.T) {
	data := []byte("ab\ncé x\n")
	for offset, want := range map[int]strictfile.Position{
		-1: {Line: 1, Column: 1}, 0: {Line: 1, Column: 1}, 1: {Line: 1, Column: 2}, 3: {Line: 2, Column: 1}, 7: {Line: 2, Column: 4}, 8: {Line: 2, Column: 5}, 99: {Line: 3, Column: 1},
	} {
		if got := strictfile.At(data, offset); got != want {
			t.Errorf("offset %d: got %+v, want %+v", offset, got, want)
		}
	}
}

func TestAnErrorHasItsProblemsInOrder(t *testing.T) {
	at := func(line, column int) strictfile.Position { return strictfile.Position{Line: line, Column: column} }
	err := strictfile.NewError([]strictfile.Problem{
		{File: "f", Position: at(3, 1), Message: "third"},
		{File: "f", Position: at(1, 9), Key: "a.b", Message: "second", Suggestion: "write it so"},
		{File: "f", Position: at(1, 2), Message: "first"},
		{File: "f", Message: "the whole"},
	})
	want := "f: the whole\nf:1:2: first\nf:1:9: a.b: second; write it so\nf:3:1: third"
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if strictfile.NewError(nil) != nil {
		t.Error("no problem is an error")
	}
}

func TestTextRefusesWhatIsNoText(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		want string // the message, or the text after "="
		at   strictfile.Position
	}{
		"text":        {data: "a\tb\r\né\n", want: "=a\tb\r\né\n"},
		"a mark":      {data: "\xef\xbb\xbfab", want: "=ab"},
		"empty":       {want: "="},
		"too long":    {data: strings.Repeat("x", 65), want: "is larger than 0 KiB"},
		"UTF-16":      {data: "\xff\xfea\x00", want: "is UTF-16", at: strictfile.Position{Line: 1, Column: 1}},
		"Latin-1":     {data: "ab\ncaf\xe9", want: "is not UTF-8 text", at: strictfile.Position{Line: 2, Column: 4}},
		"NUL":         {data: "a\x00", want: "has a NUL byte", at: strictfile.Position{Line: 1, Column: 2}},
		"an escape":   {data: "a\n\x1b[2J", want: "has the control character U+001B", at: strictfile.Position{Line: 2, Column: 1}},
		"replacement": {data: "\ufffd", want: "=\ufffd"},
	} {
		text, problem := strictfile.Text([]byte(c.data), 64)
		got := "=" + string(text)
		if problem != nil {
			got = problem.Message
			if problem.Position != c.at {
				t.Errorf("%s: at %+v, want %+v", name, problem.Position, c.at)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestReadTakesFilesOnly(t *testing.T) {
	dir := t.TempDir()
	file, fifo, link := filepath.Join(dir, "file"), filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("0123456789"), 0o600), syscall.Mkfifo(fifo, 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir: dir + ": is a directory; name the file in it", fifo: fifo + ": is not a regular file; name a file",
		dir + "/none": dir + "/none: does not exist", file + "/x": file + "/x: cannot be read: not a directory",
	} {
		_, err := strictfile.Read(path, 100)
		var e *strictfile.Error
		if !errors.As(err, &e) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := strictfile.Read(dir+"/none", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if data, err := strictfile.Read(link, 4); err != nil || string(data) != "01234" {
		t.Errorf("one byte more than the limit: got %q, %v", data, err)
	}
	if got, err := strictfile.Resolve(link); err != nil || got != file {
		t.Errorf("a link: got %s, %v", got, err)
	}
}

func TestOneOfManyCreatesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "file")
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			created, err := strictfile.Create(path, []byte("whole"), 0o600)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if created {
				won++
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(path)
	if won != 1 || err != nil || string(data) != "whole" {
		t.Errorf("created by %d; the file holds %q, %v", won, data, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
