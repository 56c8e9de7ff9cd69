package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"tollgate/internal/config"
	"tollgate/internal/spelling"
	"tollgate/internal/supervisor"
)

const (
	// helpTimeout bounds a call of the engine's --help, which imports all of vLLM: ten
	// seconds on an idle machine, forty on a busy one.
	helpTimeout = 2 * time.Minute
	// askTimeout bounds a call of a program that may not be vLLM and may start to serve
	// instead of answering.
	askTimeout = 10 * time.Second
	// maxHelp is how much of the answer is read, in bytes; vLLM's is 200 KB.
	maxHelp = 4 << 20
)

// flagSet holds the flags of an engine, sorted, without duplicates. An empty set means
// that they are not known.
type flagSet []string

// flagCache is the file that remembers a flagSet.
type flagCache struct {
	Key   string  `json:"key"` // identifies the installed version
	Flags flagSet `json:"flags"`
}

var flagPattern = regexp.MustCompile(`(?:^|[\s,\[(|])(--[A-Za-z][A-Za-z0-9_-]*)`)

// parseFlags finds the flags in a help text.
func parseFlags(help []byte) flagSet {
	var flags flagSet
	for _, m := range flagPattern.FindAllSubmatch(help, -1) {
		flags = append(flags, plainFlag(string(m[1])))
	}
	slices.Sort(flags)
	return slices.Compact(flags)
}

// plainFlag is the spelling of the help: vLLM takes underscores for dashes, a
// value after "=", and a key of a JSON value after a dot.
func plainFlag(arg string) string {
	name, _, _ := strings.Cut(arg, "=")
	name, _, _ = strings.Cut(name, ".")
	return strings.ReplaceAll(name, "_", "-")
}

// takes reports whether the engine has a flag; the beginning of its name is enough.
func (f flagSet) takes(arg string) bool {
	name := plainFlag(arg)
	return len(f) == 0 || slices.ContainsFunc(f, func(known string) bool { return strings.HasPrefix(known, name) })
}

