// Package machine reads how much memory and how many file descriptors this process may
// use. It reads /proc and cgroups; what cannot be read is 0.
package machine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Memory returns the bytes of memory that this process may use: the limit of the
// smallest cgroup that it is in, at most the memory of the machine.
func Memory() int64 { return memory("/") }

func memory(root string) int64 {
	total := memTotal(filepath.Join(root, "proc/meminfo"))
	b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup")) //nolint:gosec // of /proc
	if err != nil {
		return total
	}
	for line := range strings.Lines(string(b)) {
		// hierarchy:controllers:path; version 2 has no controllers
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		base, file := "sys/fs/cgroup", "memory.max"
		switch {
		case parts[1] == "memory":
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		case parts[1] != "":
			continue
		}
		// A limit of any group above holds too. In a container the path may be the one on
		// the host, which does not exist here; the topmost group is then our own.
		for path := filepath.Clean("/" + parts[2]); ; path = filepath.Dir(path) {
			if n := number(filepath.Join(root, base, path, file)); n > 0 && (total == 0 || n < total) {
				total = n
			}
			if path == "/" {
				break
			}
		}
	}
	return total
}

// memTotal reads /proc/meminfo.
func memTotal(path string) int64 {
	f, err := os.Open(path) //nolint:gosec // of /proc
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(v, "kB")), 10, 64)
			if err != nil || kib <= 0 || kib > math.MaxInt64>>10 {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// number reads a file that holds one number; "max" and a text that is no number give 0.
func number(path string) int64 {
	b, err := os.ReadFile(path) //nolint:gosec // of /sys
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Files returns how many file descriptors this process or a child may open: the hard
// limit, to which [RaiseFiles] raises the soft one.
func Files() int64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return int64(min(l.Max, math.MaxInt64)) //nolint:gosec // bounded just now
}

// RaiseFiles raises the soft limit of file descriptors to the hard one, for
// this process and for the children that it starts afterwards. Go raises its own
// at the start, but gives children the old one until it is set here.
func RaiseFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("raise the limit of open files to %d: %w", l.Max, err)
	}
	return nil
}

// OutOfFiles reports whether err says that this process or the machine has no
// file descriptor left.
func OutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
