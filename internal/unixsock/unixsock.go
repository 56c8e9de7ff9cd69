// Package unixsock listens on and dials Unix sockets whose path may be longer
// than the 107 bytes that the kernel takes: the folder is opened, and the socket
// is named through /proc/self/fd.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxPath is what fits into sockaddr_un.sun_path beside its final NUL.
const maxPath = 107

// probeTimeout bounds the wait for an answer on an old socket.
const probeTimeout = 2 * time.Second

var (
	// ErrInUse means that a process answers on the socket.
	ErrInUse = errors.New("socket is in use by a running process")
	// ErrNotSocket means that something else than a socket has the name.
	ErrNotSocket = errors.New("path exists and is not a socket")
)

// Listen listens on path with the given permissions, which hold from the first moment
// that the name exists. A missing parent folder is created for its owner only (0700). A
// socket on which no process answers is replaced. A socket on which one answers is
// [ErrInUse]; a file of another kind is [ErrNotSocket]. Closing the listener removes
// the name, unless another socket has taken it meanwhile.
func Listen(path string, mode os.FileMode) (net.Listener, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	dir, name := filepath.Split(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create socket folder: %w", err)
	}
	folder, err := os.Open(dir) //nolint:gosec // the caller's own folder
	if err != nil {
		return nil, fmt.Errorf("open socket folder: %w", err)
	}
	defer func() { _ = folder.Close() }()
	// Two processes that start at once must not both take the name for stale.
	// The lock goes with the descriptor.
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock socket folder: %w", err)
	}
	if err := probe(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := bind(folder, name, mode)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.path = path
	return l, nil
}

// bind makes the socket under a temporary name, so that it has its permissions
// and a listener before anybody can find it.
func bind(folder *os.File, name string, mode os.FileMode) (*listener, error) {
	root, err := os.OpenRoot(folder.Name())
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	temp := fmt.Sprintf(".s%d", os.Getpid())
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: through(folder, temp), Net: "unix"})
	if err != nil {
		return nil, err
	}
	inner.SetUnlinkOnClose(false) // the name it knows is the temporary one
	undo := func(err error) error {
		return errors.Join(err, inner.Close(), root.Remove(temp))
	}
	if err := root.Chmod(temp, mode.Perm()); err != nil {
		return nil, undo(err)
	}
	info, err := root.Lstat(temp)
	if err != nil {
		return nil, undo(err)
	}
	if err := root.Rename(temp, name); err != nil {
		return nil, undo(err)
	}
	return &listener{UnixListener: inner, info: info}, nil
}

// probe returns nil when path is free or stale.
func probe(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return ErrNotSocket
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	conn, err := Dial(ctx, path)
	switch {
	case err == nil:
		return errors.Join(ErrInUse, conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	default: // a full backlog or a missing permission: a process listens
		return fmt.Errorf("%w (%w)", ErrInUse, err)
	}
}

// through returns a short path for a file in the folder. The path is valid while folder
// is open.
func through(folder *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)
}

type listener struct {
	*net.UnixListener
	path string
	info os.FileInfo
	once sync.Once
	err  error
}

// Close stops listening and removes the socket file if it is still this one.
func (l *listener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.info) {
			l.err = os.Remove(l.path)
		}
		l.err = errors.Join(l.err, l.UnixListener.Close())
	})
	return l.err
}

// Addr names the socket as it was asked for.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Dial connects to the socket at path, of any length.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) <= maxPath {
		return d.DialContext(ctx, "unix", path)
	}
	dir, name := filepath.Split(path)
	folder, err := os.OpenFile(filepath.Clean(dir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket folder: %w", err)
	}
	defer func() { _ = folder.Close() }()
	return d.DialContext(ctx, "unix", through(folder, name))
}

// HTTPClient speaks HTTP to the socket at path, whatever host the URL names. A
// timeout of zero means none. The caller closes idle connections when done.
func HTTPClient(path string, timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return Dial(ctx, path) },
			// These are local calls a few seconds apart; a kept connection would
			// only be found dead after the other side has been restarted.
			DisableKeepAlives: true,
		},
	}
}
