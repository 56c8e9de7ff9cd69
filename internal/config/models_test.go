package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/alias"
	"tollgate/internal/config"
)

func TestModels(t *testing.T) {
	cfg, err := config.Parse("c.yaml", []byte(`
models:
- name: chat
  targets:
  - {model: Qwen/Qwen3-8B, weight: 90}
  - {model: Qwen/Qwen3-8B-AWQ, weight: 10}
  fallback: [Qwen/Qwen3-0.6B]
- {name: "claude-*", targets: [{model: Qwen/Qwen3-8B}]}
- {name: "claude-haiku-*", targets: [{model: claude-haiku-local, weight: null}]}
balance: {policy: least_loaded, max_load: 2}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []alias.Alias{
		{Name: "chat", Targets: []alias.Target{{Model: "Qwen/Qwen3-8B", Weight: 90}, {Model: "Qwen/Qwen3-8B-AWQ", Weight: 10}}, Fallback: []string{"Qwen/Qwen3-0.6B"}},
		{Name: "claude-*", Targets: []alias.Target{{Model: "Qwen/Qwen3-8B", Weight: 1}}},
		{Name: "claude-haiku-*", Targets: []alias.Target{{Model: "claude-haiku-local", Weight: 1}}},
	}
	if diff := cmp.Diff(want, cfg.Aliases()); diff != "" {
		t.Errorf("aliases (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(config.Balance{Policy: "least_loaded", MaxLoad: 2}, cfg.Balance); diff != "" {
		t.Errorf("balance (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(config.Balance{Policy: "prefix", MaxLoad: 1.25}, config.Default().Balance); diff != "" {
		t.Errorf("default (-want +got):\n%s", diff)
	}
}

func TestMistakesInModels(t *testing.T) {
	for _, tt := range []struct{ yaml, want string }{
		{
			"models: [{name: a, targets: [{model: a}]}]",
			`c.yaml:1:38: models[0].targets[0].model: leads to itself: a → a; give the alias a name that no engine serves, and write the served name here`,
		},
		{
			"models: [{name: a, targets: [{model: b}]}, {name: b, targets: [{model: m}], fallback: [a]}]",
			"c.yaml:1:38: models[0].targets[0].model: leads in a circle: a → b → a; write the name of a model that an engine serves\n" +
				"c.yaml:1:88: models[1].fallback[0]: leads in a circle: b → a → b; write the name of a model that an engine serves",
		},
		{
			"models: [{name: a, targets: [{model: b}]}, {name: b, targets: [{model: c}]}, {name: c, targets: [{model: b}]}]",
			"c.yaml:1:38: models[0].targets[0].model: is the name of models[1], and an alias does not lead to another one; write the models behind \"b\" here\n" +
				"c.yaml:1:72: models[1].targets[0].model: leads in a circle: b → c → b; write the name of a model that an engine serves\n" +
				"c.yaml:1:106: models[2].targets[0].model: leads in a circle: c → b → c; write the name of a model that an engine serves",
		},
		{
			"models: [{name: a*b, targets: [{model: m}]}]",
			`c.yaml:1:17: models[0].name: "a*b" has a * that is not its last character; one * at the end stands for any rest, as "claude-*"`,
		},
		{
			"models: [{name: 'a**', targets: [{model: m}]}]",
			`c.yaml:1:17: models[0].name: "a**" has a * that is not its last character; one * at the end stands for any rest, as "claude-*"`,
		},
		{
			"models: [{name: ' a', targets: [{model: m}]}]",
			`c.yaml:1:17: models[0].name: must be one line of 1 to 256 bytes; write the name that clients send, as chat, or the beginning of it, as "claude-*"`,
		},
		{
			"models: [{targets: [{model: m}]}]",
			`c.yaml:1:10: models[0].name: must be one line of 1 to 256 bytes; write the name that clients send, as chat, or the beginning of it, as "claude-*"`,
		},
		{
			"models: [{name: a}]",
			`c.yaml:1:10: models[0].targets: is empty: nothing stands behind the name; write for example [{model: Qwen/Qwen3-8B}]`,
		},
		{
			"models: [{name: a, targets: [{model: 'm*'}]}]",
			`c.yaml:1:38: models[0].targets[0].model: has a *, but requests go to one model; write a name that an engine lists in /v1/models, as Qwen/Qwen3-8B`,
		},
		{
			"models: [{name: a, targets: [{weight: 2}]}]",
			`c.yaml:1:30: models[0].targets[0].model: is not the name of a model; write a name that an engine lists in /v1/models, as Qwen/Qwen3-8B`,
		},
		{
			"models: [{name: a, targets: [{model: m, weight: 0}]}]",
			`c.yaml:1:49: models[0].targets[0].weight: must be between 1 and 1000000; a share relative to the other targets; a model that should get nothing is left out`,
		},
		{
			"models: [{name: a, targets: [{model: m}, {model: m}], fallback: [m, n, n]}]",
			"c.yaml:1:50: models[0].targets[1].model: is a target twice; keep one of them, with both weights together\n" +
				"c.yaml:1:66: models[0].fallback[0]: stands before it already; keep the first of them\n" +
				"c.yaml:1:72: models[0].fallback[2]: stands before it already; keep the first of them",
		},
		{
			"models: [{name: a, targets: [{model: m}]}, {name: a, targets: [{model: n}]}]",
			`c.yaml:1:51: models[1].name: is the name of models[0], too; keep one of them, with all targets`,
		},
		{
			"balance: {policy: prefx, max_load: 0.5}",
			"c.yaml:1:19: balance.policy: \"prefx\" is not allowed; did you mean prefix? allowed: prefix, least_loaded\n" +
				"c.yaml:1:36: balance.max_load: must be between 1 and 100; times the mean load, as 1.25; 1 lets no engine take more than another",
		},
	} {
		_, err := config.Parse("c.yaml", []byte(tt.yaml))
		if err == nil {
			t.Errorf("%s: no error", tt.yaml)
			continue
		}
		if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.yaml, diff)
		}
	}
}
