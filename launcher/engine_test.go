package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/config"
)

func engineConfig(change func(*config.VLLM)) *config.VLLM {
	v := &config.VLLM{
		Host: "127.0.0.1", Port: 8000, LaunchMode: "cli", Model: "org/m", PythonLauncher: config.PythonLauncher{Python: "python3"},
		LoRA: config.LoRA{MaxLoRAs: 2, MaxLoRARank: 32},
	}
	if change != nil {
		change(v)
	}
	return v
}

const metering = " --enable-prompt-tokens-details --enable-force-include-usage"

func TestEngineCommandLine(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*config.VLLM)
		want   string
		main   string
	}{
		"cli": {nil, "vllm serve org/m --host 127.0.0.1 --port 8000" + metering, ""},
		"the user's arguments come last": {
			func(v *config.VLLM) { v.Args = []string{"--max-model-len", "4096"} },
			"vllm serve org/m --host 127.0.0.1 --port 8000" + metering + " --max-model-len 4096", "",
		},
		"metering flags that the user names": {
			func(v *config.VLLM) {
				v.Args = []string{"--enable_prompt_tokens_details", "--no-enable-force-include-usage"}
			},
			"vllm serve org/m --host 127.0.0.1 --port 8000 --enable_prompt_tokens_details --no-enable-force-include-usage", "",
		},
		"the Rust frontend rejects one of them": {
			func(v *config.VLLM) { v.ExtraEnv = map[string]string{"VLLM_USE_RUST_FRONTEND": "1"} },
			"vllm serve org/m --host 127.0.0.1 --port 8000 --enable-prompt-tokens-details", "",
		},
		"cli in the environment of a Python": {
			func(v *config.VLLM) { v.PythonLauncher.Python = "/opt/py/bin/python" },
			"/opt/py/bin/vllm serve org/m --host 127.0.0.1 --port 8000" + metering, "",
		},
		"python_api": {
			func(v *config.VLLM) { v.LaunchMode = "python_api"; v.PythonLauncher.Python = "/opt/py/bin/python" },
			"/opt/py/bin/python -m vllm.entrypoints.openai.api_server --model org/m --host 127.0.0.1 --port 8000" + metering, "",
		},
		"conda": {
			func(v *config.VLLM) { v.PythonLauncher.CondaEnv = "gpu" },
			"conda run --no-capture-output -n gpu vllm serve org/m --host 127.0.0.1 --port 8000" + metering, "vllm serve",
		},
		"conda by path, python_api": {
			func(v *config.VLLM) { v.LaunchMode = "python_api"; v.PythonLauncher.CondaEnv = "/envs/gpu" },
			"conda run --no-capture-output -p /envs/gpu python3 -m vllm.entrypoints.openai.api_server --model org/m --host 127.0.0.1 --port 8000" + metering,
			"vllm.entrypoints.openai.api_server",
		},
		"lora": {
			func(v *config.VLLM) {
				v.LoRA.Enabled = true
				v.LoRA.Preload = []config.Adapter{{Name: "a", Path: "/l/a"}, {Name: "b", Path: "/l/b"}}
			},
			"vllm serve org/m --host 127.0.0.1 --port 8000" + metering + " --enable-lora --max-loras 2 --max-lora-rank 32 --lora-modules a=/l/a b=/l/b", "",
		},
		"simulated": {
			func(v *config.VLLM) { v.LaunchMode, v.Model = "simulated", "" },
			"/bin/launcher simulate --listen 127.0.0.1:8000 --model simulated" + metering, "",
		},
		"simulated ignores conda": {
			func(v *config.VLLM) {
				v.LaunchMode, v.PythonLauncher.CondaEnv = "simulated", "gpu"
				v.LoRA = config.LoRA{Enabled: true, MaxLoRARank: 8, Preload: []config.Adapter{{Name: "a", Path: "p"}}, Runtime: config.LoRARuntime{Enabled: true}}
			},
			"/bin/launcher simulate --listen 127.0.0.1:8000 --model org/m" + metering + " --max-lora-rank 8 --enable-lora --adapter a=p", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, err := engineCommand(engineConfig(c.change), "/bin/launcher", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			got := cmd.Path + " " + strings.Join(cmd.Args, " ")
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("command (-want +got):\n%s", diff)
			}
			if cmd.Main != c.main {
				t.Errorf("main process: got %q, want %q", cmd.Main, c.main)
			}
		})
	}
}

