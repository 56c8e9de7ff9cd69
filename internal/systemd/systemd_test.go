package systemd_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/internal/systemd"
)

// manager is a socket in the place of systemd's.
func manager(t *testing.T) (read func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		buf := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestWhatTheManagerHears(t *testing.T) {
	read := manager(t)
	for _, c := range []struct {
		say  func()
		want string
	}{
		{func() { systemd.Ready("at http://127.0.0.1:8080") }, "READY=1\nSTATUS=at http://127.0.0.1:8080"},
		{systemd.Reloading, "RELOADING=1\nMONOTONIC_USEC="},
		{func() { systemd.Stopping("two\nlines") }, "STOPPING=1\nSTATUS=two lines"},
		{func() { systemd.Ready("bad \xff" + strings.Repeat("ä", 1000)) }, "READY=1\nSTATUS=bad ?ä"},
	} {
		c.say()
		if got := read(); !strings.HasPrefix(got, c.want) || len(got) > 450 {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestNobodyHears(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	systemd.Ready("")
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	systemd.Ready("")
}

func TestTheWatchdogIsFedWhileAllIsWell(t *testing.T) {
	read := manager(t)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(int((300 * time.Millisecond).Microseconds())))
	t.Setenv("WATCHDOG_PID", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answers := make(chan error, 4)
	for _, err := range []error{nil, nil, errors.New("sick"), nil} {
		answers <- err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		systemd.Watch(ctx, func(ctx context.Context) (string, error) {
			select {
			case err := <-answers:
				if err != nil {
					return "sick", err
				}
				return "well", nil
			case <-ctx.Done(): // hangs
				return "well", ctx.Err()
			}
		})
	}()
	for i, want := range []string{"WATCHDOG=1\nSTATUS=well", "WATCHDOG=1", "STATUS=sick", "WATCHDOG=1\nSTATUS=well"} {
		if got := read(); got != want {
			t.Errorf("message %d is %q, want %q", i, got, want)
		}
	}
	cancel()
	<-done
}
