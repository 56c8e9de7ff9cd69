//go:build packages

package packages_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// machine is a system whose systemd runs, with a loopback interface and no other.
type machine struct {
	*system
	leader string // pid of its systemd
}

// boot starts the system's systemd by the nspawn of that Debian.
func (s *system) boot() *machine {
	s.t.Helper()
	root := given(s.t, "ROOT_DIR")
	// A program of the Debian, with its own libraries, whatever this machine has.
	libraries := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	cmd := exec.Command(filepath.Join(root, "lib64/ld-linux-x86-64.so.2"), "--library-path", libraries+":"+filepath.Join(libraries, "systemd"), //nolint:gosec // of the test
		filepath.Join(root, "usr/bin/systemd-nspawn"), "-D", s.dir, "--register=no", "--keep-unit", "--private-network", "--machine=tollgate-test", "--boot", "--console=pipe")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	m := &machine{system: s}
	s.t.Cleanup(func() {
		if m.leader != "" {
			_ = exec.Command("kill", "-RTMIN+4", m.leader).Run() //nolint:gosec // power off
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if s.t.Failed() {
			s.t.Logf("the console:\n%s", said.String()[max(0, said.Len()-3000):])
		}
	})
	children := fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid)
	m.until(30*time.Second, "a first process", func() bool {
		out, err := os.ReadFile(children)
		m.leader = strings.TrimSpace(string(out))
		return err == nil && m.leader != ""
	})
	m.until(60*time.Second, "systemd", func() bool {
		out, _ := m.try("systemctl is-system-running")
		return strings.Contains(out, "running") || strings.Contains(out, "degraded")
	})
	return m
}

// try runs a shell beside the machine's systemd.
func (m *machine) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--target", m.leader, "--mount", "--uts", "--ipc", "--net", "--pid", "/bin/sh", "-ec", "cd /; "+script) //nolint:gosec // of the test
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is try for what must succeed.
func (m *machine) run(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		journal, _ := m.try("journalctl --no-pager -n 40 -u 'tollgate*'; tail -n 20 /var/lib/tollgate/logs/*.log")
		m.t.Fatalf("%s: %v\n%s\n%s", script, err, out, journal)
	}
	return out
}

