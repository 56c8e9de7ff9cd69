// Package pgtest runs a real PostgreSQL for tests, which may kill it and start
// it again on what it had written.
package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Binaries is the folder of PostgreSQL's programs: POSTGRES_BIN, or what
// scripts/fetch_postgres.py fetched. Where there is none the test is skipped by
// name, or fails when E2E=require.
func Binaries(tb testing.TB) string {
	tb.Helper()
	if named := os.Getenv("POSTGRES_BIN"); named != "" {
		return named
	}
	_, here, _, _ := runtime.Caller(0)
	fetched, err := filepath.Glob(filepath.Join(filepath.Dir(here), "../../.cache/postgres/*/*/*/bin"))
	switch {
	case err != nil:
		tb.Fatal(err)
	case len(fetched) > 0:
		return fetched[len(fetched)-1]
	case os.Getenv("E2E") == "require":
		tb.Fatal("E2E=require, but there is no PostgreSQL: run scripts/fetch_postgres.py")
	default:
		tb.Skip("needs a real PostgreSQL, see scripts/fetch_postgres.py")
	}
	return ""
}

// Server is a PostgreSQL on a loopback port with a folder of its own.
type Server struct {
	tb      testing.TB
	bin     string
	dir     string
	port    string
	user    *syscall.Credential // nil: who runs the tests
	mu      sync.Mutex
	process *os.Process // nil while it is down; guarded by mu
	exited  chan struct{}
}

// nobody is who runs the server of a root user, which it refuses to serve.
const nobody = 65534

// Start makes a server with an empty database cluster and stops it with the
// test. Its files are synced to disk: a killed server loses nothing that it has
// confirmed.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := start(tb)
	tb.Cleanup(s.remove)
	return s
}

var shared *Server

// Shared is a server that the tests of a package use one after the other, each
// with databases of its own. [Stop] ends it.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	if shared == nil {
		shared = start(tb)
	}
	shared.tb = tb
	return shared
}

// Stop ends the shared server, where there is one.
func Stop() {
	if shared != nil {
		shared.remove()
	}
}

func (s *Server) remove() {
	s.Kill()
	_ = os.RemoveAll(filepath.Dir(s.dir))
}

func start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{tb: tb, bin: Binaries(tb)}
	dir, err := os.MkdirTemp("", "pgtest-") //nolint:usetesting // a shared server outlives the test
	if err != nil {
		tb.Fatal(err)
	}
	s.dir = filepath.Join(dir, "data")
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	if os.Geteuid() == 0 {
		s.user = &syscall.Credential{Uid: nobody, Gid: nobody}
		s.openToNobody(dir)
	}
	s.run("initdb", "-D", s.dir, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-instructions", "--no-sync")
	s.port = strconv.Itoa(freePort(tb))
	s.Start()
	return s
}

// openToNobody lets another user reach the folder and the programs: those are
// copied where a folder above them is closed.
func (s *Server) openToNobody(dir string) {
	s.tb.Helper()
	for _, step := range []error{os.Chmod(dir, 0o711), os.Chown(s.dir, nobody, nobody)} { //nolint:gosec // the server's user passes through
		if step != nil {
			s.tb.Fatal(step)
		}
	}
	bin, err := filepath.EvalSymlinks(s.bin)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.bin = bin
	for up := bin; up != "/"; up = filepath.Dir(up) {
		info, err := os.Stat(up)
		if err != nil {
			s.tb.Fatal(err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			// The bundled libraries lie two folders above, found by relative paths.
			root := filepath.Dir(filepath.Dir(filepath.Dir(bin)))
			if err := os.CopyFS(filepath.Join(dir, "programs"), os.DirFS(root)); err != nil {
				s.tb.Fatal(err)
			}
			inside, _ := filepath.Rel(root, bin)
			s.bin = filepath.Join(dir, "programs", inside)
			s.open(filepath.Join(dir, "programs"))
			return
		}
	}
}

func (s *Server) open(root string) {
	s.tb.Helper()
	if err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, 0o755) //nolint:gosec // programs for another user
	}); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...) //nolint:gosec // this machine's own
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (s *Server) run(name string, args ...string) {
	s.tb.Helper()
	out, err := s.command(context.Background(), name, args...).CombinedOutput()
	if err != nil {
		s.tb.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// Start starts the server, again after a Kill, and waits until it answers.
func (s *Server) Start() {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		out := s.startOnce()
		if s.answers(ctx) {
			return
		}
		// A killed server's children still hold its memory for a moment.
		s.Kill()
		if ctx.Err() != nil {
			s.tb.Fatalf("PostgreSQL does not start:\n%s", out)
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // between two tries
	}
}

func (s *Server) startOnce() *bytes.Buffer {
	s.tb.Helper()
	out := &bytes.Buffer{}
	cmd := s.command(context.Background(), "postgres", "-D", s.dir, "-c", "listen_addresses=127.0.0.1", "-p", s.port,
		"-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "log_min_messages=warning")
	cmd.Stdout, cmd.Stderr = out, out
	// Pdeathsig is of the thread that started it, which must live as long.
	started, exited := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(exited)
	}()
	if err := <-started; err != nil {
		s.tb.Fatal(err)
	}
	s.mu.Lock()
	s.process, s.exited = cmd.Process, exited
	s.mu.Unlock()
	return out
}

// answers waits until the server answers, or has ended by itself.
func (s *Server) answers(ctx context.Context) bool {
	for {
		conn, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			_ = conn.Close(ctx)
			return true
		}
		select {
		case <-s.exited:
			return false
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the server at once, as a crash does.
func (s *Server) Kill() {
	s.mu.Lock()
	process := s.process
	s.process = nil
	s.mu.Unlock()
	if process != nil {
		_ = process.Kill()
		<-s.exited
	}
}

func (s *Server) url(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: net.JoinHostPort("127.0.0.1", s.port), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

var databases atomic.Int64

// Database makes an empty database and returns its connection string.
func (s *Server) Database() string {
	s.tb.Helper()
	name := fmt.Sprint("test", databases.Add(1))
	s.Exec(s.url("postgres"), "CREATE DATABASE "+name)
	return s.url(name)
}

// DatabaseFile is a file that holds the connection string of an empty database.
func (s *Server) DatabaseFile() string {
	s.tb.Helper()
	path := filepath.Join(s.tb.TempDir(), "postgres")
	if err := os.WriteFile(path, []byte(s.Database()+"\n"), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return path
}

// Exec runs SQL on a database.
func (s *Server) Exec(dsn, query string, args ...any) {
	s.tb.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, query, args...); err != nil {
		s.tb.Fatal(err)
	}
}

// ExecFile runs SQL on the database whose connection string a file holds.
func (s *Server) ExecFile(file, query string, args ...any) {
	s.tb.Helper()
	s.Exec(s.read(file), query, args...)
}

// ScanFile reads one row of a query on such a database.
func (s *Server) ScanFile(file, query string, dest ...any) {
	s.tb.Helper()
	s.Scan(s.read(file), query, dest...)
}

func (s *Server) read(file string) string {
	s.tb.Helper()
	text, err := os.ReadFile(file) //nolint:gosec // the test's own
	if err != nil {
		s.tb.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// Scan reads one row of a query on a database.
func (s *Server) Scan(dsn, query string, dest ...any) {
	s.tb.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, query).Scan(dest...); err != nil {
		s.tb.Fatal(err)
	}
}

func freePort(tb testing.TB) int {
	tb.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	address, ok := lis.Addr().(*net.TCPAddr)
	if !ok {
		tb.Fatalf("listening at %v", lis.Addr())
	}
	return address.Port
}
