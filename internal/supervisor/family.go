package supervisor

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// markName is the environment variable that marks the processes of a family, whatever
// group, session and parent they have.
const markName = "TOLLGATE_FAMILY"

const (
	// sweepRounds and sweepInterval bound how long we try to kill a family.
	sweepRounds   = 100
	sweepInterval = 50 * time.Millisecond
	// freezeRounds bounds how often we search a family again while it forks.
	freezeRounds = 20
)

// identity identifies a process until the next boot. A PID alone does not: the kernel
// uses PIDs again.
type identity struct {
	pid   int
	start uint64
}

// family is everything that came of one start of a child: the process that was started,
// its leader, and all its descendants. A descendant may be in a group and a session of
// its own, have lost its parent, and have overwritten its environment for a nicer title
// in ps, as the workers of inference servers do. So any of these is enough: its
// ancestors, its group or session, the mark in its environment, its cgroup, or an
// earlier observation.
type family struct {
	leader identity
	mark   string
	cgroup cgroup
	adopts bool // unknown orphans are taken for its own

	mu    sync.Mutex
	known map[identity]struct{} // guarded by mu; the leader not among them
}

// newFamily returns a family without a leader.
func newFamily(adopts bool) *family {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	mark := hex.EncodeToString(b[:])
	return &family{mark: mark, cgroup: makeCgroup(mark[:12]), adopts: adopts, known: map[identity]struct{}{}}
}

// lead sets the leader. The start time is 0, which means any, where the leader has
// ended already.
func (f *family) lead(pid int) {
	s, _ := readStat(pid)
	f.leader = identity{pid, s.start}
}

// claims are the processes below this one that belong to others: our own helpers, and
// the known processes of other families. Nil means that this process is no sub-reaper,
// so that orphans do not become its children.
type claims struct {
	adopts    bool // the family that is searched takes unknown orphans
	processes map[int]bool
	marks     map[string]bool
	known     map[identity]bool
}

// orphan reports whether a child of this process belongs to no family.
func (c *claims) orphan(s procStat, mark string) bool {
	return c != nil && c.adopts && s.parent == os.Getpid() &&
		!c.processes[s.pid] && !c.marks[mark] && !c.known[identity{s.pid, s.start}]
}

// members are the processes of the family among all of them, zombies included. mu is
// held. quick skips the environments of processes, which are slow to read.
func (f *family) members(all []procStat, quick bool, c *claims) []procStat {
	in := map[int]bool{}
	for _, pid := range f.cgroup.processes() {
		in[pid] = true
	}
	self := os.Getpid()
	stranger := f.recycled(all)
	for _, s := range all {
		_, known := f.known[identity{s.pid, s.start}]
		switch {
		case s.pid == self || s.pid == 1:
		case in[s.pid], known, s.pid == f.leader.pid && !stranger[s.pid], f.owns(s.group, stranger), f.owns(s.session, stranger):
			in[s.pid] = true
		case stranger[s.pid]:
		case !quick, c != nil && c.adopts && s.parent == self:
			mark := markOf(s.pid)
			in[s.pid] = mark == f.mark || c.orphan(s, mark)
		}
	}
	descend(all, in)
	return slices.DeleteFunc(slices.Clone(all), func(s procStat) bool { return !in[s.pid] })
}

// descend adds all descendants of those that are in.
func descend(all []procStat, in map[int]bool) {
	self := os.Getpid()
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if !in[s.pid] && in[s.parent] && s.pid != self {
				in[s.pid], grown = true, true
			}
		}
	}
}

// owns reports whether a group or session belongs to the leader or to a known process.
// REQUIRES: mu held.
func (f *family) owns(id int, stranger map[int]bool) bool {
	if stranger[id] {
		return false
	}
	if id == f.leader.pid {
		return true
	}
	for k := range f.known {
		if k.pid == id {
			return true
		}
	}
	return false
}

// recycled returns the PIDs of the family that belong to other processes by now.
// REQUIRES: mu held.
func (f *family) recycled(all []procStat) map[int]bool {
	out := map[int]bool{}
	for _, s := range all {
		if s.pid == f.leader.pid && f.leader.start != 0 && s.start != f.leader.start {
			out[s.pid] = true
		}
		for k := range f.known {
			if k.pid == s.pid && k.start != s.start {
				out[s.pid] = true
			}
		}
	}
	return out
}

// observe records the processes of the family, because they cannot be recognised by
// their parents once those have ended, and forgets those that have ended. It returns
// the living ones and how many of them are new.
func (f *family) observe(all []procStat, quick bool, c *claims) (live []procStat, fresh int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	inUse := map[int]bool{}
	for _, s := range all {
		inUse[s.pid], inUse[s.group], inUse[s.session] = true, true, true
	}
	for k := range f.known {
		if !inUse[k.pid] {
			delete(f.known, k)
		}
	}
	for _, s := range f.members(all, quick, c) {
		id := identity{s.pid, s.start}
		if _, ok := f.known[id]; !ok && s.pid != f.leader.pid {
			f.known[id] = struct{}{}
			fresh++
		}
		if s.alive() {
			live = append(live, s)
		}
	}
	return live, fresh
}

// strike stops all processes of the family, so that none forks or is orphaned
// meanwhile, and then kills them. It returns those that were alive.
func (f *family) strike(g *Guard) (live []procStat) {
	for range freezeRounds {
		fresh := 0
		g.scan(f, func(all []procStat, c *claims) { live, fresh = f.observe(all, false, c) })
		for _, s := range live {
			_ = unix.Kill(s.pid, unix.SIGSTOP)
		}
		if fresh == 0 {
			break
		}
	}
	f.cgroup.kill()
	for _, s := range live {
		_ = unix.Kill(s.pid, unix.SIGKILL)
	}
	return live
}

// sweep kills until no process is alive, for at most sweepRounds rounds, and returns
// those that still are. It reaps processes that have become our children, except the
// leader.
func (f *family) sweep(rounds int, g *Guard) []procStat {
	for round := 0; ; round++ {
		live := f.strike(g)
		f.reap()
		if len(live) == 0 || round >= rounds {
			return live
		}
		<-time.After(min(sweepInterval, time.Millisecond<<min(round, 10)))
	}
}

// reap collects the zombies of the family that are our children, except the leader:
// wait collects that one.
func (f *family) reap() {
	f.mu.Lock()
	defer f.mu.Unlock()
	self := os.Getpid()
	for k := range f.known {
		if s, err := readStat(k.pid); err == nil && s.start == k.start && s.parent == self && s.state == 'Z' {
			_, _ = unix.Wait4(k.pid, nil, unix.WNOHANG, nil)
		}
	}
}

// markOf is the mark in the environment of a process; empty when it has none or
// it cannot be read.
func markOf(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	for line := range bytes.SplitSeq(b, []byte{0}) {
		if value, ok := bytes.CutPrefix(line, []byte(markName+"=")); ok {
			return string(value)
		}
	}
	return ""
}
