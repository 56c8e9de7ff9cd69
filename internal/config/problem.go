package config

import (
	"strconv"
	"strings"

	"tollgate/internal/strictfile"
)

type (
	// Problem is one mistake in a configuration file. Its Key is the path of the
	// value, as "rate_limit.qps" or "vllm.args[2]".
	Problem = strictfile.Problem
	// Error holds every mistake of one file, in the order of its lines.
	Error = strictfile.Error
	// position is a place in the file; zero is nowhere.
	position = strictfile.Position
)

// show quotes a value of the file for a message. It hides a value that may be a secret,
// cuts long text and escapes unprintable text.
func show(key, value string) string {
	const longest = 40
	if hidden(key) || looksSecret(value) {
		return "a value that is not shown"
	}
	if len(value) > longest {
		return strconv.QuoteToASCII(value[:longest]) + "…"
	}
	return strconv.QuoteToASCII(value)
}

// hidden reports whether values under the key may be secrets.
func hidden(key string) bool {
	for _, p := range []string{"vllm.extra_env", "vllm.args"} {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	// A user may write the secret itself in place of its file.
	return strings.HasSuffix(key, "_file")
}

// looksSecret reports whether text looks like a key or a token: the prefixes
// that are common, or a long run without a separator.
func looksSecret(s string) bool {
	for _, p := range []string{"sk-", "hf_", "Bearer "} {
		if strings.Contains(s, p) {
			return true
		}
	}
	return len(s) >= 32 && !strings.ContainsAny(s, " /.:_-")
}
