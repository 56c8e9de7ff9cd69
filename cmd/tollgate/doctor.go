package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tollgate/envoy"
	"tollgate/internal/config"
)

// doctorCmd looks at this host with the eyes of somebody who is called at night.
type doctorCmd struct{ outputFlag }

// Help is what --help says beside the flags.
func (*doctorCmd) Help() string {
	return `Looks and changes nothing. Each line is ok, a warning or a fault, and says what to do.
Exit status 1 when there is a fault.

  tollgate doctor
  tollgate doctor --output json`
}

// finding is what one check says.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // ok, warning, fault
	Detail string `json:"detail"`
}

func fine(format string, a ...any) finding {
	return finding{State: "ok", Detail: fmt.Sprintf(format, a...)}
}

func warn(format string, a ...any) finding {
	return finding{State: "warning", Detail: fmt.Sprintf(format, a...)}
}

func fault(format string, a ...any) finding {
	return finding{State: "fault", Detail: fmt.Sprintf(format, a...)}
}

// doctorTimeout bounds one check.
const doctorTimeout = 5 * time.Second

// Run makes all checks.
func (c *doctorCmd) Run(env *Env) error {
	cfg, err := env.Config()
	if err != nil {
		return err // it names file and line already
	}
	var all []finding
	faults := 0
	for _, check := range []struct {
		name string
		look func(context.Context, *config.Config) finding
	}{
		{"configuration", lookConfig},
		{"envoy", lookEnvoy},
		{"vllm", lookVLLM},
		{"engines", lookEngines},
		{"gpu", lookGPU},
		{"ports", lookPorts},
		{"tls", lookTLS},
		{"disk", lookDisk},
		{"open files", lookFiles},
		{"clock", lookClock},
	} {
		ctx, cancel := context.WithTimeout(env.Ctx, doctorTimeout)
		f := check.look(ctx, cfg)
		cancel()
		f.Check = check.name
		if f.State == "fault" {
			faults++
		}
		all = append(all, f)
	}
	if err := show(env, c.Output, all,
		column[finding]{name: "check", cell: func(f finding) string { return f.Check }},
		column[finding]{name: "state", cell: func(f finding) string { return f.State }},
		column[finding]{name: "detail", cell: func(f finding) string { return f.Detail }},
	); err != nil {
		return err
	}
	if faults > 0 {
		return fmt.Errorf("faults found: %d", faults)
	}
	return nil
}

func lookConfig(_ context.Context, cfg *config.Config) finding {
	if warnings := cfg.Warnings(); len(warnings) > 0 {
		return warn("%s", strings.Join(warnings, " "))
	}
	return fine("nothing to say")
}

