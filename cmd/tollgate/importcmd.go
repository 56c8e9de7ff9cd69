package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/goccy/go-yaml"

	"tollgate/internal/apikey"
	"tollgate/internal/config"
	"tollgate/internal/limit"
	"tollgate/internal/litellm"
	"tollgate/internal/strictfile"
)

// importCmd takes over what another gateway has.
type importCmd struct {
	LiteLLM litellmCmd `cmd:"" name:"litellm" help:"Take over models and keys of a LiteLLM proxy."`
}

type litellmCmd struct {
	outputFlag
	File            string `arg:"" name:"config" placeholder:"CONFIG" help:"LiteLLM's config.yaml; - with --keys-only."`
	Keys            string `placeholder:"FILE" help:"Export of its keys: the answer of GET /key/list?return_full_object=true, or rows of its table as JSON lines."`
	KeysOnly        bool   `help:"Take the keys alone; the configuration of Tollgate exists already."`
	TokensPerDollar int64  `placeholder:"N" help:"Turn budgets into quotas: tokens for one dollar. Default is no quota, and a word about each budget."`
	DryRun          bool   `help:"Only show what would be done, which is the default."`
	Write           bool   `help:"Write the configuration, which must not exist yet, and the keys."`
}

// Help is what --help says beside the flags.
func (*litellmCmd) Help() string {
	return `Servers of model_list become engines, names that differ from what an engine serves
become models, and keys keep their secrets: LiteLLM stores the same digest. What
does not map is said, line by line. No key of it opens /admin here. Without
--write nothing is changed; secrets are never shown.

  tollgate import litellm litellm.yaml --keys keys.json
  tollgate import litellm litellm.yaml --keys keys.json --write
  tollgate import litellm - --keys keys.json --keys-only --write`
}

// imported is what both files become.
type imported struct {
	Config  string         `json:"config,omitempty"` // the configuration, as text
	Keys    []apikey.Info  `json:"keys"`
	Notes   []litellm.Note `json:"notes"`
	engines int
	keys    []litellm.Key
}

// Run shows, and with --write does it.
func (c *litellmCmd) Run(env *Env) error {
	switch {
	case c.Write && c.DryRun:
		return usageError("--write and --dry-run: give one of them")
	case c.KeysOnly && c.Keys == "":
		return usageError("--keys-only: name the export with --keys")
	case c.TokensPerDollar < 0:
		return usageError("--tokens-per-dollar: must be above 0")
	}
	got, err := c.read()
	if err != nil {
		return err
	}
	if !c.Write {
		return showOne(env, c.Output, got, func(io.Writer) error { return got.people(env) })
	}
	if !c.KeysOnly {
		if err := writeConfig(env, got); err != nil {
			return err
		}
	}
	if c.Keys != "" {
		if err := writeKeys(env, got.keys); err != nil {
			return err
		}
	}
	sayNotes(env.Stderr, got.Notes)
	return nil
}

// read understands both files; nothing is written before both are good.
func (c *litellmCmd) read() (*imported, error) {
	got := &imported{}
	if !c.KeysOnly {
		raw, err := readBounded(c.File)
		if err != nil {
			return nil, err
		}
		conf, err := litellm.ReadConfig(raw)
		if err != nil {
			return nil, usageError("%s: %w", c.File, err)
		}
		if got.Config, err = configText(conf); err != nil {
			return nil, err
		}
		got.engines, got.Notes = len(conf.Engines), conf.Notes
	}
	if c.Keys != "" {
		raw, err := readBounded(c.Keys)
		if err != nil {
			return nil, err
		}
		keys, notes, err := litellm.ReadKeys(raw, litellm.Options{TokensPerDollar: c.TokensPerDollar})
		if err != nil {
			return nil, usageError("%s: %w", c.Keys, err)
		}
		for i := range keys {
			got.Keys = append(got.Keys, keyOf(&keys[i]).Info())
		}
		got.keys, got.Notes = keys, append(got.Notes, notes...)
	}
	return got, nil
}

// maxImport bounds a file that is imported, in bytes.
const maxImport = 64 << 20

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the file that the user names
	if err != nil {
		return nil, usageError("%s: %v", path, errors.Unwrap(err))
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxImport+1))
	switch {
	case err != nil:
		return nil, usageError("%s cannot be read: %v", path, err)
	case len(data) > maxImport:
		return nil, usageError("%s has more than %d MB", path, maxImport>>20)
	}
	return data, nil
}