// check returns an error for each flag among the arguments that the engine does not
// have, with a suggestion.
func (f flagSet) check(args []string) error {
	var errs []error
	for _, arg := range args {
		if arg == "--" {
			break // no flags after this
		}
		if !strings.HasPrefix(arg, "--") || f.takes(arg) {
			continue
		}
		name, _, _ := strings.Cut(arg, "=") // the value may be anything
		text := fmt.Sprintf("vllm.args: this vLLM has no flag %s", name)
		if near := f.nearest(plainFlag(arg)); near != "" {
			text += fmt.Sprintf("; did you mean %s?", near)
		} else {
			text += "; `vllm serve --help=all` lists them"
		}
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// nearest returns the flag with the smallest distance, "" when more than a third of the
// characters differ.
func (f flagSet) nearest(name string) string {
	best, at := "", len(name)/3+1
	for _, known := range f {
		if d := spelling.Distance(name, known); d < at {
			best, at = known, d
		}
	}
	return best
}

// withoutUnknown leaves out the flags of metering that the engine does not take: older
// versions lack a flag that is only a second safeguard. The user's own flags were
// checked before.
func (f flagSet) withoutUnknown(args []string) []string {
	args = slices.DeleteFunc(args, func(arg string) bool { return slices.Contains(meteringFlags, arg) && !f.takes(arg) })
	if i := slices.Index(args, mediaFlag); i >= 0 && !f.takes(mediaFlag) {
		end := i + 1
		for end < len(args) && !strings.HasPrefix(args[end], "-") {
			end++
		}
		args = slices.Delete(args, i, end)
	}
	return args
}

// checkArgs fails when the user's arguments hold a flag that the engine does not
// have, and returns those that it has.
func (h *host) checkArgs(cmd supervisor.Command) (flagSet, error) {
	flags, err := h.engineFlags(cmd)
	if err != nil {
		return nil, err
	}
	if err := flags.check(h.cfg.VLLM.Args); err != nil {
		return nil, misconfigured{err}
	}
	return flags, nil
}

// engineFlags asks the engine for its flags, once for every installed version: it takes
// as long as half a start. The arguments of an engine that does not answer are not
// checked; the user then reads the engine's own message.
func (h *host) engineFlags(cmd supervisor.Command) (flagSet, error) {
	if h.cfg.VLLM.LaunchMode == "simulated" {
		return nil, nil
	}
	cache := filepath.Join(h.cfg.StateDir, "vllm-flags.json")
	key, isVLLM := h.installed(cmd)
	if flags := readFlags(cache, key); flags != nil {
		return flags, nil
	}
	done := h.console.follow(func() string { return "asking vLLM for its flags, once for every version" })
	defer done()
	timeout := askTimeout
	if isVLLM {
		timeout = helpTimeout
	}
	help, err := h.output(timeout, helpCommand(&h.cfg.VLLM, cmd))
	if h.stopping.Err() != nil {
		return nil, context.Cause(h.stopping)
	}
	flags := parseFlags(help)
	if err == nil && len(flags) == 0 {
		err = errors.New("its help names none")
	}
	if err != nil {
		h.log.Warn("vllm.args are not checked: vLLM does not list its flags", "error", err)
		return nil, nil // the start will show why the engine does not run
	}
	if key != "" {
		if err := writeFlags(cache, flagCache{Key: key, Flags: flags}); err != nil {
			h.log.Warn("cannot remember the flags of vLLM", "error", err)
		}
	}
	return flags, nil
}

// helpCommand returns the engine's command with --help in place of its arguments.
func helpCommand(v *config.VLLM, cmd supervisor.Command) supervisor.Command {
	keep := 1 // serve
	if v.LaunchMode == "python_api" {
		keep = 2 // -m MODULE
	}
	if v.PythonLauncher.CondaEnv != "" {
		keep += slices.Index(cmd.Args, v.PythonLauncher.CondaEnv) + 2 // run … ENV PROGRAM
	}
	cmd.Args = append(slices.Clone(cmd.Args[:keep]), "--help=all")
	return cmd
}

// output runs a command and returns what it prints. No process of it is left behind,
// even if this process dies.
func (h *host) output(timeout time.Duration, c supervisor.Command) ([]byte, error) {
	ctx, cancel := context.WithTimeout(h.stopping, timeout)
	defer cancel()
	var out, errs bytes.Buffer
	c.Path, c.Stderr = findProgram(c.Path, c.Env), &limitedWriter{to: &errs, left: maxHelp}
	exit, err := supervisor.Output(ctx, c, &limitedWriter{to: &out, left: maxHelp}, h.guard)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("no answer in %s", timeout)
	case err != nil:
		return nil, err
	case exit.Code != 0:
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		return nil, fmt.Errorf("%s: %s", exit, cut(lines[len(lines)-1], 200))
	}
	return out.Bytes(), nil
}

// limitedWriter keeps the beginning and discards the rest.
type limitedWriter struct {
	to   io.Writer
	left int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	n := min(w.left, len(p))
	w.left -= n
	if _, err := w.to.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// installed identifies the engine's program and version without running it: the
// file's identity, and the metadata of the vLLM installed beside it, if there is
// one. Empty when the program is not to be found.
func (h *host) installed(cmd supervisor.Command) (key string, isVLLM bool) {
	v := &h.cfg.VLLM
	program, env := "vllm", cmd.Env
	switch {
	case v.LaunchMode == "python_api":
		program = v.PythonLauncher.Python
	case v.PythonLauncher.CondaEnv == "" && cmd.Path != "":
		program = cmd.Path // beside its Python, or in PATH
	}
	if v.PythonLauncher.CondaEnv != "" {
		prefix := h.condaPrefix(v.PythonLauncher.CondaEnv, cmd)
		env = []string{"PATH=" + filepath.Join(prefix, "bin")}
	}
	path := findProgram(program, env)
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", false
	}
	sum := sha256.New()
	// The environment is the folder of the name, which may be a link to a shared
	// interpreter, or the folder to which a link to the program leads.
	var metadata []string
	for _, program := range []string{path, target} {
		found, _ := filepath.Glob(filepath.Join(filepath.Dir(program), "../lib*/python*/*-packages/vllm*-info"))
		metadata = append(metadata, found...)
	}
	for _, file := range append([]string{path, target}, metadata...) {
		info, err := os.Stat(file)
		if err != nil {
			return "", false
		}
		fmt.Fprintln(sum, file, info.Size(), info.ModTime().UnixNano())
	}
	fmt.Fprintln(sum, v.LaunchMode)
	return hex.EncodeToString(sum.Sum(nil)), len(metadata) > 0
}

// condaPrefix is the folder of a conda environment, empty when there is none.
func (h *host) condaPrefix(env string, cmd supervisor.Command) string {
	if strings.Contains(env, "/") {
		return env
	}
	out, err := h.output(helpTimeout, supervisor.Command{
		Path: cmd.Path, Env: cmd.Env, Forks: true, Args: []string{"run", "--no-capture-output", "-n", env, "printenv", "CONDA_PREFIX"},
	})
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// readFlags returns nil when the file does not hold the flags of that version.
func readFlags(path, key string) flagSet {
	b, err := os.ReadFile(path) //nolint:gosec // ours, under state_dir
	if err != nil || key == "" {
		return nil
	}
	var c flagCache
	if json.Unmarshal(b, &c) != nil || c.Key != key {
		return nil
	}
	return c.Flags
}

func writeFlags(path string, c flagCache) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode flags: %w", err)
	}
	if err := renameio.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write flags: %w", err)
	}
	return nil
}