func lookEnvoy(ctx context.Context, cfg *config.Config) finding {
	path, err := envoy.Binary(cfg.Envoy.Binary, os.Getenv)
	if err != nil {
		return fault("%v", err)
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output() //nolint:gosec // the configuration's
	if err != nil {
		return fault("%s does not run: %v", path, err)
	}
	version := strings.TrimSpace(string(out))
	if _, after, ok := strings.Cut(version, "version: "); ok {
		version = after
	}
	return fine("%s, %s", path, version)
}

func lookVLLM(ctx context.Context, cfg *config.Config) finding {
	if !cfg.VLLM.AutoStart || cfg.VLLM.LaunchMode == "simulated" {
		return fine("no vLLM is to be started here")
	}
	command, args := "vllm", []string{"--version"}
	if p := cfg.VLLM.PythonLauncher.Python; p != "" && p != "python3" {
		command, args = p, []string{"-c", "import vllm; print(vllm.__version__)"}
	}
	out, err := exec.CommandContext(ctx, command, args...).Output()
	if errors.Is(err, exec.ErrNotFound) {
		return fault("there is no %s in PATH: install vLLM, or set vllm.python_launcher.python to the Python that has it", command)
	}
	if err != nil {
		return warn("%s did not say its version within %v: %v", command, doctorTimeout, err)
	}
	return fine("version %s", strings.TrimSpace(string(out)))
}

func lookEngines(ctx context.Context, cfg *config.Config) finding {
	var away []string
	for _, address := range cfg.EngineAddresses() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/health", http.NoBody)
		if err != nil {
			return fault("%s is no address: %v", address, err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			away = append(away, address+" does not answer")
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			away = append(away, address+" answers "+resp.Status)
		}
	}
	if len(away) > 0 {
		return warn("%s; is it started, and is this its address?", strings.Join(away, ", "))
	}
	return fine("%s healthy", strings.Join(cfg.EngineAddresses(), ", "))
}

func lookGPU(ctx context.Context, cfg *config.Config) finding {
	out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader").Output()
	switch {
	case err == nil:
		return fine("%s", strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; "))
	case cfg.VLLM.AutoStart && cfg.VLLM.LaunchMode != "simulated":
		return warn("nvidia-smi does not answer (%v): vLLM needs a GPU and its driver, unless it is the build for CPU", err)
	}
	return fine("none is needed here")
}

// lookPorts tries the listeners, unless a gateway runs that has them.
func lookPorts(ctx context.Context, cfg *config.Config) finding {
	if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", cfg.InState(config.AdminSocket)); err == nil {
		_ = conn.Close()
		return fine("the gateway runs and has them")
	}
	var taken []string
	for name, address := range map[string]string{"listen": cfg.Listen, "metrics_listen": cfg.MetricsListen, "admin_listen": cfg.AdminListen} {
		if address == "" {
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			taken = append(taken, fmt.Sprintf("%s %s: %v", name, address, err))
			continue
		}
		_ = l.Close()
	}
	if len(taken) > 0 {
		return fault("%s", strings.Join(taken, "; "))
	}
	return fine("free")
}

// soon is how long before its end a certificate is worth a word.
const soon = 21 * 24 * time.Hour

func lookTLS(_ context.Context, cfg *config.Config) finding {
	if cfg.TLS.CertFile == "" {
		return fine("not used")
	}
	pair, err := tls.LoadX509KeyPair(cfg.TLS.CertFile, cfg.TLS.KeyFile)
	if err != nil {
		return fault("tls.cert_file and tls.key_file: %v", err)
	}
	end := pair.Leaf.NotAfter
	switch left := time.Until(end); {
	case left <= 0:
		return fault("the certificate ended at %s", end.Format(time.DateTime))
	case left < soon:
		return warn("the certificate ends at %s", end.Format(time.DateTime))
	}
	return fine("good until %s", end.Format(time.DateOnly))
}

// lookDisk looks where the ledger and the logs are, or at the nearest folder above
// that exists.
func lookDisk(_ context.Context, cfg *config.Config) finding {
	for _, dir := range []string{filepath.Dir(cfg.LedgerPath()), cfg.Log.Dir} {
		for dir != "." && dir != "/" {
			if _, err := os.Stat(dir); err == nil {
				break
			}
			dir = filepath.Dir(dir)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			return fault("%s: %v", dir, err)
		}
		free := fs.Bavail * uint64(fs.Bsize) //nolint:gosec // a size
		if free < 1<<30 {
			return warn("%s has %d MiB left: a full disk refuses requests", dir, free>>20)
		}
	}
	return fine("at least 1 GiB is free for the ledger and for the logs")
}

func lookFiles(context.Context, *config.Config) finding {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return warn("%v", err)
	}
	if l.Max < 8192 {
		return warn("the limit is %d: connections are bounded by it; raise LimitNOFILE of the unit, or ulimit -n", l.Max)
	}
	return fine("%d", l.Max)
}

// lookClock tells a clock that is not set: keys end by it, and quotas begin again.
func lookClock(context.Context, *config.Config) finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return warn("%v", err)
	}
	const unsynchronized = 5 // TIME_ERROR
	if state == unsynchronized {
		return warn("nothing keeps the clock right (systemd-timesyncd, chrony): quotas and ends of keys follow it")
	}
	return fine("kept right")
}
