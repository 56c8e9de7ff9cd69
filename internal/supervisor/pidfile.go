package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrRunning means that another launcher, or a process that one left behind,
// owns the PID file.
var ErrRunning = errors.New("already running")

// PIDFile names the running process for other programs and keeps a second launcher
// away: its owner holds a lock on it, which ends with the owner.
//
// Its first line is the PID, the second the process's start time and the boot, the
// third its command line. The number alone is never trusted: after a crash it may
// belong to another process.
type PIDFile struct {
	path string
	file *os.File
}

// AcquirePIDFile takes the file, whose folder is created if missing. It fails with
// [ErrRunning] while another owner lives, and while the very process lives that the
// file names. It takes a file that names a dead process or another one.
func AcquirePIDFile(path string) (*PIDFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("create folder of PID file: %w", err)
	}
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // a PID is public
		if err != nil {
			return nil, fmt.Errorf("open PID file: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			pid, _ := Running(path)
			_ = f.Close()
			return nil, fmt.Errorf("%w: another launcher holds %s (process %d)", ErrRunning, path, pid)
		}
		// The last owner may have removed the name between open and lock.
		mine, err := f.Stat()
		now, nowErr := os.Stat(path)
		if err != nil || nowErr != nil || !os.SameFile(mine, now) {
			_ = f.Close()
			if err := errors.Join(err, nowErr); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("check PID file: %w", err)
			}
			continue
		}
		if pid, ok := Running(path); ok && pid != os.Getpid() {
			line := commandLine(pid)
			_ = f.Close()
			return nil, fmt.Errorf("%w: process %d of %s is alive: %s", ErrRunning, pid, path, line)
		}
		return &PIDFile{path: path, file: f}, nil
	}
}

// Set writes the process into the file.
func (p *PIDFile) Set(pid int) error {
	s, err := readStat(pid)
	if err != nil {
		return fmt.Errorf("write PID file: %w", err)
	}
	text := fmt.Sprintf("%d\n%d %s\n%s\n", pid, s.start, bootID(), strings.ReplaceAll(commandLine(pid), "\n", " "))
	if err := errors.Join(p.file.Truncate(0), writeAt(p.file, text)); err != nil {
		return fmt.Errorf("write PID file: %w", err)
	}
	return nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// Clear empties the file: the process has ended, but the owner still runs.
func (p *PIDFile) Clear() error {
	if err := p.file.Truncate(0); err != nil {
		return fmt.Errorf("clear PID file: %w", err)
	}
	return nil
}

// Release removes the file and gives up its lock.
func (p *PIDFile) Release() error {
	if err := errors.Join(os.Remove(p.path), p.file.Close()); err != nil {
		return fmt.Errorf("release PID file: %w", err)
	}
	return nil
}

// Running reads a PID file and reports the process that it names, and whether
// that very process is alive: same PID, same start time, same boot.
func Running(path string) (pid int, ok bool) {
	b, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return 0, false
	}
	first, rest, _ := strings.Cut(string(b), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 0 {
		return 0, false
	}
	second, _, _ := strings.Cut(rest, "\n")
	s, err := readStat(pid)
	if err != nil || s.state == 'Z' {
		return pid, false
	}
	return pid, second == fmt.Sprintf("%d %s", s.start, bootID())
}
