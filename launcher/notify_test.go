package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSystemdHearsOfTheLife: a unit of Type=notify is started when everything answers,
// reloads on SIGHUP, and its watchdog is fed. No child may speak to systemd: its
// environment has no socket.
func TestSystemdHearsOfTheLife(t *testing.T) {
	s := newStack(t, "")
	path := filepath.Join(s.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	s.cmd.Env = append(s.cmd.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=900000")
	var heard []string
	await := func(want string) {
		t.Helper()
		buf := make([]byte, 1024)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		for {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("no %q in %q: %v", want, heard, err)
			}
			heard = append(heard, string(buf[:n]))
			if strings.HasPrefix(string(buf[:n]), want) {
				return
			}
		}
	}
	s.start()
	await("READY=1\nSTATUS=ready http://" + s.edge)
	for _, early := range heard[:len(heard)-1] {
		if strings.Contains(early, "READY=1") {
			t.Errorf("before that it said %q", early)
		}
	}
	s.ready()
	await("WATCHDOG=1")
	await("WATCHDOG=1")
	s.signal(syscall.SIGHUP)
	await("RELOADING=1\nMONOTONIC_USEC=")
	await("READY=1\nSTATUS=ready")
	s.signal(syscall.SIGTERM)
	await("STOPPING=1\nSTATUS=stopping: ")
	if got := s.wait(20 * time.Second); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}
