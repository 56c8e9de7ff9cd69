package service

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"tollgate/internal/mtls"
)

// poll is how often the files are looked at. A change is taken when it is one poll old,
// so that a certificate is not read before its key is written.
const poll = time.Second

var errExpired = errors.New("has expired")

// Certificates are the certificates of the port. They follow their files: a file that
// is broken, or that has expired already, leaves the last good ones in use.
type Certificates struct {
	files   mtls.Files
	names   mtls.Names
	log     hclog.Logger
	metrics *Metrics
	current atomic.Pointer[tls.Config]

	seen    [3]stamp // the files of the last look
	loaded  [3]stamp // the files in use
	failure string   // of the last try; "" where it succeeded
}

// stamp tells whether a file may have changed without reading it.
type stamp struct {
	info     os.FileInfo // identity; nil for a file that is not there
	modified time.Time
	size     int64
}

func (s stamp) equal(o stamp) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil
	}
	return s.size == o.size && s.modified.Equal(o.modified) && os.SameFile(s.info, o.info)
}

func equal(a, b [3]stamp) bool { return a[0].equal(b[0]) && a[1].equal(b[1]) && a[2].equal(b[2]) }

// NewCertificates reads the files.
func NewCertificates(files mtls.Files, names mtls.Names, log hclog.Logger, metrics *Metrics) (*Certificates, error) {
	c := &Certificates{files: files, names: names, log: log, metrics: metrics}
	now := c.look()
	m, err := mtls.Load(files)
	if err != nil {
		return nil, err
	}
	if time.Now().After(m.Life.End) {
		log.Error("the certificate of the service has expired: no Envoy takes it", "expired", m.Life.End)
	}
	c.seen = now
	c.use(m, now)
	return c, nil
}

// Config is the TLS of the port as it is now.
func (c *Certificates) Config() *tls.Config { return c.current.Load() }

// Run follows the files until ctx ends; then it returns nil.
func (c *Certificates) Run(ctx context.Context) error {
	t := time.NewTicker(poll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			c.follow()
		}
	}
}

// follow looks at the files once.
func (c *Certificates) follow() {
	before := c.seen
	c.seen = c.look()
	if equal(c.seen, c.loaded) && c.failure == "" || !equal(c.seen, before) {
		return
	}
	m, err := mtls.Load(c.files)
	if err == nil && time.Now().After(m.Life.End) {
		err = &mtls.FileError{Which: mtls.Cert, Err: errExpired}
	}
	if err != nil {
		c.metrics.ok.Set(0)
		if text := err.Error(); text != c.failure {
			c.failure = text
			c.log.Error("cannot use the new certificates of the service, the last good ones stay", "error", err)
		}
		return
	}
	c.use(m, c.seen)
	c.log.Info("certificates of the service reloaded", "expires", m.Life.End)
}

func (c *Certificates) use(m *mtls.Material, at [3]stamp) {
	c.current.Store(m.Config(c.names))
	c.loaded, c.failure = at, ""
	c.metrics.loaded(m)
}

func (c *Certificates) look() (out [3]stamp) {
	for i, path := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if info, err := os.Stat(path); err == nil {
			out[i] = stamp{info: info, modified: info.ModTime(), size: info.Size()}
		}
	}
	return out
}
