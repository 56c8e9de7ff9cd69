package litellm

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Config is what a configuration becomes.
type Config struct {
	Engines    []Engine
	Models     []Model
	Concurrent int64 // requests at once, whole gateway; 0 = not said
	Notes      []Note
}

// Engine is one address.
type Engine struct {
	Address string `yaml:"address"`
	Weight  int    `yaml:"weight,omitempty"`
}

// Model is one name that clients use, with what stands behind it. A name that an engine
// serves under the same name needs none.
type Model struct {
	Name     string   `yaml:"name"`
	Targets  []Target `yaml:"targets"`
	Fallback []string `yaml:"fallback,omitempty"`
}

// Target is a served model.
type Target struct {
	Model  string `yaml:"model"`
	Weight int    `yaml:"weight,omitempty"`
}

// file is the part of a LiteLLM configuration that is looked at.
type file struct {
	ModelList []struct {
		Name   string         `yaml:"model_name"`
		Params map[string]any `yaml:"litellm_params"`
		Info   map[string]any `yaml:"model_info"`
	} `yaml:"model_list"`
	Router      map[string]any `yaml:"router_settings"`
	Settings    map[string]any `yaml:"litellm_settings"`
	General     map[string]any `yaml:"general_settings"`
	Environment map[string]any `yaml:"environment_variables"`
	Rest        map[string]any `yaml:",inline"`
}

// deployment is one entry of the list, understood.
type deployment struct {
	name, served, address string
	weight                int
}

// reader goes through a file.
type reader struct {
	notes
	deployments []deployment
}

// errNoModels says that a file has none.
var errNoModels = errors.New("it has no model_list: is it the config.yaml of a LiteLLM proxy?")

// ReadConfig reads a config.yaml. The error says what is wrong with the file; what
// does not map is no error but a note.
func ReadConfig(data []byte) (*Config, error) {
	var f file
	if err := yaml.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("read LiteLLM's configuration: %s", firstLine(yaml.FormatError(err, false, false)))
	}
	if len(f.ModelList) == 0 {
		return nil, fmt.Errorf("read LiteLLM's configuration: %w", errNoModels)
	}
	r := &reader{}
	for i, m := range f.ModelList {
		r.deployment(fmt.Sprintf("model_list[%d] (%s)", i, m.Name), m.Name, m.Params)
	}
	out := &Config{Engines: r.engines(), Models: r.models()}
	r.router(out, f.Router, f.Settings)
	r.rest(out, &f)
	out.Notes = r.list
	return out, nil
}

// firstLine keeps the sentence of an error and drops the excerpt of the file, which
// may hold a secret.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// ours are the providers of LiteLLM that mean an OpenAI-compatible server at api_base.
var ours = []string{"hosted_vllm", "openai", "vllm", "text-completion-openai", "custom_openai", "openai_like", "litellm_proxy"}

// known are parameters of a deployment that are mapped, or that have a note of their own.
var known = []string{"model", "api_base", "base_url", "api_key", "rpm", "tpm", "weight", "custom_llm_provider"}

// deployment reads one entry of the list.
func (r *reader) deployment(where, name string, params map[string]any) {
	model := text(params["model"])
	provider, served, _ := strings.Cut(model, "/")
	if named := text(params["custom_llm_provider"]); named != "" {
		provider, served = named, strings.TrimPrefix(model, named+"/")
	}
	base := text(cmp.Or(params["api_base"], params["base_url"]))
	switch {
	case name == "" || model == "":
		r.add(where, "has no model_name or no model: left out")
		return
	case base == "" || served == "" || !slices.Contains(ours, provider):
		r.add(where, "goes to another provider than a server of your own (%s): Tollgate stands before your own engines; left out", cmp.Or(provider, "no api_base"))
		return
	case strings.Contains(name, "*") || strings.Contains(served, "*"):
		r.add(where, "is a pattern: what engines serve is asked of them, and all of it is served under its own name; a pattern of your own is written in models")
		served = ""
	}
	address, ok := r.address(where, base)
	if !ok {
		return
	}
	r.parameters(where, params)
	weight := int(number(params["weight"]))
	r.deployments = append(r.deployments, deployment{name: name, served: served, address: address, weight: max(weight, 1)})
}