func (m *machine) until(limit time.Duration, what string, ok func() bool) {
	m.t.Helper()
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			journal, _ := m.try("systemctl status --no-pager 'tollgate*'; journalctl --no-pager -n 40 -u 'tollgate*'")
			m.t.Fatalf("no %s within %v\n%s", what, limit, journal)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// pid is the process of that name that is a child of the unit.
func (m *machine) pid(name string) string {
	m.t.Helper()
	out, _ := m.try("pgrep -o -x " + name)
	return strings.Split(out, "\n")[0]
}

// stream asks for a metered stream and reports whether it came whole.
func (m *machine) stream() bool {
	out, err := m.try(`curl -sS -m 20 http://127.0.0.1:8080/v1/chat/completions -H "Authorization: Bearer $(cat /root/alice.key)" -H 'Content-Type: application/json' ` +
		`-d '{"model":"simulated","stream":true,"max_tokens":7,"messages":[{"role":"user","content":"hi"}]}'`)
	return err == nil && strings.Contains(out, "data: [DONE]")
}

// TestASystemdRunsIt: the unit of the package is started, answers, reloads, outlives the
// death of each of its parts and its own, and stops cleanly with nothing left.
func TestASystemdRunsIt(t *testing.T) {
	s := newSystem(t)
	s.in("dpkg --force-unsafe-io -i " + s.put(the(t, "tollgate_*.deb")) + " " + s.put(the(t, "tollgate-envoy_*.deb")))
	m := s.boot()
	m.run("systemctl start tollgate") // returns when all answers: the unit is of Type=notify
	m.run("curl -sSf -m 5 http://127.0.0.1:8080/health")
	if out := m.run("systemctl show -p StatusText -p ActiveState tollgate"); !strings.Contains(out, "ready http://127.0.0.1:8080") && !strings.Contains(out, "StatusText=ready") {
		t.Errorf("it says %s", out)
	}
	m.run("tollgate --config /etc/tollgate/config.yaml keys add --user alice >/root/alice.key 2>/dev/null")
	if !m.stream() {
		t.Fatal("no stream")
	}
	m.run("systemctl reload tollgate && systemctl is-active tollgate")

	restarts := func(child string) {
		t.Helper()
		old := m.pid(child)
		m.run("kill -9 " + old)
		m.until(40*time.Second, "new "+child, func() bool { now := m.pid(child); return now != "" && now != old && m.stream() })
	}
	restarts("envoy")
	restarts("tollgate")
	// The launcher itself, by systemd; nothing of the old one is left.
	before := m.run("pgrep -x envoy; pgrep -x tollgate; systemctl show -P MainPID tollgate")
	m.run("kill -9 $(systemctl show -P MainPID tollgate)")
	m.until(60*time.Second, "new launcher", func() bool {
		out, _ := m.try("systemctl is-active tollgate")
		return out == "active" && m.stream()
	})
	for pid := range strings.FieldsSeq(before) {
		if out, err := m.try("test -e /proc/" + pid + " && cat /proc/" + pid + "/comm"); err == nil {
			t.Errorf("process %s of the old launcher is left: %s", pid, out)
		}
	}
	used := m.run("tollgate --config /etc/tollgate/config.yaml usage --by user --format json")
	if requests, _ := strconv.Atoi(first(regexp.MustCompile(`"requests": ?(\d+)`).FindStringSubmatch(used))); requests < 4 {
		t.Errorf("the ledger has %s", used)
	}

	m.run("systemctl stop tollgate")
	out := m.run("systemctl show -P Result tollgate; systemctl show -P ActiveState tollgate; pgrep -x envoy || pgrep -x tollgate || pgrep -x launcher || echo none")
	if out != "success\ninactive\nnone" {
		t.Errorf("the stop is %q", out)
	}
	m.run("tollgate --config /etc/tollgate/config.yaml ledger verify")
	// Nobody but the account reads keys, ledger and logs; what root has looked at stays the account's.
	if out := m.run("find /var/lib/tollgate ! -user tollgate -o -type f -perm /077 -o -type d -perm /027"); out != "" {
		t.Errorf("these can be read by others, or belong to somebody else:\n%s", m.run("ls -lad $(find /var/lib/tollgate ! -user tollgate -o -type f -perm /077 -o -type d -perm /027)"))
	}
	if out := m.run("grep -rl \"$(cut -c1-20 /root/alice.key)\" /var/lib/tollgate /var/log /etc/tollgate || true"); out != "" {
		t.Errorf("the key is in %s", out)
	}
}

// TestAHungServiceIsStartedAgain: tollgate-serve.service alone. A tollgate that stands
// still misses its watchdog.
func TestAHungServiceIsStartedAgain(t *testing.T) {
	s := newSystem(t)
	s.in("dpkg --force-unsafe-io -i " + s.put(the(t, "tollgate_*.deb")))
	m := s.boot()
	m.run("systemctl start tollgate-serve")
	m.run("curl -sSf -m 5 http://127.0.0.1:9464/healthz")
	old := m.run("systemctl show -P MainPID tollgate-serve")
	m.run("kill -STOP " + old)
	m.until(60*time.Second, "new tollgate", func() bool {
		now, _ := m.try("systemctl show -P MainPID tollgate-serve; systemctl is-active tollgate-serve")
		return !strings.HasPrefix(now, old+"\n") && strings.HasSuffix(now, "\nactive")
	})
	if out := m.run("journalctl --no-pager -u tollgate-serve"); !strings.Contains(out, "Watchdog timeout") {
		t.Errorf("no watchdog in\n%s", out)
	}
	m.run("systemctl stop tollgate-serve")
	if out := m.run("systemctl show -P Result tollgate-serve"); out != "success" {
		t.Errorf("the stop is %s", out)
	}
}

// first is the first group of a match.
func first(match []string) string {
	if len(match) < 2 {
		return ""
	}
	return match[1]
}
