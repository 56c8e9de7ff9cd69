package machine

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestMemoryIsTheLeastOfMachineAndGroups(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing can be read": {nil, 0},
		"a machine":           {map[string]string{"proc/meminfo": "MemTotal:       1024 kB\n"}, 1 << 20},
		"no limit": {map[string]string{
			"proc/meminfo": "MemFree: 1 kB\nMemTotal: 1024 kB\n", "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
		}, 1 << 20},
		"a group": {map[string]string{
			"proc/meminfo": "MemTotal: 1024 kB\n", "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "4096\n",
		}, 4096},
		"a group above": {map[string]string{
			"proc/meminfo": "MemTotal: 1024 kB\n", "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "8192\n", "sys/fs/cgroup/a/memory.max": "4096\n",
		}, 4096},
		"a container that sees the host's path": {map[string]string{
			"proc/meminfo": "MemTotal: 1024 kB\n", "proc/self/cgroup": "0::/pods/x\n", "sys/fs/cgroup/memory.max": "4096\n",
		}, 4096},
		"version 1": {map[string]string{
			"proc/meminfo": "MemTotal: 1024 kB\n", "proc/self/cgroup": "3:cpu,cpuacct:/x\n4:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "4096\n",
		}, 4096},
		"a limit above the machine": {map[string]string{
			"proc/meminfo": "MemTotal: 1024 kB\n", "proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, text := range c.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := memory(root); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
	if Memory() <= 0 || Files() <= 0 {
		t.Errorf("here: %d bytes, %d files", Memory(), Files())
	}
}

func TestWhoHasNoDescriptorsLeft(t *testing.T) {
	if !OutOfFiles(fmt.Errorf("ask envoy: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)})) ||
		OutOfFiles(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}) || OutOfFiles(nil) {
		t.Error("descriptors are taken for something else")
	}
}
