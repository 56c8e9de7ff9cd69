package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/google/renameio/v2"
	"github.com/hashicorp/go-hclog"

	"tollgate/internal/adapter"
	"tollgate/internal/vllm"
)

// ErrEngine means that the engine does not answer.
var ErrEngine = errors.New("the engine does not answer")

// RefusedError is a request that is wrong before the engine is asked.
type RefusedError struct{ reason string }

func (e *RefusedError) Error() string { return e.reason }

func refuse(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// decodeRequest reads vLLM's body of load and unload. Path is a folder under
// lora.dir, absolute or relative to it; empty means the folder with the adapter's name.
func decodeRequest(r io.Reader) (vllm.Adapter, error) {
	var req vllm.Adapter
	if err := json.UnmarshalRead(r, &req, json.RejectUnknownMembers(true)); err != nil {
		return req, refuse(`the body must be {"lora_name": "x", "lora_path": "y"}: %v`, err)
	}
	return req, checkName(req.Name)
}

func checkName(name string) error {
	if !adapter.Valid(name) {
		return refuse("lora_name must be %s", adapter.Rule)
	}
	return nil
}

// AdaptersOptions name the folder of the adapters and the engine that loads them.
type AdaptersOptions struct {
	Dir       string // adapters must lie under it
	StateFile string // the desired set, JSON
	Engine    *vllm.Client
	// Reserved are the served names, which an adapter must not take.
	Reserved []string
	Log      hclog.Logger
}

// Adapters loads and unloads adapters of a running engine, and stores the wanted set on
// disk, because an engine forgets it with every restart.
type Adapters struct {
	o  AdaptersOptions
	mu sync.Mutex // one change at a time, engine and file together
}

// desired is the state file.
type desired struct {
	// Loaded are the requests to repeat, by name, with absolute paths.
	Loaded map[string]vllm.Adapter `json:"loaded"`
	// Unloaded are adapters that the engine's arguments load and a user has unloaded.
	Unloaded []string `json:"unloaded,omitzero"`
}

// NewAdapters is ready for use; the state file need not exist.
func NewAdapters(o AdaptersOptions) *Adapters { return &Adapters{o: o} }

// Load checks the adapter's folder and loads it. A wrong request is a
// [*RefusedError], an engine that does not answer [ErrEngine]; any other error
// means that it is loaded but not remembered.
func (a *Adapters) Load(ctx context.Context, req vllm.Adapter) (vllm.Answer, error) {
	if err := checkName(req.Name); err != nil {
		return vllm.Answer{}, err
	}
	if slices.Contains(a.o.Reserved, req.Name) {
		return vllm.Answer{}, refuse("%s is the name of a served model", req.Name)
	}
	dir, err := a.resolve(req)
	if err != nil {
		return vllm.Answer{}, err
	}
	req.Path, req.IntID = dir, nil
	a.mu.Lock()
	defer a.mu.Unlock()
	res, err := a.load(ctx, req)
	if err != nil || res.Status != http.StatusOK {
		return res, err
	}
	return res, a.change(func(d *desired) {
		req.LoadInplace = false
		d.Loaded[req.Name] = req
		d.Unloaded = slices.DeleteFunc(d.Unloaded, func(s string) bool { return s == req.Name })
	})
}

// Unload unloads an adapter; errors as for [Adapters.Load].
func (a *Adapters) Unload(ctx context.Context, name string) (vllm.Answer, error) {
	if err := checkName(name); err != nil {
		return vllm.Answer{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	res, err := a.unload(ctx, name)
	if err != nil || (res.Status != http.StatusOK && res.Status != http.StatusNotFound) {
		return res, err
	}
	// An adapter that the engine does not know is removed from the wanted set too.
	return res, a.change(func(d *desired) {
		delete(d.Loaded, name)
		if res.Status == http.StatusOK && !slices.Contains(d.Unloaded, name) {
			d.Unloaded = append(d.Unloaded, name)
		}
	})
}

// Reapply loads and unloads adapters until an engine that has just started has the
// desired set. An adapter that cannot be loaded is logged and stays wanted.
func (a *Adapters) Reapply(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d, err := a.read()
	if err != nil {
		a.o.Log.Error("cannot read wanted adapters", "error", err)
		return
	}
	for _, name := range d.Unloaded {
		if _, err := a.unload(ctx, name); err != nil {
			a.o.Log.Error("cannot unload adapter again", "adapter", name, "error", err)
		}
	}
	for name, req := range d.Loaded {
		// The folder may have changed since it was checked.
		_, err := a.resolve(req)
		var res vllm.Answer
		if err == nil {
			req.LoadInplace = true
			res, err = a.load(ctx, req)
		}
		if err == nil && res.Status != http.StatusOK {
			err = errors.New(res.Message)
		}
		if err != nil {
			a.o.Log.Error("cannot load adapter again", "adapter", name, "error", err)
			continue
		}
		a.o.Log.Info("adapter loaded again", "adapter", name)
	}
}

// resolve returns the absolute folder of the adapter, which lies under Dir with
// no link leading out, nor any link out of it within.
func (a *Adapters) resolve(req vllm.Adapter) (string, error) {
	if a.o.Dir == "" {
		return "", refuse("vllm.lora.dir is not set: it names the folder that adapters are loaded from")
	}
	base, err := filepath.Abs(a.o.Dir)
	if err == nil {
		base, err = filepath.EvalSymlinks(base)
	}
	if err != nil {
		return "", refuse("vllm.lora.dir cannot be opened")
	}
	rel, err := relative(base, a.o.Dir, req)
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return "", refuse("vllm.lora.dir cannot be opened")
	}
	defer func() { _ = root.Close() }()
	folder, err := root.OpenRoot(rel)
	if err != nil {
		return "", refuse("there is no folder %q under vllm.lora.dir", rel)
	}
	defer func() { _ = folder.Close() }()
	if err := checkFolder(folder, rel); err != nil {
		return "", err
	}
	return filepath.Join(base, rel), nil
}

// relative is the wanted path relative to base, without anything that leads out
// by name. Links are not followed here.
func relative(base, configured string, req vllm.Adapter) (string, error) {
	want := req.Path
	if want == "" {
		want = req.Name
	}
	if filepath.IsAbs(want) {
		abs, err := filepath.Abs(configured)
		if err != nil {
			return "", fmt.Errorf("find vllm.lora.dir: %w", err)
		}
		for _, from := range []string{base, abs} {
			if rel, err := filepath.Rel(from, want); err == nil && filepath.IsLocal(rel) {
				return local(rel)
			}
		}
		return "", refuse("lora_path must lie under vllm.lora.dir")
	}
	return local(want)
}

func local(rel string) (string, error) {
	rel = filepath.Clean(rel)
	if !filepath.IsLocal(rel) || rel == "." {
		return "", refuse("lora_path must lie under vllm.lora.dir")
	}
	return rel, nil
}

// checkFolder requires adapter_config.json, refuses pickled weights, and refuses links
// that leave the folder.
func checkFolder(folder *os.Root, rel string) error {
	info, err := folder.Stat("adapter_config.json")
	if err != nil || !info.Mode().IsRegular() {
		return refuse("%q has no adapter_config.json", rel)
	}
	var pickled, safe bool
	err = fs.WalkDir(folder.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch path.Ext(name) {
		case ".bin", ".pt", ".pth":
			pickled = true
		case ".safetensors":
			safe = true
		}
		if e.Type()&fs.ModeSymlink != 0 {
			if _, err := folder.Stat(name); err != nil { // os.Root refuses to leave
				return refuse("%q holds a link that leads out of it", rel)
			}
		}
		return nil
	})
	var refused *RefusedError
	switch {
	case errors.As(err, &refused):
		return err
	case err != nil:
		return refuse("%q cannot be read", rel)
	case pickled && !safe:
		return refuse("%q holds pickled weights only, which can run code when loaded: convert them to safetensors", rel)
	}
	return nil
}

func (a *Adapters) load(ctx context.Context, req vllm.Adapter) (vllm.Answer, error) {
	res, err := a.o.Engine.LoadAdapter(ctx, req)
	return res, silent(err)
}

func (a *Adapters) unload(ctx context.Context, name string) (vllm.Answer, error) {
	res, err := a.o.Engine.UnloadAdapter(ctx, name)
	return res, silent(err)
}

// silent makes an error of the client an [ErrEngine].
func silent(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrEngine, err)
}

// read is called with mu held. No file is an empty set.
func (a *Adapters) read() (desired, error) {
	d := desired{Loaded: map[string]vllm.Adapter{}}
	b, err := os.ReadFile(a.o.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return d, fmt.Errorf("read adapter state: %w", err)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("read adapter state %s: %w", a.o.StateFile, err)
	}
	if d.Loaded == nil {
		d.Loaded = map[string]vllm.Adapter{}
	}
	return d, nil
}

// change is called with mu held.
func (a *Adapters) change(f func(*desired)) error {
	d, err := a.read()
	if err != nil {
		return err
	}
	f(&d)
	b, err := json.Marshal(d, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode adapter state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(a.o.StateFile), 0o700); err != nil {
		return fmt.Errorf("write adapter state: %w", err)
	}
	if err := renameio.WriteFile(a.o.StateFile, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write adapter state: %w", err)
	}
	return nil
}
