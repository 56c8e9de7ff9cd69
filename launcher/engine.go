package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tollgate/internal/config"
	"tollgate/internal/media"
	"tollgate/internal/secretfile"
	"tollgate/internal/supervisor"
)

// simulatedModel is what the simulated engine serves when no model is named.
const simulatedModel = "simulated"

// errKeyInArgs refuses a key among the arguments: vLLM logs its arguments, and every
// user can list them.
var errKeyInArgs = errors.New("vllm.args: --api-key would show the key in the process list and in the log; put it into a file and name that in vllm.api_key_file")

// engineCommand returns the command of the engine. self is this binary, key the content
// of vllm.api_key_file, environ our own environment, domains the hosts of media URLs
// (none: all). It reads nothing else.
func engineCommand(v *config.VLLM, self, key string, environ []string, domains ...string) (supervisor.Command, error) {
	if named(v.Args, "--api-key") {
		return supervisor.Command{}, errKeyInArgs
	}
	env := engineEnv(v, key, environ)
	c := supervisor.Command{Env: env, Forks: true}
	port := strconv.Itoa(v.Port)
	switch v.LaunchMode {
	case "simulated":
		c.Path = self
		c.Args = append([]string{"simulate", "--listen", net.JoinHostPort(v.Host, port), "--model", servedNames(v)[0]}, meteringArgs(v, env)...)
		c.Args = slices.Concat(c.Args, simulatedLoRA(v), v.Args)
	case "python_api":
		c.Path, c.Main = v.PythonLauncher.Python, "vllm.entrypoints.openai.api_server"
		c.Args = append([]string{"-m", c.Main, "--model", v.Model, "--host", v.Host, "--port", port}, vllmArgs(v, env, domains)...)
	case "cli":
		c.Path, c.Main = besidePython(v), "vllm serve"
		c.Args = append([]string{"serve", v.Model, "--host", v.Host, "--port", port}, vllmArgs(v, env, domains)...)
	default:
		return c, fmt.Errorf("vllm.launch_mode: %q is unknown", v.LaunchMode)
	}
	if env := v.PythonLauncher.CondaEnv; env != "" && v.LaunchMode != "simulated" {
		by := "-n"
		if strings.Contains(env, "/") {
			by = "-p"
		}
		c.Args = append([]string{"run", "--no-capture-output", by, env, c.Path}, c.Args...)
		c.Path = "conda"
	} else {
		c.Main = "" // there is no wrapper
	}
	return c, nil
}

// besidePython returns the vllm beside the Python that the configuration names by its
// path, else the vllm in PATH.
func besidePython(v *config.VLLM) string {
	if python := v.PythonLauncher.Python; strings.Contains(python, "/") && v.PythonLauncher.CondaEnv == "" {
		return filepath.Join(filepath.Dir(python), "vllm")
	}
	return "vllm"
}

// engineCommand returns the command of the engine on this host, with an existing
// program and in its virtual environment, which has the compilers and tools that it
// calls.
func (h *host) engineCommand(key string) (supervisor.Command, error) {
	v := &h.cfg.VLLM
	cmd, err := engineCommand(v, h.self, key, h.environ, mediaDomains(h.cfg.Request.MediaDomains)...)
	if err != nil {
		return cmd, misconfigured{err}
	}
	if v.LaunchMode == "simulated" || v.PythonLauncher.CondaEnv != "" {
		return cmd, nil
	}
	bin := filepath.Dir(v.PythonLauncher.Python)
	if _, err := os.Stat(filepath.Join(bin, "../pyvenv.cfg")); err == nil && strings.Contains(v.PythonLauncher.Python, "/") {
		cmd.Env = activated(cmd.Env, bin, v.ExtraEnv)
	}
	if strings.Contains(cmd.Path, "/") && v.LaunchMode == "cli" {
		if _, err := os.Stat(cmd.Path); err != nil {
			h.log.Warn("there is no vllm beside vllm.python_launcher.python, looking in PATH", "missing", cmd.Path)
			cmd.Path = "vllm"
		}
	}
	return cmd, nil
}

