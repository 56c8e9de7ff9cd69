package central

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tollgate/internal/apikey"
	"tollgate/internal/audit"
)

// ErrKeyFile means that the key file was changed after the keys had moved to
// PostgreSQL, where nobody reads it any more.
var ErrKeyFile = errors.New("the key file is not read any more")

const (
	// keysPoll is how often a gateway asks for newer keys: the rule. The
	// notification is the short cut.
	keysPoll = 500 * time.Millisecond
	// keysWait bounds what an edit, or a reload, waits for PostgreSQL.
	keysWait = 5 * time.Second
	// keysSeen is how often the copy notes that it is current.
	keysSeen = 10 * time.Second
	// keysChannel is what changes are notified on.
	keysChannel = "tollgate_keys"
	// progressEvery is between two lines of a start that waits.
	progressEvery = 5 * time.Second
)

// Keys are the keys of all gateways. It is an [apikey.Source] of a keyring,
// whose file is the copy of this gateway.
type Keys struct {
	to   *Ledger
	file string // key file that is imported once
	copy string // copy of this gateway, without secrets
	log  hclog.Logger

	mu      sync.Mutex // held while the copy is written
	version int64      // of the copy, 0 when it is not known; guarded by mu
	marked  time.Time  // when the copy was last noted as current; guarded by mu
	seen    atomic.Int64
}

var _ apikey.Source = (*Keys)(nil)

// NewKeys returns the keys that live in the central ledger's database. Nothing
// is asked yet. Without a copy they can be edited and read only.
func NewKeys(to *Ledger, file, copied string, log hclog.Logger) *Keys {
	k := &Keys{to: to, file: file, copy: copied, log: log}
	if info, err := os.Stat(k.sidecar("seen")); err == nil && copied != "" {
		k.seen.Store(info.ModTime().UnixNano())
	}
	return k
}

func (k *Keys) sidecar(kind string) string { return k.copy + "." + kind }

// Register shows how old the copy is.
func (k *Keys) Register(reg prometheus.Registerer) {
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "keys_copy_age_seconds", Help: "Time since this gateway's copy of the keys was known to be current.",
	}, func() float64 { return k.Age().Seconds() })
}

// Age is the time since the copy was known to be current.
func (k *Keys) Age() time.Duration {
	seen := k.seen.Load()
	if seen == 0 {
		return 0
	}
	return max(0, time.Since(time.Unix(0, seen)))
}

// Begin makes a copy that can be used: a current one where PostgreSQL answers,
// the last one where it does not. With neither it waits, says so now and then,
// and ends with the context. The first gateway of all imports its key file; where
// there is none, secret is that of a new admin key, to be shown once.
func (k *Keys) Begin(ctx context.Context) (secret string, err error) {
	began, said := time.Now(), time.Time{}
	for {
		secret, err = k.begin(ctx)
		if err == nil || ctx.Err() != nil {
			return secret, err
		}
		if !errors.Is(err, ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			return "", err
		}
		if _, lost := os.Stat(k.copy); lost == nil {
			k.log.Warn("PostgreSQL does not answer, the last copy of the keys is used", "age", k.Age().Round(time.Second).String(), "error", err)
			return "", nil
		}
		if time.Since(said) >= progressEvery {
			said = time.Now()
			k.log.Warn("waiting for the keys: PostgreSQL does not answer, and there is no copy of them yet",
				"address", k.to.Address(), "waited", time.Since(began).Round(time.Second).String(), "error", err)
		}
		if !pause(ctx, retryMax/10) {
			return "", fmt.Errorf("wait for the keys: %w", ctx.Err())
		}
	}
}

func (k *Keys) begin(ctx context.Context) (secret string, err error) {
	ctx, cancel := context.WithTimeout(ctx, keysWait)
	defer cancel()
	if err := k.to.migrate(ctx); err != nil {
		return "", err
	}
	if secret, err = k.importOnce(ctx); err != nil {
		return "", err
	}
	if err := k.noteFile(); err != nil {
		return "", err
	}
	return secret, k.pull(ctx)
}

// importOnce puts the key file where there are no keys yet. One gateway of all
// does it.
func (k *Keys) importOnce(ctx context.Context) (secret string, err error) {
	var there bool
	if err := k.to.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM tollgate.keys)").Scan(&there); err != nil || there {
		if err != nil {
			return "", failed(ctx, "look for keys", err)
		}
		return "", nil
	}
	data, secret, err := k.first()
	if err != nil {
		return "", err
	}
	won := false
	err = pgx.BeginFunc(ctx, k.to.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(lockKeys)); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "INSERT INTO tollgate.keys (id, version, document, who, origin) VALUES (1, 1, $1, $2, 'import') ON CONFLICT DO NOTHING",
			string(data), audit.ByGateway)
		won = tag.RowsAffected() == 1
		return err
	})
	if err != nil {
		return "", failed(ctx, "import keys", err)
	}
	if !won {
		return "", nil
	}
	k.log.Info("imported the keys into PostgreSQL", "file", k.file, "address", k.to.Address())
	return secret, nil
}

// first is what is imported: the key file without secrets and without the public
// default key, or one new admin key.
func (k *Keys) first() (data []byte, secret string, err error) {
	text, err := os.ReadFile(k.file)
	if errors.Is(err, fs.ErrNotExist) {
		return apikey.FirstAdmin()
	}
	if err != nil {
		return nil, "", fmt.Errorf("import keys: %w", err)
	}
	data, err = apikey.Digests(k.file, text)
	return data, "", err
}