// address is the host and port of an api_base.
func (r *reader) address(where, base string) (string, bool) {
	if strings.HasPrefix(base, "os.environ/") {
		r.add(where, "takes its api_base from the environment (%s): add the engine by hand, under engines", base)
		return "", false
	}
	u, err := url.Parse(base)
	if err != nil || u.Hostname() == "" || u.User != nil {
		r.add(where, "has an api_base that is no plain URL: left out")
		return "", false
	}
	if u.Scheme != "http" {
		r.add(where, "is reached by %s: Tollgate speaks plain HTTP to engines; put it on a private network, as %s without TLS, and add it under engines", u.Scheme, u.Hostname())
		return "", false
	}
	if path := strings.TrimSuffix(u.Path, "/"); path != "" && path != "/v1" {
		r.add(where, "has the path %s in its api_base: Tollgate asks engines at /v1", u.Path)
		return "", false
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80")), true
}

// parameters says what of a deployment does not map.
func (r *reader) parameters(where string, params map[string]any) {
	if key := text(params["api_key"]); key != "" && !slices.Contains([]string{"none", "fake", "dummy", "empty"}, strings.ToLower(key)) {
		r.add("model_list", "engines have an api_key: write it into a file and name that in vllm.api_key_file; all engines take the same one")
	}
	if params["rpm"] != nil || params["tpm"] != nil {
		r.add("model_list", "rpm and tpm of deployments steer LiteLLM's router: here limits belong to keys (rate_limit, keys set), and engines are chosen by what they still have to do")
	}
	for _, name := range sorted(params) {
		if !slices.Contains(known, name) {
			r.add(where, "%s does not map", name)
		}
	}
}

// engines are the addresses, in the order of the file.
func (r *reader) engines() []Engine {
	var out []Engine
	for _, d := range r.deployments {
		if !slices.ContainsFunc(out, func(e Engine) bool { return e.Address == d.address }) {
			out = append(out, Engine{Address: d.address})
		}
	}
	return out
}

// groups are all names with what stands behind them, in the order of the file.
func (r *reader) groups() []Model {
	var out []Model
	for _, d := range r.deployments {
		if d.served == "" {
			continue
		}
		i := slices.IndexFunc(out, func(m Model) bool { return m.Name == d.name })
		if i < 0 {
			i, out = len(out), append(out, Model{Name: d.name})
		}
		m := &out[i]
		if j := slices.IndexFunc(m.Targets, func(t Target) bool { return t.Model == d.served }); j >= 0 {
			m.Targets[j].Weight += d.weight
			continue
		}
		m.Targets = append(m.Targets, Target{Model: d.served, Weight: d.weight})
	}
	for _, m := range out {
		if len(m.Targets) == 1 {
			m.Targets[0].Weight = 0 // alone it has all
		}
	}
	return out
}

// models are the names that differ from what an engine serves.
func (r *reader) models() []Model {
	var out []Model
	for _, m := range r.groups() {
		switch own := slices.ContainsFunc(m.Targets, func(t Target) bool { return t.Model == m.Name }); {
		case own && len(m.Targets) == 1:
		case own:
			r.add("model_list ("+m.Name+")", "is the name of a group and of a model in it: clients of %s get the model of that name, and the others of the group need a name of their own", m.Name)
		default:
			out = append(out, m)
		}
	}
	return out
}

// targets are the models behind a name of LiteLLM.
func (r *reader) targets(name string) []Target {
	for _, m := range r.groups() {
		if m.Name == name {
			return m.Targets
		}
	}
	return nil
}

// router reads what stands behind names: aliases and fallbacks.
func (r *reader) router(out *Config, router, settings map[string]any) {
	aliases, _ := router["model_group_alias"].(map[string]any)
	for _, name := range sorted(aliases) {
		group := text(aliases[name])
		if m, ok := aliases[name].(map[string]any); ok {
			group = text(m["model"])
		}
		where := "router_settings.model_group_alias." + name
		targets := r.targets(group)
		switch {
		case len(targets) == 0:
			r.add(where, "leads to %s, which is not here: left out", group)
		case slices.ContainsFunc(out.Models, func(m Model) bool { return m.Name == name }):
			r.add(where, "is the name of a group, too: left out")
		default:
			out.Models = append(out.Models, Model{Name: name, Targets: targets})
		}
	}
	for _, section := range []struct {
		name   string
		values map[string]any
	}{{"router_settings", router}, {"litellm_settings", settings}} {
		list, _ := section.values["fallbacks"].([]any)
		for _, entry := range list {
			if group, ok := entry.(map[string]any); ok {
				r.fallbacks(out, section.name+".fallbacks", group)
			}
		}
	}
	out.Models = r.straight(out.Models)
}

// straight leaves names out that lead to another name: here a name leads to what an
// engine serves.
func (r *reader) straight(models []Model) []Model {
	named := func(model string) bool {
		return slices.ContainsFunc(models, func(m Model) bool { return m.Name == model })
	}
	var out []Model
	for _, m := range models {
		m.Fallback = slices.DeleteFunc(m.Fallback, named)
		if slices.ContainsFunc(m.Targets, func(t Target) bool { return named(t.Model) }) {
			r.add("model_list ("+m.Name+")", "leads to the name of another group; names lead to what an engine serves: left out")
			continue
		}
		out = append(out, m)
	}
	return out
}

// fallbacks reads {name: [names]}.
func (r *reader) fallbacks(out *Config, where string, group map[string]any) {
	for _, name := range sorted(group) {
		i := slices.IndexFunc(out.Models, func(m Model) bool { return m.Name == name })
		if i < 0 {
			r.add(where, "%s is served under its own name and cannot have a fallback: give clients a name of models", name)
			continue
		}
		m := &out.Models[i]
		names, _ := group[name].([]any)
		for _, n := range names {
			targets := r.targets(text(n))
			if len(targets) == 0 {
				r.add(where, "%s falls back to %s, which is not here: left out", name, text(n))
			}
			for _, t := range targets {
				used := slices.Contains(m.Fallback, t.Model) || slices.ContainsFunc(m.Targets, func(o Target) bool { return o.Model == t.Model })
				if !used {
					m.Fallback = append(m.Fallback, t.Model)
				}
			}
		}
	}
}

// sections are the parts of the file that are read.
var sections = []string{"model_list", "router_settings", "litellm_settings", "general_settings", "environment_variables"}

// rest says what of the other sections does not map.
func (r *reader) rest(out *Config, f *file) {
	for _, section := range []struct {
		name   string
		values map[string]any
		done   []string
	}{
		{"router_settings", f.Router, []string{"model_group_alias", "fallbacks"}},
		{"litellm_settings", f.Settings, []string{"fallbacks"}},
		{"general_settings", f.General, nil},
	} {
		for _, name := range sorted(section.values) {
			where := section.name + "." + name
			switch {
			case slices.Contains(section.done, name):
			case name == "global_max_parallel_requests":
				out.Concurrent = number(section.values[name])
			case name == "master_key":
				r.add(where, "is not imported, because it opens everything: make an administrator's key with `tollgate keys add --user admin`")
			case name == "request_timeout", name == "timeout", name == "stream_timeout":
				r.add(where, "has no like: request.idle_timeout bounds silence, not the whole answer")
			case name == "num_retries", name == "max_retries", name == "allowed_fails", name == "cooldown_time":
				r.add(where, "has no like: nothing of a request is sent twice, and an engine that fails its health check gets nothing")
			case name == "database_url", name == "store_model_in_db":
				r.add(where, "has no like: the ledger is a file (ledger.path) or central in PostgreSQL (central.postgres_file); models that live in LiteLLM's database are not in this file")
			default:
				r.add(where, "does not map")
			}
		}
	}
	if len(f.Environment) > 0 {
		r.add("environment_variables", "do not map: the environment of vLLM is vllm.extra_env")
	}
	for _, name := range sorted(f.Rest) {
		if !slices.Contains(sections, name) {
			r.add(name, "does not map")
		}
	}
}

// text is a string; "" for anything else.
func text(v any) string {
	s, _ := v.(string)
	return strings.TrimSpace(s)
}

// number is a whole number; 0 for anything else.
func number(v any) int64 {
	switch n := v.(type) {
	case uint64:
		return int64(min(n, 1<<53)) //nolint:gosec // bounded
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return 0
}