// activated is the environment after the virtual environment with that bin folder was
// activated. Variables that the user has set stay.
func activated(env []string, bin string, own map[string]string) []string {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return env
	}
	all := filterEnv(env, "*")
	if _, set := own["PATH"]; !set {
		all["PATH"] = strings.TrimSuffix(bin+":"+all["PATH"], ":")
	}
	if _, set := own["VIRTUAL_ENV"]; !set {
		all["VIRTUAL_ENV"] = filepath.Dir(bin)
	}
	return list(all)
}

// forceUsage is a second safeguard: the gateway asks for usage in every request anyway.
const forceUsage = "--enable-force-include-usage"

// meteringFlags are the flags of the engine that metering needs.
var meteringFlags = []string{"--enable-prompt-tokens-details", forceUsage}

// meteringArgs are the flags of metering, unless the user says otherwise. env is the
// environment of the engine.
func meteringArgs(v *config.VLLM, env []string) (args []string) {
	rust := slices.Contains(env, "VLLM_USE_RUST_FRONTEND=1") // it has no such flag, though its help names it
	for _, flag := range meteringFlags {
		if !named(v.Args, flag) && (!rust || flag != forceUsage) {
			args = append(args, flag)
		}
	}
	return args
}

// vllmArgs returns the arguments after model and address: the flags of metering, of the
// lora section and of media URLs, then the user's own.
func vllmArgs(v *config.VLLM, env, domains []string) []string {
	args := meteringArgs(v, env)
	if len(domains) > 0 && !named(v.Args, mediaFlag) {
		args = append(append(args, mediaFlag), domains...)
	}
	if l := &v.LoRA; l.Enabled {
		args = append(args, "--enable-lora", "--max-loras", strconv.Itoa(l.MaxLoRAs), "--max-lora-rank", strconv.Itoa(l.MaxLoRARank))
		if len(l.Preload) > 0 {
			args = append(args, "--lora-modules")
			for _, a := range l.Preload {
				args = append(args, a.Name+"="+a.Path)
			}
		}
	}
	return append(args, v.Args...)
}

// mediaFlag is vLLM's own list of hosts, which it compares with what it fetches.
const mediaFlag = "--allowed-media-domains"

// mediaDomains are the entries of request.media_domains for vLLM; none where one of
// them is a prefix: vLLM takes no prefixes and would refuse the hosts in it.
func mediaDomains(list []string) []string {
	policy, err := media.New(list)
	if err != nil {
		return nil // a warning has said so
	}
	names, ok := policy.Names()
	if !ok {
		return nil
	}
	return names
}

func simulatedLoRA(v *config.VLLM) []string {
	l := &v.LoRA
	if !l.Enabled {
		return nil
	}
	args := []string{"--max-lora-rank", strconv.Itoa(l.MaxLoRARank)}
	if l.Runtime.Enabled {
		args = append(args, "--enable-lora")
		if l.Runtime.ResolverCacheDir != "" {
			args = append(args, "--lora-resolver-dir", l.Runtime.ResolverCacheDir)
		}
	}
	for _, a := range l.Preload {
		args = append(args, "--adapter", a.Name+"="+a.Path)
	}
	return args
}

// named reports whether the user's arguments hold a flag, in any spelling that vLLM
// takes: with underscores, with "=", or negated.
func named(args []string, flag string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		name = strings.ReplaceAll(name, "_", "-")
		return name == flag || name == "--no-"+strings.TrimPrefix(flag, "--")
	})
}

// servedNames are the names under which the engine will list its model; nil when they
// are in vLLM's own configuration file.
func servedNames(v *config.VLLM) []string {
	for i, arg := range v.Args {
		name, value, inline := strings.Cut(arg, "=")
		if strings.ReplaceAll(name, "_", "-") != "--served-model-name" {
			continue
		}
		if inline {
			return []string{value}
		}
		rest := v.Args[i+1:]
		if end := slices.IndexFunc(rest, func(s string) bool { return strings.HasPrefix(s, "-") }); end >= 0 {
			rest = rest[:end]
		}
		if len(rest) > 0 {
			return slices.Clone(rest)
		}
	}
	switch {
	case v.LaunchMode == "simulated" && v.Model == "":
		return []string{simulatedModel}
	case v.LaunchMode != "simulated" && named(v.Args, "--config"):
		return nil
	}
	return []string{v.Model}
}

