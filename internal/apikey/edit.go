package apikey

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"tollgate/internal/audit"
	"tollgate/internal/strictfile"
)

// lockWait is how long an edit waits for another one to end.
const lockWait = 10 * time.Second

var (
	// ErrNoKey says that no key has that id.
	ErrNoKey = errors.New("no key has this id")
	// ErrExists says that a key of that id is there already.
	ErrExists = errors.New("a key with this id exists already")
	// ErrInvalid says that a value that was asked for is not allowed.
	ErrInvalid = errors.New("is not allowed")
	// ErrBusy says that another edit of the file does not end.
	ErrBusy = errors.New("another edit of the key file is running")
)

// Edit changes a key file: it locks out other edits, reads the file strictly,
// applies fn, checks the result as strictly, and replaces the file in one step
// (temporary file in the same folder, fsync, rename, fsync of the folder). When
// fn or a check fails the file stays as it was; when fn changes nothing it is
// not written. Permissions are kept; a file that others may read is not made
// private by an edit. A symbolic link is followed, not replaced.
//
// Two files lie beside it. .NAME.edit holds the digest of the content that the last
// edit wrote, and its author: a service that watches the file accepts this content even
// where many keys are gone. Edits lock .NAME.lock.
//
// Errors: [*FileError] for a file that is wrong or missing, what fn returned,
// [ErrLastAdmin], [ErrBusy].
func Edit(path string, by audit.Editor, fn func(*File) error) error {
	path, err := strictfile.Resolve(path)
	if err != nil {
		return err
	}
	unlock, err := lock(sidecar(path, "lock"))
	if err != nil {
		return fmt.Errorf("lock key file: %w", err)
	}
	defer unlock()
	data, err := strictfile.Read(path, MaxFile)
	if err != nil {
		return err
	}
	out, err := Apply(path, data, fn)
	if err != nil || bytes.Equal(out, data) {
		return err
	}
	return replace(path, by, out)
}

// replace writes the file in one step. The mark comes first: a watcher that
// sees the new file must find it.
func replace(path string, by audit.Editor, data []byte) error {
	mark, err := json.Marshal(mark{Digest: hex.EncodeToString(digestOf(data)), Who: by.Who, From: by.From})
	if err != nil {
		return fmt.Errorf("mark edit: %w", err)
	}
	if err := write(sidecar(path, "edit"), path, mark); err != nil {
		return fmt.Errorf("mark edit: %w", reasonError(err))
	}
	if err := write(path, path, data, renameio.WithExistingPermissions()); err != nil {
		return fmt.Errorf("write keys: %w", reasonError(err))
	}
	return strictfile.SyncFolder(filepath.Dir(path))
}

// write replaces a file in one step. An edit by root leaves it to the owner of the file
// like: the service, which has an account of its own, must be able to read what root
// has edited.
func write(path, like string, data []byte, options ...renameio.Option) error {
	options = append([]renameio.Option{renameio.WithPermissions(0o600), renameio.WithTempDir(filepath.Dir(path))}, options...)
	f, err := renameio.NewPendingFile(path, options...)
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := giveTo(f.File, like); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// giveTo gives f to the owner of the file like, or of its folder where there is no such
// file yet. Only root can, and only root needs to.
func giveTo(f *os.File, like string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(like)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(filepath.Dir(like))
	}
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// reasonError drops the temporary names of a failed write.
func reasonError(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// sidecar is the name of a hidden file that belongs to path.
func sidecar(path, kind string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+kind)
}

// mark is the content of .NAME.edit.
type mark struct {
	Digest string `json:"sha256"` // of the key file that the edit wrote
	Who    string `json:"who"`
	From   string `json:"from"`
}

// editor returns the author of this content; false when [Edit] did not write it.
func editor(path string, data []byte) (audit.Editor, bool) {
	target, err := strictfile.Resolve(path)
	if err != nil {
		return audit.Editor{}, false
	}
	raw, err := os.ReadFile(sidecar(target, "edit"))
	if err != nil {
		return audit.Editor{}, false
	}
	var m mark
	if json.Unmarshal(raw, &m) != nil || m.Digest != hex.EncodeToString(digestOf(data)) {
		return audit.Editor{}, false
	}
	return audit.Editor{Who: m.Who, From: m.From}, true
}

func digestOf(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// lock takes the lock of a file that stays: removing it would let two edits
// lock two different files.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // beside the configured file
	if err != nil {
		return nil, err
	}
	if err := giveTo(f, filepath.Dir(path)); err != nil {
		_ = f.Close()
		return nil, err
	}
	deadline := time.NewTimer(lockWait)
	defer deadline.Stop()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, err
		}
		select {
		case <-retry.C:
		case <-deadline.C:
			_ = f.Close()
			return nil, ErrBusy
		}
	}
}
