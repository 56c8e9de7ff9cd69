package central

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	// ErrUnavailable means that PostgreSQL cannot be asked now. Nothing was
	// changed that was not confirmed.
	ErrUnavailable = errors.New("the central ledger is unavailable")
	// ErrSchema means that the database is of a newer program.
	ErrSchema = errors.New("not a central ledger of this program")
)

// Ledger is the central ledger. Its methods are safe for concurrent use; where
// PostgreSQL cannot be asked they give [ErrUnavailable] or the context's error.
type Ledger struct {
	pool     *pgxpool.Pool
	migrated atomic.Bool
	away     atomic.Bool // the shipper's last word

	mu   sync.Mutex
	days map[string]bool // of which the partition is known to exist; guarded by mu
}

const (
	// maxConns is what one gateway takes of the server's connections at most.
	maxConns = 4
	// connectTimeout bounds one try where the connection string says nothing.
	connectTimeout = 5 * time.Second
)

// Open reads the connection string from a file and returns the ledger that it
// leads to. It does not connect: PostgreSQL may be away. Errors: a file that
// cannot be read, a string that is none. No error repeats the string, which may
// hold a password.
func Open(file string) (*Ledger, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("central.postgres_file: %w", err)
	}
	config, err := pgxpool.ParseConfig(strings.TrimSpace(string(text)))
	if err != nil {
		// The parser's error repeats the string with the password masked, if it
		// could find one.
		return nil, fmt.Errorf("central.postgres_file: %s holds no connection string: write for example "+
			"postgres://USER:PASSWORD@HOST:5432/DATABASE", file)
	}
	if config.ConnConfig.ConnectTimeout == 0 || config.ConnConfig.ConnectTimeout > connectTimeout {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	config.MaxConns, config.MinConns = maxConns, 0
	config.ConnConfig.RuntimeParams["application_name"] = "tollgate"
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("central.postgres_file: %w", err)
	}
	return &Ledger{pool: pool, days: map[string]bool{}}, nil
}

// Close ends the connections.
func (l *Ledger) Close() { l.pool.Close() }

// Away reports whether a shipper has found that PostgreSQL does not answer. It
// is false as long as nobody knows.
func (l *Ledger) Away() bool { return l.away.Load() }

// Address is where the ledger is, without its user and password.
func (l *Ledger) Address() string {
	c := l.pool.Config().ConnConfig
	return fmt.Sprintf("%s:%d/%s", c.Host, c.Port, c.Database)
}

// failed wraps an error of the database: the context's own as such, a newer
// schema as such, any other as unavailable.
func failed(ctx context.Context, what string, err error) error {
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%s: %w", what, cause)
	}
	if errors.Is(err, ErrSchema) || errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
}