// passed are the variables of our environment that a child gets; an asterisk at the end
// makes a prefix.
var passed = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_*", "SSL_CERT_FILE", "SSL_CERT_DIR",
}

// passedToEngine are further variables for an engine and its libraries.
var passedToEngine = []string{
	"LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA*", "_CONDA*", "CUDA*", "NVIDIA_*", "NCCL_*", "GLOO_*", "UCX_*",
	"ROCM*", "ROCR_*", "HIP*", "HSA_*", "AMD_*", "HF_*", "HUGGINGFACE_*", "TRANSFORMERS_*", "TORCH*", "PYTORCH*", "TRITON*", "OMP_*", "KMP_*", "MKL_*",
	"RAY_*", "VLLM_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

// notPassed would change which requests the engine accepts; vllm.extra_env can still
// set them.
var notPassed = []string{"VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", "VLLM_SKIP_MODEL_NAME_VALIDATION", "VLLM_PLUGINS", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"}

func filterEnv(environ []string, allow ...string) map[string]string {
	env := map[string]string{}
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		if slices.ContainsFunc(allow, func(a string) bool {
			prefix, isPrefix := strings.CutSuffix(a, "*")
			return a == name || isPrefix && strings.HasPrefix(name, prefix)
		}) {
			env[name] = value
		}
	}
	return env
}

func list(env map[string]string) []string {
	lines := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		lines = append(lines, name+"="+env[name])
	}
	return lines
}

// engineEnv is the whole environment of the engine, sorted.
func engineEnv(v *config.VLLM, key string, environ []string) []string {
	env := filterEnv(environ, slices.Concat(passed, passedToEngine)...)
	for _, name := range notPassed {
		delete(env, name)
	}
	env["NO_COLOR"] = "1"
	env["VLLM_NO_USAGE_STATS"] = "1"
	env["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = "75"  // above Envoy's idle timeout, or connections close under requests
	env["VLLM_PLUGINS"] = ""                    // unset would load whatever is installed
	env["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] = "0" // a public host could lead to a private one
	env["PYTHONUNBUFFERED"] = "1"               // the log shows what is happening now
	if r := v.LoRA.Runtime; v.LoRA.Enabled && r.Enabled {
		env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
		if r.ResolverCacheDir != "" {
			env["VLLM_LORA_RESOLVER_CACHE_DIR"] = r.ResolverCacheDir
			env["VLLM_PLUGINS"] = "lora_filesystem_resolver"
		}
	}
	maps.Copy(env, v.ExtraEnv)
	if key != "" {
		env["VLLM_API_KEY"] = key
	}
	return list(env)
}

// serviceEnv is the environment of tollgate and Envoy.
func serviceEnv(environ []string) []string {
	return list(filterEnv(environ, append([]string{
		"GOMAXPROCS", "GOMEMLIMIT", "GOGC", "GODEBUG", "GOTRACEBACK", "GOCOVERDIR", "CONFIG_FILE",
		"OTEL_SEMCONV_STABILITY_OPT_IN", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES",
	}, passed...)...))
}

// findProgram looks a name without a slash up in the PATH of env. It returns a name
// that it does not find unchanged, so that the start fails with this name.
func findProgram(name string, env []string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, line := range env {
		path, ok := strings.CutPrefix(line, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(path) {
			file := filepath.Join(dir, name)
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return file
			}
		}
	}
	return name
}

// engineKey reads vllm.api_key_file; no file, no key.
func engineKey(v *config.VLLM) (string, error) {
	key, err := secretfile.Read(v.APIKeyFile)
	if err != nil {
		return "", fmt.Errorf("vllm.api_key_file: %w", err)
	}
	return key, nil
}