// noteFile remembers the key file as it is when this gateway first shares keys,
// so that a later change of it is found.
func (k *Keys) noteFile() error {
	now, err := k.fileDigest()
	if err != nil {
		return err
	}
	if _, err := os.Stat(k.sidecar("imported")); err == nil {
		return nil
	}
	if err := os.WriteFile(k.sidecar("imported"), []byte(now+"\n"), 0o600); err != nil {
		return fmt.Errorf("note the key file: %w", err)
	}
	return nil
}

// fileDigest tells the content of the key file from every other; "" where there
// is none.
func (k *Keys) fileDigest() (string, error) {
	text, err := os.ReadFile(k.file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read key file: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// CheckFile returns [ErrKeyFile] where the key file was changed after the keys
// had moved. One that was removed is none.
func (k *Keys) CheckFile() error {
	noted, err := os.ReadFile(k.sidecar("imported"))
	if err != nil {
		return nil //nolint:nilerr // nothing was noted yet
	}
	now, err := k.fileDigest()
	if err != nil || now == "" || now == string(bytes.TrimSpace(noted)) {
		return err
	}
	return fmt.Errorf("%w: %s was changed, but the keys live in PostgreSQL (central.keys): make the change with \"tollgate keys\" or the admin API, "+
		"and remove the file or put it back", ErrKeyFile, k.file)
}

// Pull implements [apikey.Source]. A key file that was changed is an error.
func (k *Keys) Pull() error {
	ctx, cancel := context.WithTimeout(context.Background(), keysWait)
	defer cancel()
	return errors.Join(away(k.pull(ctx)), k.CheckFile())
}

func (k *Keys) pull(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pullLocked(ctx)
}

func (k *Keys) pullLocked(ctx context.Context) error {
	if err := k.to.migrate(ctx); err != nil {
		return err
	}
	var version int64
	var document, who, origin *string
	err := k.to.pool.QueryRow(ctx, `SELECT version, CASE WHEN version <> $1 THEN document END, who, origin FROM tollgate.keys`, k.version).
		Scan(&version, &document, &who, &origin)
	if err != nil {
		return failed(ctx, "read keys", err)
	}
	if document != nil {
		if _, err := apikey.Parse("the keys in PostgreSQL", []byte(*document)); err != nil {
			return err
		}
		if err := k.write(audit.Editor{Who: *who, From: *origin}, []byte(*document)); err != nil {
			return err
		}
		k.version = version
	}
	k.current()
	return nil
}

// write writes the copy, where it is another one. The caller holds mu.
func (k *Keys) write(by audit.Editor, document []byte) error {
	if had, err := os.ReadFile(k.copy); err == nil && bytes.Equal(had, document) {
		return nil
	}
	if err := apikey.WriteCopy(k.copy, by, document); err != nil {
		return fmt.Errorf("write the copy of the keys: %w", err)
	}
	return nil
}

// current notes that the copy is current, in the file now and then, so that a
// start without PostgreSQL knows how old it is. The caller holds mu.
func (k *Keys) current() {
	now := time.Now()
	k.seen.Store(now.UnixNano())
	if now.Sub(k.marked) < keysSeen {
		return
	}
	k.marked = now
	if err := os.WriteFile(k.sidecar("seen"), nil, 0o600); err != nil {
		k.log.Warn("cannot note that the keys are current", "error", err)
	}
	_ = os.Chtimes(k.sidecar("seen"), now, now) // an empty file keeps its time when it is written again
}

// Edit implements [apikey.Source]: the change is in PostgreSQL and told to all
// gateways when it returns. [ErrUnavailable] where that cannot be: then nothing
// was changed.
func (k *Keys) Edit(by audit.Editor, fn func(*apikey.File) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), keysWait)
	defer cancel()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.to.migrate(ctx); err != nil {
		return away(err)
	}
	var refused error
	err := pgx.BeginFunc(ctx, k.to.pool, func(tx pgx.Tx) error {
		var document string
		if err := tx.QueryRow(ctx, "SELECT document FROM tollgate.keys FOR UPDATE").Scan(&document); err != nil {
			return err
		}
		var next []byte
		if next, refused = apikey.Apply("the keys in PostgreSQL", []byte(document), fn); refused != nil {
			return refused
		}
		if string(next) == document {
			return nil
		}
		_, err := tx.Exec(ctx, "UPDATE tollgate.keys SET version = version + 1, document = $1, who = $2, origin = $3", string(next), storable(by.Who), storable(by.From))
		if err == nil {
			_, err = tx.Exec(ctx, "SELECT pg_notify($1, '')", keysChannel)
		}
		return err
	})
	switch {
	case refused != nil:
		return refused
	case errors.Is(err, pgx.ErrNoRows):
		return errors.New("there are no keys in PostgreSQL yet: start a gateway once, it imports the key file")
	case err != nil:
		return away(failed(ctx, "edit keys", err))
	case k.copy == "":
		return nil
	}
	return away(k.pullLocked(ctx))
}

// away is [apikey.ErrAway] where PostgreSQL does not answer. The context of who
// calls it ends by time only.
func away(err error) error {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", apikey.ErrAway, err)
	}
	return err
}

// Document is the text of all keys, as a key file without secrets.
func (k *Keys) Document(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, keysWait)
	defer cancel()
	if err := k.to.migrate(ctx); err != nil {
		return nil, away(err)
	}
	var document string
	err := k.to.pool.QueryRow(ctx, "SELECT document FROM tollgate.keys").Scan(&document)
	if errors.Is(err, pgx.ErrNoRows) {
		return []byte("[]"), nil
	}
	if err != nil {
		return nil, away(failed(ctx, "read keys", err))
	}
	return []byte(document), nil
}
