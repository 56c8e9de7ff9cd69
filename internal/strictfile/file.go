package strictfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Read reads a regular file, at most one byte more than limit: [Text] refuses a
// longer one. It never waits for a named pipe. Every error is an [*Error]; a missing
// file is also [fs.ErrNotExist].
func Read(path string, limit int64) ([]byte, error) {
	// Without O_NONBLOCK a named pipe would hold the open for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // the operator names it
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, Fail(path, "does not exist", "", err)
	case err != nil:
		return nil, unreadable(path, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, unreadable(path, err)
	case info.IsDir():
		return nil, Fail(path, "is a directory", "name the file in it", nil)
	case !info.Mode().IsRegular() && path != os.DevNull:
		return nil, Fail(path, "is not a regular file", "name a file", nil)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	return data, nil
}

func unreadable(path string, err error) error {
	return Fail(path, "cannot be read: "+Reason(err), "", err)
}

// Resolve follows symbolic links, so that a writer replaces the file and not the
// link. A missing file is its own result: the read that follows reports it.
func Resolve(path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, nil
	case err != nil:
		return "", unreadable(path, err)
	}
	return target, nil
}

// Create writes a file that must not exist yet, with its folder; it returns false
// when the file exists. It links a complete temporary file to the name, so that
// nobody reads half of it and an existing file cannot be replaced.
func Create(path string, data []byte, mode fs.FileMode) (bool, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return false, fmt.Errorf("create folder: %w", err)
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return false, fmt.Errorf("create temporary file: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return false, fmt.Errorf("write temporary file: %w", err)
	}
	err = os.Link(tmp.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("name file: %w", err)
	}
	return true, SyncFolder(dir)
}

// SyncFolder makes the names in a folder survive a loss of power.
func SyncFolder(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the folder of a configured file
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer func() { _ = d.Close() }() // it was only read
	// Some file systems cannot sync a folder and say EINVAL; nothing is to be done.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// Reason is the system's word for an error, without the path, which a message has
// already.
func Reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err.Error()
	}
	return err.Error()
}
