package vllmsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// adapter is a loaded LoRA adapter.
type adapter struct{ name, path string }

// resetAdapters puts the adapters of the start back. The caller holds mu, or
// has the only reference.
func (s *Sim) resetAdapters() {
	s.adapters = nil
	for _, name := range slices.Sorted(maps.Keys(s.opts.Adapters)) {
		s.adapters = append(s.adapters, adapter{name, s.opts.Adapters[name]})
	}
}

// loaded finds an adapter. The caller holds mu.
func (s *Sim) loaded(name string) int {
	return slices.IndexFunc(s.adapters, func(a adapter) bool { return a.name == name })
}

// resolve finds what a request names: adapter is "" for the base model, which
// an absent name means too.
func (s *Sim) resolve(name string) (model, adapterName string, bad *problem) {
	if name == "" || slices.Contains(s.opts.Models, name) {
		return s.opts.Models[0], "", nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded(name) >= 0 {
		return name, name, nil
	}
	if s.opts.ResolverDir != "" {
		found, err := s.lookup(name)
		switch {
		case found && err != nil:
			return "", "", badRequest("", "LoRA adapter '%s' was found but could not be loaded.", name)
		case found:
			return name, name, nil
		}
	}
	return "", "", &problem{
		status: http.StatusNotFound, kind: kindNotFound, param: "model",
		message: fmt.Sprintf("The model `%s` does not exist. Valid aliases: %s.", name, strings.Join(s.opts.Models, ", ")),
	}
}

// lookup is the filesystem resolver: it joins the name to the folder as it is,
// ".." included, as the real one does. The caller holds mu.
func (s *Sim) lookup(name string) (found bool, err error) {
	path := filepath.Join(s.opts.ResolverDir, name)
	c, err := readAdapter(path)
	if err != nil || c.Kind != "LORA" || c.Base != s.opts.Root {
		return false, nil //nolint:nilerr // what cannot be read is not there, which is what the real resolver says
	}
	if c.Rank > s.opts.MaxLoRARank {
		return true, fmt.Errorf("check rank: %d is greater than %d", c.Rank, s.opts.MaxLoRARank)
	}
	s.adapters = append(s.adapters, adapter{name, path})
	return true, nil
}

// adapterConfig is as much of adapter_config.json as is looked at.
type adapterConfig struct {
	Kind string `json:"peft_type"`
	Base string `json:"base_model_name_or_path"`
	Rank int    `json:"r"`
}

func readAdapter(path string) (adapterConfig, error) {
	var c adapterConfig
	data, err := os.ReadFile(filepath.Join(path, "adapter_config.json")) //nolint:gosec // the path is the request's, as it is vLLM's
	if err != nil {
		return c, fmt.Errorf("read adapter: %w", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("decode adapter: %w", err)
	}
	return c, nil
}

// resolveModel reads the model of a request.
func (x *exchange) resolveModel() *problem {
	name, bad := x.f.text("model")
	if bad != nil {
		return bad
	}
	x.model, x.adapter, bad = x.sim.resolve(name)
	return bad
}

// models answers /v1/models: the base first, then the adapters.
func (s *Sim) models(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	adapters := slices.Clone(s.adapters)
	s.mu.Unlock()
	b := []byte(`{"object":"list","data":[`)
	for i, name := range s.opts.Models {
		b = appendModel(separate(b, i), name, s.opts.Root, "", s.opts.MaxModelLen)
	}
	for _, a := range adapters {
		b = appendModel(append(b, ','), a.name, a.path, s.opts.Models[0], 0)
	}
	writeJSON(w, http.StatusOK, append(b, "]}"...))
}

func appendModel(b []byte, name, root, parent string, length int) []byte {
	created := strconv.FormatInt(time.Now().Unix(), 10)
	b = appendString(append(b, `{"id":`...), name)
	b = append(b, `,"object":"model","created":`+created+`,"owned_by":"vllm","root":`...)
	b = appendOptional(append(appendString(b, root), `,"parent":`...), parent)
	b = append(b, `,"max_model_len":`...)
	if length == 0 {
		b = append(b, "null"...)
	} else {
		b = appendInt(b, "", length)
	}
	b = append(b, `,"permission":[{"id":"modelperm-`+randomHex(8)+`","object":"model_permission","created":`+created...)
	return append(b, `,"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*","group":null,"is_blocking":false}]}`...)
}

// plain answers a route that takes no part in inference.
func (s *Sim) plain(w http.ResponseWriter, r *http.Request, answer func(fields) ([]byte, *problem)) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f, bad := parseBody(r, body)
	var out []byte
	if bad == nil {
		out, bad = answer(f)
	}
	if bad == nil {
		var name string
		if name, bad = f.text("model"); bad == nil {
			_, _, bad = s.resolve(name)
		}
	}
	if bad != nil {
		writeJSON(w, bad.status, bad.openAI())
		return
	}
	writeJSON(w, http.StatusOK, out)
}

// loadAdapter answers /v1/load_lora_adapter.
func (s *Sim) loadAdapter(w http.ResponseWriter, r *http.Request) {
	s.lora(w, r, func(f fields) (string, *problem) {
		name, bad := required(f, "lora_name")
		path, bad2 := required(f, "lora_path")
		inPlace, bad3 := f.flag("load_inplace")
		if bad = cmp.Or(bad, bad2, bad3); bad != nil {
			return "", bad
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		at := s.loaded(name)
		switch {
		case name == "" || path == "":
			return "", badInput("Both 'lora_name' and 'lora_path' must be provided.")
		case slices.Contains(s.opts.Models, name):
			return "", badInput("The lora adapter '" + name + "' conflicts with a served base model.")
		case at >= 0 && !inPlace:
			return "", badInput("The lora adapter '" + name + "' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.")
		}
		if bad := s.checkAdapter(name, path); bad != nil {
			return "", bad
		}
		if at >= 0 {
			s.adapters[at].path = path
		} else {
			s.adapters = append(s.adapters, adapter{name, path})
		}
		return "Success: LoRA adapter '" + name + "' added successfully.", nil
	})
}

// checkAdapter looks at the files of an adapter.
func (s *Sim) checkAdapter(name, path string) *problem {
	c, err := readAdapter(path)
	if err != nil {
		shown := path
		if _, err := os.Stat(path); err != nil {
			shown = "<path>" // literally: vLLM hides a path that is no folder
		}
		return &problem{
			status: http.StatusNotFound, kind: kindNotFound,
			message: fmt.Sprintf("Loading lora %s failed: No adapter found for %s", name, shown),
		}
	}
	if c.Rank > s.opts.MaxLoRARank {
		return internalError(fmt.Sprintf("Call to add_lora method failed: Worker failed with error 'LoRA rank %d is greater than max_lora_rank %d.', please check the stack trace above for the root cause", c.Rank, s.opts.MaxLoRARank))
	}
	return nil
}

// unloadAdapter answers /v1/unload_lora_adapter.
func (s *Sim) unloadAdapter(w http.ResponseWriter, r *http.Request) {
	s.lora(w, r, func(f fields) (string, *problem) {
		name, bad := required(f, "lora_name")
		if bad != nil {
			return "", bad
		}
		if name == "" {
			return "", badInput("'lora_name' needs to be provided to unload a LoRA adapter.")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		at := s.loaded(name)
		if at < 0 {
			return "", &problem{
				status: http.StatusNotFound, kind: kindNotFound,
				message: "The lora adapter '" + name + "' cannot be found.",
			}
		}
		s.adapters = slices.Delete(s.adapters, at, at+1)
		return "Success: LoRA adapter '" + name + "' removed successfully.", nil
	})
}

// lora answers in plain text without a content type, or with an error body.
func (s *Sim) lora(w http.ResponseWriter, r *http.Request, do func(fields) (string, *problem)) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f, bad := parseBody(r, body)
	var text string
	if bad == nil {
		text, bad = do(f)
	}
	if bad != nil {
		writeJSON(w, bad.status, bad.openAI())
		return
	}
	w.Header()["Content-Type"] = nil // or the server guesses one
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = io.WriteString(w, text) // the client may be gone
}

// required is a string field that must be there.
func required(f fields, name string) (string, *problem) {
	if _, ok := f[name]; !ok {
		return "", f.missing(name)
	}
	return f.text(name)
}

func badInput(message string) *problem {
	return &problem{status: http.StatusBadRequest, kind: kindInput, message: message}
}
