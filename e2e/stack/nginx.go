package stack

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// NginxBinary is the nginx of this machine, or the fetched one; see [program].
func NginxBinary(tb testing.TB) string {
	tb.Helper()
	return program(tb, "NGINX_BIN", "nginx/[0-9]*/nginx", "scripts/fetch_nginx.py", "nginx")
}

// Nginx starts an nginx whose server block has the directives, on a free loopback
// port, waits until it listens, and returns its base URL. One process, so that it
// changes to no other user where it runs as root.
func (s *Stack) Nginx(directives string) string {
	s.tb.Helper()
	bin, dir, port := NginxBinary(s.tb), s.tb.TempDir(), strconv.Itoa(FreePort(s.tb))
	config := `daemon off; master_process off; pid ` + dir + `/pid; error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path ` + dir + `/body; proxy_temp_path ` + dir + `/proxy; fastcgi_temp_path ` + dir + `/fastcgi; uwsgi_temp_path ` + dir + `/uwsgi; scgi_temp_path ` + dir + `/scgi;
  server { listen 127.0.0.1:` + port + `; ` + directives + ` }
}
`
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	p := &Process{tb: s.tb, name: "nginx", log: filepath.Join(dir, "nginx.out"), command: func() *exec.Cmd {
		cmd := exec.Command(bin, "-e", "stderr", "-p", dir, "-c", file) //nolint:gosec // this machine's own
		cmd.Dir = dir
		return cmd
	}}
	p.Start()
	address := net.JoinHostPort("127.0.0.1", port)
	Eventually(s.tb, 10*time.Second, "nginx to listen", func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	return "http://" + address
}

// At is the stack as it is reached by another base URL.
func (s *Stack) At(url string) *Stack {
	other := &Stack{tb: s.tb, Dir: s.Dir, URL: url, Scrape: s.Scrape, Sim: s.Sim, Cfg: s.Cfg}
	other.HTTP1 = &http.Client{Transport: &http.Transport{DisableCompression: true}}
	s.tb.Cleanup(other.HTTP1.CloseIdleConnections)
	return other
}