// configText is the configuration; every setting that it does not name has its default.
func configText(c *litellm.Config) (string, error) {
	var doc struct {
		RateLimit *struct {
			Concurrent int64 `yaml:"concurrent"`
		} `yaml:"rate_limit,omitempty"`
		Engines []litellm.Engine `yaml:"engines"`
		Models  []litellm.Model  `yaml:"models,omitempty"`
	}
	doc.Engines, doc.Models = c.Engines, c.Models
	if c.Concurrent > 0 {
		doc.RateLimit = &struct {
			Concurrent int64 `yaml:"concurrent"`
		}{c.Concurrent}
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	out := "# From a LiteLLM proxy, by tollgate import litellm. Every setting that is not here has its default.\n" + string(text)
	if _, err := config.Parse("the imported configuration", []byte(out)); err != nil {
		return "", err
	}
	return out, nil
}

// keyOf is the key as it would be here.
func keyOf(k *litellm.Key) *apikey.Key {
	key := &apikey.Key{
		ID: k.ID, User: k.User, Enabled: k.Enabled, Quota: limit.Unlimited, QuotaPeriod: apikey.Period(k.Period), Models: k.Models,
		Concurrent: k.Concurrent, RequestsPerMinute: k.Requests, TokensPerMinute: k.Tokens, ExpiresAt: k.ExpiresAt, Note: k.Note,
	}
	if k.Quota != nil {
		key.Quota = *k.Quota
	}
	return key
}

// people shows everything as text.
func (i *imported) people(env *Env) error {
	if i.Config != "" {
		fmt.Fprintf(env.Stdout, "The configuration would be:\n\n%s\n", i.Config)
	}
	if len(i.keys) > 0 {
		fmt.Fprintf(env.Stdout, "%d keys (an id that is missing is made of the digest):\n\n", len(i.keys))
		list := make([]*apikey.Key, len(i.keys))
		for n := range i.keys {
			list[n] = keyOf(&i.keys[n])
		}
		if err := listTable(env, list, false, time.Now()); err != nil {
			return err
		}
		fmt.Fprintln(env.Stdout)
	}
	sayNotes(env.Stdout, i.Notes)
	fmt.Fprintln(env.Stdout, "\nNothing was changed: --write does it.")
	return nil
}

// sayNotes lists what does not map.
func sayNotes(w io.Writer, list []litellm.Note) {
	if len(list) == 0 {
		fmt.Fprintln(w, "Everything maps.")
		return
	}
	fmt.Fprintf(w, "%d things to know:\n", len(list))
	for _, n := range list {
		fmt.Fprintf(w, "  %s: %s\n", n.Where, n.Text)
	}
}

// writeConfig writes a configuration where there is none.
func writeConfig(env *Env, got *imported) error {
	path := env.ConfigPath()
	if got.engines == 0 {
		return usageError("none of its servers can be an engine, so there is nothing to write: look at the notes without --write")
	}
	created, err := strictfile.Create(path, []byte(got.Config), 0o600)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if !created {
		return usageError("%s exists and is left as it is: name another file with --config, or take the keys alone with --keys-only", path)
	}
	fmt.Fprintf(env.Stderr, "wrote %s with %d engines; what is served under which name is shown by: tollgate config check\n", path, got.engines)
	return nil
}

// writeKeys adds the keys that are not here yet, so that it may be done again.
func writeKeys(env *Env, keys []litellm.Key) error {
	cfg, err := env.Config()
	if err != nil {
		return err
	}
	if !cfg.Central.Keys {
		first, created, err := apikey.Ensure(cfg.Auth.APIKeysFile)
		if err != nil {
			return err
		}
		if created {
			fmt.Fprintf(env.Stderr, "wrote %s with an admin key, shown once: %s\n", cfg.Auth.APIKeysFile, first.AdminSecret)
		}
	}
	added, known := 0, 0
	where, err := editKeys(env, cfg, func(f *apikey.File) error {
		added, known = 0, 0
		for i := range keys {
			k := &keys[i]
			if f.Knows(k.Digest) {
				known++
				continue
			}
			info := keyOf(k).Info()
			for n := 2; info.ID != "" && f.Has(info.ID); n++ {
				info.ID = fmt.Sprintf("%s-%d", k.ID, n)
			}
			if _, err := f.Adopt(k.Digest, info.Fields()); err != nil {
				return fmt.Errorf("key %s: %w", cmp.Or(k.ID, k.User), err)
			}
			added++
		}
		return nil
	})
	if err != nil {
		return wrongValue(err)
	}
	takeKeys(env, cfg)
	fmt.Fprintf(env.Stderr, "%d keys added to %s, %d were here already\n", added, where, known)
	return nil
}
