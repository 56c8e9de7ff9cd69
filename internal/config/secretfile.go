package config

import (
	"fmt"
	"os"
)

// openFiles warns of files with a secret that other users can read or change. It is
// silent about a file that is missing or cannot be inspected: the code that needs the
// file reports that.
func (c *Config) openFiles() []string {
	var w []string
	for _, f := range []struct{ key, path string }{
		{"auth.api_keys_file", c.Auth.APIKeysFile},
		{"vllm.api_key_file", c.VLLM.APIKeyFile},
		{"launcher.token_file", c.Launcher.TokenFile},
		{"central.postgres_file", c.Central.PostgresFile},
		{"store.redis.password_file", c.Store.Redis.PasswordFile},
		{"tls.key_file", c.TLS.KeyFile},
		{"otel.headers_file", c.OTel.HeadersFile},
		{"service.tls.key_file", c.Service.TLS.KeyFile},
	} {
		if f.path == "" {
			continue
		}
		info, err := os.Stat(f.path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		// A group may be allowed to read it. Nobody else may, and only the owner may
		// write.
		if mode := info.Mode().Perm(); mode&0o027 != 0 {
			w = append(w, fmt.Sprintf("%s: %s has mode %04o, so that other users can read or change it: chmod 600 it", f.key, f.path, mode))
		}
	}
	return w
}
