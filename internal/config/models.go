package config

import (
	"fmt"
	"slices"
	"strings"

	"tollgate/internal/alias"
)

// defaults are those of an entry that does not say them.
func (t *Target) defaults() { t.Weight = 1 }

// Aliases are the names of models: as the rest of the program knows them.
func (c *Config) Aliases() []alias.Alias {
	out := make([]alias.Alias, 0, len(c.Models))
	for _, m := range c.Models {
		a := alias.Alias{Name: m.Name, Fallback: m.Fallback}
		for _, t := range m.Targets {
			a.Targets = append(a.Targets, alias.Target(t))
		}
		out = append(out, a)
	}
	return out
}

const (
	// longestName is the longest name of a model, in bytes: as in the key file.
	longestName = 256
	// mostWeight keeps the shares whole numbers that a person wrote.
	mostWeight = 1_000_000
)

func (d *decoder) models(c *Config) {
	d.oneOf("balance.policy", c.Balance.Policy, "prefix", "least_loaded")
	within(d, "balance.max_load", c.Balance.MaxLoad, 1, 100, "times the mean load, as 1.25; 1 lets no engine take more than another")
	for i, m := range c.Models {
		key := fmt.Sprintf("models[%d]", i)
		d.aliasName(join(key, "name"), m.Name)
		if j := slices.IndexFunc(c.Models[:i], func(o Model) bool { return o.Name == m.Name }); j >= 0 && m.Name != "" {
			d.bad(join(key, "name"), fmt.Sprintf("is the name of models[%d], too", j), "keep one of them, with all targets")
		}
		if len(m.Targets) == 0 {
			d.bad(join(key, "targets"), "is empty: nothing stands behind the name", "write for example [{model: Qwen/Qwen3-8B}]")
		}
		for j, t := range m.Targets {
			at := fmt.Sprintf("%s.targets[%d]", key, j)
			d.target(c, i, join(at, "model"), t.Model)
			within(d, join(at, "weight"), t.Weight, 1, mostWeight, "a share relative to the other targets; a model that should get nothing is left out")
			if slices.ContainsFunc(m.Targets[:j], func(o Target) bool { return o.Model == t.Model }) {
				d.bad(join(at, "model"), "is a target twice", "keep one of them, with both weights together")
			}
		}
		for j, name := range m.Fallback {
			at := fmt.Sprintf("%s.fallback[%d]", key, j)
			d.target(c, i, at, name)
			if slices.Contains(m.Fallback[:j], name) || slices.ContainsFunc(m.Targets, func(t Target) bool { return t.Model == name }) {
				d.bad(at, "stands before it already", "keep the first of them")
			}
		}
	}
}

// oneLine reports a text that can be a name: printable, without spaces around it.
func oneLine(s string) bool {
	return s != "" && len(s) <= longestName && s == strings.TrimSpace(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func (d *decoder) aliasName(key, name string) {
	star := strings.IndexByte(name, '*')
	switch {
	case !oneLine(name):
		d.bad(key, fmt.Sprintf("must be one line of 1 to %d bytes", longestName), `write the name that clients send, as chat, or the beginning of it, as "claude-*"`)
	case star >= 0 && star != len(name)-1:
		d.bad(key, show(key, name)+" has a * that is not its last character", `one * at the end stands for any rest, as "claude-*"`)
	}
}

// target checks a model behind models[i]: an alias leads to models that engines
// serve and to no other alias, so that no chain of them can be a circle.
func (d *decoder) target(c *Config, i int, key, model string) {
	other := slices.IndexFunc(c.Models, func(m Model) bool { return m.Name == model })
	switch {
	case !oneLine(model):
		d.bad(key, "is not the name of a model", "write a name that an engine lists in /v1/models, as Qwen/Qwen3-8B")
	case strings.Contains(model, "*"):
		d.bad(key, "has a *, but requests go to one model", "write a name that an engine lists in /v1/models, as Qwen/Qwen3-8B")
	case other == i:
		d.bad(key, "leads to itself: "+circle(c, i, i), "give the alias a name that no engine serves, and write the served name here")
	case other >= 0 && circle(c, i, other) != "":
		d.bad(key, "leads in a circle: "+circle(c, i, other), "write the name of a model that an engine serves")
	case other >= 0:
		d.bad(key, fmt.Sprintf("is the name of models[%d], and an alias does not lead to another one", other), "write the models behind "+show(key, model)+" here")
	}
}

// circle shows the way from models[from] over models[next] back to it; "" where
// there is none.
func circle(c *Config, from, next int) string {
	seen := make([]bool, len(c.Models))
	var walk func(i int) string
	walk = func(i int) string {
		switch {
		case i == from:
			return c.Models[from].Name
		case i < 0 || seen[i]:
			return ""
		}
		seen[i] = true
		for _, name := range c.Aliases()[i].Models() {
			if rest := walk(slices.IndexFunc(c.Models, func(m Model) bool { return m.Name == name })); rest != "" {
				return c.Models[i].Name + " → " + rest
			}
		}
		return ""
	}
	if rest := walk(next); rest != "" {
		return c.Models[from].Name + " → " + rest
	}
	return ""
}