func TestTheEngineIsToldWhichMediaItMayFetch(t *testing.T) {
	for _, c := range []struct{ list, args, want string }{
		{"", "", ""},
		{"images.example.org 10.0.0.5", "", " --allowed-media-domains images.example.org 10.0.0.5"},
		{"Images.Example.org. 0x0a000005", "", " --allowed-media-domains images.example.org 10.0.0.5"},
		{"images.example.org 10.0.0.0/8", "", ""}, // vLLM would refuse what is in the prefix
		{"images.example.org", "--allowed_media_domains=other.example.org", " --allowed_media_domains=other.example.org"},
	} {
		for _, mode := range []string{"cli", "python_api"} {
			v := engineConfig(func(v *config.VLLM) { v.LaunchMode, v.Args = mode, strings.Fields(c.args) })
			cmd, err := engineCommand(v, "/bin/launcher", "", []string{"VLLM_MEDIA_URL_ALLOW_REDIRECTS=1"}, mediaDomains(strings.Fields(c.list))...)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(cmd.Args, " ")
			if i := strings.Index(got, " --allowed"); c.want != got[max(i, 0):] && (c.want != "" || i >= 0) {
				t.Errorf("%s of %q: got %q, want %q at its end", mode, c.list, got, c.want)
			}
			if !slices.Contains(cmd.Env, "VLLM_MEDIA_URL_ALLOW_REDIRECTS=0") {
				t.Errorf("%s: redirects are followed: %v", mode, cmd.Env)
			}
		}
	}
	old := flagSet{"--model"}
	if got := old.withoutUnknown([]string{"serve", "m", mediaFlag, "a.example.org", "b.example.org", "--model", "x"}); !slices.Equal(got, []string{"serve", "m", "--model", "x"}) {
		t.Errorf("an engine without the flag gets %v", got)
	}
}

func TestTheEnginesKeyTravelsByEnvironmentOnly(t *testing.T) {
	const key = "very-secret"
	for _, mode := range []string{"cli", "python_api", "simulated"} {
		cmd, err := engineCommand(engineConfig(func(v *config.VLLM) { v.LaunchMode = mode }), "/bin/launcher", key, []string{"VLLM_API_KEY=other"})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(strings.Join(cmd.Args, " "), key) {
			t.Errorf("%s: the key is an argument", mode)
		}
		if got := strings.Join(cmd.Env, "\n"); !strings.Contains(got, "VLLM_API_KEY="+key) || strings.Contains(got, "other") {
			t.Errorf("%s: environment %q", mode, got)
		}
	}
	for _, arg := range []string{"--api-key", "--api-key=x", "--api_key"} {
		_, err := engineCommand(engineConfig(func(v *config.VLLM) { v.Args = []string{arg, "x"} }), "", "", nil)
		if !errors.Is(err, errKeyInArgs) {
			t.Errorf("%s: got %v", arg, err)
		}
	}
}

func TestTheEngineSeesOnlyWhatItNeeds(t *testing.T) {
	environ := []string{
		"PATH=/bin", "HOME=/root", "LC_ALL=C", "CUDA_VISIBLE_DEVICES=0", "HF_HOME=/hf", "VLLM_LOGGING_LEVEL=DEBUG", "AWS_SECRET_ACCESS_KEY=no",
		"TOLLGATE_KEY=no", "VLLM_API_KEY=no", "VLLM_SERVER_DEV_MODE=1", "VLLM_PLUGINS=all", "TMPDIR=/t",
	}
	own := []string{"NO_COLOR=1", "PYTHONUNBUFFERED=1", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE=75", "VLLM_MEDIA_URL_ALLOW_REDIRECTS=0", "VLLM_NO_USAGE_STATS=1"}
	kept := []string{"PATH=/bin", "HOME=/root", "LC_ALL=C", "CUDA_VISIBLE_DEVICES=0", "HF_HOME=/hf", "VLLM_LOGGING_LEVEL=DEBUG", "TMPDIR=/t"}
	for name, c := range map[string]struct {
		change func(*config.VLLM)
		want   []string
	}{
		"default": {nil, []string{"VLLM_PLUGINS="}},
		"runtime lora": {func(v *config.VLLM) {
			v.LoRA.Enabled, v.LoRA.Runtime.Enabled = true, true
		}, []string{"VLLM_PLUGINS=", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"}},
		"resolver": {func(v *config.VLLM) {
			v.LoRA.Enabled, v.LoRA.Runtime = true, config.LoRARuntime{Enabled: true, ResolverCacheDir: "/l"}
		}, []string{"VLLM_PLUGINS=lora_filesystem_resolver", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1", "VLLM_LORA_RESOLVER_CACHE_DIR=/l"}},
		"extra_env wins": {func(v *config.VLLM) {
			v.ExtraEnv = map[string]string{"VLLM_PLUGINS": "mine", "X": "y"}
		}, []string{"VLLM_PLUGINS=mine", "X=y"}},
	} {
		want, got := map[string]bool{}, map[string]bool{}
		for _, lines := range [][]string{own, kept, c.want} {
			for _, l := range lines {
				want[l] = true
			}
		}
		for _, l := range engineEnv(engineConfig(c.change), "", environ) {
			got[l] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: environment (-want +got):\n%s", name, diff)
		}
	}
}

func TestServedNames(t *testing.T) {
	for _, c := range []struct {
		mode, model string
		args        []string
		want        []string
	}{
		{"cli", "org/m", nil, []string{"org/m"}},
		{"cli", "org/m", []string{"--served-model-name", "a", "b", "--x"}, []string{"a", "b"}},
		{"cli", "org/m", []string{"--served_model_name=a"}, []string{"a"}},
		{"cli", "org/m", []string{"--config", "x.yaml"}, nil},
		{"simulated", "", nil, []string{"simulated"}},
	} {
		got := servedNames(&config.VLLM{LaunchMode: c.mode, Model: c.model, Args: c.args})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c, diff)
		}
	}
}
