package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// MaxTail is the most lines that [Tail] returns.
const MaxTail = 2000

// tailBytes bounds what [Tail] reads of a file, from its end.
const tailBytes = 1 << 20

// ErrNoLog means that the folder has no log of that name.
var ErrNoLog = errors.New("no such log; log-stats lists them")

// Tail returns the last lines of the live file of a log, oldest first, without line
// ends. The name is one of those that [Stats] lists ("vllm.log"). A line whose
// beginning is more than 1 MiB before the end is left out.
func Tail(dir, name string, lines int) ([]string, error) {
	if filepath.Ext(name) != ".log" || name != filepath.Base(name) {
		return nil, ErrNoLog
	}
	if _, rotated := parseRotated(name); rotated {
		return nil, ErrNoLog
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, tailError(err)
	}
	defer func() { _ = root.Close() }()
	f, err := root.Open(name)
	if err != nil {
		return nil, tailError(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, tailError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNoLog
	}
	from := max(0, info.Size()-tailBytes)
	data, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	if err != nil {
		return nil, tailError(err)
	}
	if from > 0 { // it begins in the middle of a line
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	if len(data) == 0 {
		return []string{}, nil
	}
	all := bytes.Split(data, []byte("\n"))
	all = all[max(0, len(all)-min(max(lines, 0), MaxTail)):]
	out := make([]string, len(all))
	for i, line := range all {
		out[i] = string(bytes.ToValidUTF8(line, []byte("\uFFFD")))
	}
	return out, nil
}

func tailError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoLog
	}
	return fmt.Errorf("read log: %w", err)
}
