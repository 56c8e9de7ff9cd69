package redisstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"tollgate/internal/secretfile"
)

const (
	// DefaultTimeout is the budget of a call where none is given.
	DefaultTimeout = 50 * time.Millisecond
	// DefaultMasterSet is the name that Sentinel gives a primary by default.
	DefaultMasterSet = "mymaster"

	// openTimeout bounds Open, connecting included.
	openTimeout = 5 * time.Second
	// connectTimeout bounds one connection attempt. Decisions do not wait for it.
	connectTimeout = time.Second
)

// Options says where Redis is and how long it may take.
type Options struct {
	// Addresses: one "host:port" is the primary itself. Several are Sentinels,
	// which are asked for the primary of the set [DefaultMasterSet], or of the
	// set that the first address names: "orders@10.0.0.1:26379". A single
	// address with a set is a single Sentinel. Sentinels are asked without
	// credentials.
	Addresses []string
	Username  string
	// PasswordFile holds the password, as [secretfile.Read] reads it. It is read at every
	// connection, so a new password needs no restart, but with Sentinel only
	// once. Empty: no password.
	PasswordFile string
	DB           int
	TLS          bool
	// Timeout is the budget of one call, waiting for a connection included.
	// 0 is [DefaultTimeout].
	Timeout time.Duration
	// Replica names this process among its peers. Empty: a random name.
	Replica string
	Log     hclog.Logger // nil: no log
	Metrics *Metrics     // nil: none

	// Set by tests of this package only.
	prefix     string
	clock      string
	renewEvery time.Duration
	wire       func(*rueidis.ClientOption)
}

// Metrics are what people look at.
type Metrics struct {
	partitioned prometheus.Gauge
}

// NewMetrics registers the metrics on reg: store_partitioned is 1 while this
// replica decides by its own share.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{partitioned: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "store_partitioned",
		Help: "1 while the shared store cannot be used and limits are kept by this replica's own share.",
	})}
	if reg != nil {
		reg.MustRegister(m.partitioned)
	}
	return m
}

// scripts assembles the scripts around the clock of Redis, or of a test.
func (o *Options) scripts() (*scripts, error) {
	clock := o.clock
	if clock == "" {
		text, err := lua.ReadFile("lua/clock.lua")
		if err != nil {
			return nil, fmt.Errorf("read script: %w", err)
		}
		clock = string(text)
	}
	return newScripts(clock)
}

// client makes the client that opts describe. It does not connect yet.
func (o *Options) client() (rueidis.ClientOption, error) {
	option := rueidis.ClientOption{
		SelectDB:     o.DB,
		DisableCache: true,
		DisableRetry: true, // a decision is repeated by nobody but its caller
	}
	// One connection, pipelined: what the probe finds in working order is what decisions
	// use, and calls that were given up on are over before it.
	option.PipelineMultiplex = -1
	option.Dialer.Timeout = connectTimeout
	option.Dialer.KeepAlive = time.Second
	option.ConnWriteTimeout = connectTimeout
	if o.TLS {
		option.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if err := o.place(&option); err != nil {
		return option, err
	}
	if err := o.authenticate(&option); err != nil {
		return option, err
	}
	if o.wire != nil {
		o.wire(&option)
	}
	return option, nil
}

func (o *Options) password() (string, error) {
	password, err := secretfile.Read(o.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("store.redis.password_file: %w", err)
	}
	return password, nil
}

func (o *Options) authenticate(option *rueidis.ClientOption) error {
	password, err := o.password()
	if err != nil {
		return err
	}
	if option.Sentinel.MasterSet != "" {
		// The client would show what AuthCredentialsFn returns to the Sentinels too.
		option.Username, option.Password = o.Username, password
		return nil
	}
	if o.Username == "" && password == "" {
		return nil
	}
	option.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
		password, err := o.password()
		return rueidis.AuthCredentials{Username: o.Username, Password: password}, err
	}
	return nil
}

// place says where the primary is.
func (o *Options) place(option *rueidis.ClientOption) error {
	if len(o.Addresses) == 0 {
		return errors.New("no address of Redis is given")
	}
	set, first, named := strings.Cut(o.Addresses[0], "@")
	if !named {
		first = o.Addresses[0]
	}
	option.InitAddress = append([]string{first}, o.Addresses[1:]...)
	if !named && len(o.Addresses) == 1 {
		option.ForceSingleClient = true
		return nil
	}
	if !named {
		set = DefaultMasterSet
	}
	option.Sentinel = rueidis.SentinelOption{
		MasterSet: cmp.Or(set, DefaultMasterSet), TLSConfig: option.TLSConfig, Dialer: option.Dialer,
		TopologyRefreshInterval: 5 * time.Second, // a missed announcement of a new primary must not last
	}
	return nil
}

// connect makes a client within ctx. A client cannot be told to give up, so one
// that comes too late is closed.
func connect(ctx context.Context, option *rueidis.ClientOption) (rueidis.Client, error) {
	type made struct {
		client rueidis.Client
		err    error
	}
	done := make(chan made, 1)
	go func() {
		client, err := rueidis.NewClient(*option)
		done <- made{client, err}
	}()
	select {
	case m := <-done:
		return m.client, m.err
	case <-ctx.Done():
		go func() {
			if m := <-done; m.client != nil {
				m.client.Close()
			}
		}()
		return nil, ctx.Err()
	}
}
