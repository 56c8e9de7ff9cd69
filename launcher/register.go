package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"tollgate/internal/config"
	"tollgate/internal/secretfile"
)

const (
	// tellEvery is how often a gateway is told of the engine: three times within the 10 s
	// after which it takes a silent one out.
	tellEvery = 3 * time.Second
	// tellWithin bounds one call.
	tellWithin = 2500 * time.Millisecond
)

// registrar tells gateways on other hosts of the engine of this one.
type registrar struct {
	h      *host
	gates  []*gate
	stop   context.CancelFunc
	ending sync.WaitGroup
}

// gate is one gateway.
type gate struct {
	base, keyFile string
	dialer        *net.Dialer
	client        *http.Client
	said          string // what the log has of it
	told          string // the address that it knows; "" while it knows none
}

// register begins to tell the gateways of the configuration of the engine while it is
// ready. The function that it returns takes the engine out of them: requests that run
// go on, no new ones come.
func (h *host) register() (leave func()) {
	if len(h.cfg.Launcher.Gateways) == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(h.killing)
	r := &registrar{h: h, stop: cancel}
	for _, g := range h.cfg.Launcher.Gateways {
		r.gates = append(r.gates, newGate(g, h.cfg.VLLM.Host))
	}
	for _, g := range r.gates {
		r.ending.Go(func() { r.tell(ctx, g) })
	}
	return sync.OnceFunc(r.leave)
}

// newGate calls from the address that the engine listens on, where it is one: the
// gateway takes an engine from its own host only.
func newGate(g config.Gateway, host string) *gate {
	out := &gate{base: strings.TrimRight(g.URL, "/"), keyFile: g.KeyFile, dialer: &net.Dialer{Timeout: tellWithin}}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		out.dialer.LocalAddr = &net.TCPAddr{IP: ip}
	}
	out.client = &http.Client{
		Timeout:       tellWithin,
		Transport:     &http.Transport{DialContext: out.dialer.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return out
}

// tell goes on until ctx ends.
func (r *registrar) tell(ctx context.Context, g *gate) {
	t := time.NewTicker(tellEvery)
	defer t.Stop()
	engine := engineClient(engineAddress(r.h.cfg), &r.h.cfg.VLLM)
	defer engine.Close()
	for {
		if engine.Ready(ctx) == nil {
			r.say(g, g.put(ctx, r.h.cfg))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// say logs what has changed.
func (r *registrar) say(g *gate, err error) {
	text := "the gateway knows this engine"
	if err != nil {
		text = err.Error()
	}
	if text == g.said || r.h.killing.Err() != nil {
		return
	}
	g.said = text
	if err != nil {
		r.h.log.Warn("the gateway does not take this engine", "gateway", g.base, "error", err)
		return
	}
	r.h.log.Info(text, "gateway", g.base, "engine", g.told)
}

// put tells the gateway that the engine is there.
func (g *gate) put(ctx context.Context, cfg *config.Config) error {
	address, err := g.address(cfg)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"address": address})
	if err != nil {
		return fmt.Errorf("name the engine: %w", err)
	}
	if err := g.call(ctx, http.MethodPost, "/admin/engines", body); err != nil {
		return err
	}
	g.told = address
	return nil
}

// address is the engine as the gateway reaches it: what vllm.host says, or where that is
// all addresses of this host, the one that leads to the gateway.
func (g *gate) address(cfg *config.Config) (string, error) {
	if g.dialer.LocalAddr != nil {
		return engineAddress(cfg), nil
	}
	u, err := url.Parse(g.base)
	if err != nil {
		return "", fmt.Errorf("launcher.gateways: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), port)) // sends nothing
	if err != nil {
		return "", fmt.Errorf("find the way to the gateway: %w", err)
	}
	defer func() { _ = conn.Close() }()
	here, _, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		return "", fmt.Errorf("find the way to the gateway: %w", err)
	}
	_, enginePort, err := net.SplitHostPort(engineAddress(cfg))
	return net.JoinHostPort(here, enginePort), err
}

// call sends a request with the launcher's key.
func (g *gate) call(ctx context.Context, method, path string, body []byte) error {
	key, err := secretfile.Read(g.keyFile)
	if err != nil {
		return fmt.Errorf("launcher.gateways: key_file: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, g.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask gateway: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := g.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask gateway: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // without it the status says enough
	if resp.StatusCode/100 == 2 {
		return nil
	}
	var said struct {
		Error struct{ Message string }
	}
	if json.Unmarshal(text, &said) != nil || said.Error.Message == "" {
		return fmt.Errorf("the gateway answers %s", resp.Status)
	}
	return fmt.Errorf("the gateway answers %d: %s", resp.StatusCode, said.Error.Message)
}

// leave takes the engine out of all gateways that know it.
func (r *registrar) leave() {
	r.stop()
	r.ending.Wait()
	ctx, cancel := context.WithTimeout(r.h.killing, tellWithin)
	defer cancel()
	var wg sync.WaitGroup
	for _, g := range r.gates {
		if g.told == "" {
			continue
		}
		wg.Go(func() {
			if err := g.call(ctx, http.MethodDelete, "/admin/engines/"+url.PathEscape(g.told), nil); err != nil {
				r.h.log.Warn("the gateway was not told that this engine stops; it finds out by itself", "gateway", g.base, "error", err)
			}
		})
	}
	wg.Wait()
}
