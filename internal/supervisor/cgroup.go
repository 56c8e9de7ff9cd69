package supervisor

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cgroup is the folder of a control group (version 2) that holds one family; empty
// where none can be made, which is the usual case for an ordinary user. The other ways
// to find a family work without it; a cgroup makes the result certain.
type cgroup string

// procSelf is the kernel's folder for this process; tests replace it.
var procSelf = "/proc/self"

// makeCgroup makes a new group below our own; it fails where one of that name exists.
func makeCgroup(name string) cgroup {
	own := ownCgroup()
	if own == "" {
		return ""
	}
	dir := filepath.Join(own, "tollgate-"+name)
	if err := os.Mkdir(dir, 0o750); err != nil {
		return ""
	}
	c := cgroup(dir)
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		c.remove()
		return ""
	}
	return c
}

// ownCgroup is the folder of this process's group, empty when it cannot be seen.
func ownCgroup() string {
	path, ok := "", false
	lines(procSelf+"/cgroup", func(line string) {
		if p, found := strings.CutPrefix(line, "0::"); found {
			path, ok = p, true
		}
	})
	if !ok {
		return ""
	}
	dir := ""
	lines(procSelf+"/mountinfo", func(line string) {
		// ID PARENT MAJOR:MINOR ROOT MOUNTPOINT … - TYPE SOURCE …
		before, after, found := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if !found || len(f) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			return
		}
		if rest, err := filepath.Rel(f[3], path); err == nil && !strings.HasPrefix(rest, "..") {
			dir = filepath.Join(f[4], rest)
		}
	})
	return dir
}

func lines(path string, each func(string)) {
	f, err := os.Open(path) //nolint:gosec // a file of /proc
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		each(s.Text())
	}
}

// open returns the folder for a start into the group; nil where there is none.
func (c cgroup) open() *os.File {
	if c == "" {
		return nil
	}
	f, err := os.Open(string(c))
	if err != nil {
		return nil
	}
	return f
}

// processes are those in the group now.
func (c cgroup) processes() (pids []int) {
	if c == "" {
		return nil
	}
	lines(filepath.Join(string(c), "cgroup.procs"), func(line string) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	})
	return pids
}

// kill kills all processes in the group in one step, also those that are being forked.
func (c cgroup) kill() {
	if c != "" {
		_ = os.WriteFile(filepath.Join(string(c), "cgroup.kill"), []byte("1"), 0)
	}
}

// remove removes an empty group. The kernel may need a moment to notice that it is
// empty, and a long one on a busy machine.
func (c cgroup) remove() {
	if c == "" {
		return
	}
	for range 200 {
		if err := os.Remove(string(c)); err == nil || os.IsNotExist(err) {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}

// String is the folder, "-" where there is none.
func (c cgroup) String() string {
	if c == "" {
		return "-"
	}
	return fmt.Sprintf("%q", string(c))
}
