package supervisor

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestACgroupIsMadeWhereOneCanBe(t *testing.T) {
	own := ownCgroup()
	probe := filepath.Join(own, "tollgate-probe")
	possible := own != "" && os.Mkdir(probe, 0o750) == nil
	if possible {
		_, err := os.Stat(filepath.Join(probe, "cgroup.kill"))
		possible = err == nil
		_ = os.Remove(probe)
	}
	c := makeCgroup("test")
	defer c.remove()
	if !possible {
		if len(c.processes()) != 0 {
			t.Errorf("processes in %s, which cannot be", c)
		}
		c.kill() // does nothing
		return
	}
	dir := c.open()
	if dir == nil {
		t.Fatalf("none in %s", own)
	}
	defer func() { _ = dir.Close() }()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got := c.processes(); len(got) != 1 || got[0] != cmd.Process.Pid {
		t.Errorf("processes: got %v, want %d", got, cmd.Process.Pid)
	}
	c.kill()
	if err := cmd.Wait(); err == nil {
		t.Error("it ended by itself")
	}
	c.remove()
	if _, err := os.Stat(string(c)); !os.IsNotExist(err) {
		t.Errorf("the group is left: %v", err)
	}
}
