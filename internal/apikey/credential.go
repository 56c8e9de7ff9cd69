package apikey

import (
	"crypto/sha256"
	"errors"
	"strings"
)

// MaxCredential is the longest secret in bytes.
const MaxCredential = 512

var (
	// ErrMissing says that the request names no credential.
	ErrMissing = errors.New("credential is missing")
	// ErrMalformed says that the credential is not one secret from one source.
	ErrMalformed = errors.New("credential is malformed")
)

// ParseCredential takes the secret of a request out of the values of its
// Authorization and x-api-key headers, one element for each header line.
//
// There must be one line of one of them: "Bearer SECRET" (any case of the
// scheme, one or more spaces) or a bare secret that begins with "sk-" in
// Authorization, any secret in x-api-key. Spaces around a value do not count,
// as in HTTP. No line, or nothing in it, is [ErrMissing]. Two lines, a comma or
// any byte that is not part of a token (RFC 6750, b64token), and more than
// [MaxCredential] bytes are [ErrMalformed].
func ParseCredential(authorization, xAPIKey []string) (string, error) {
	lines := len(authorization) + len(xAPIKey)
	switch {
	case lines == 0:
		return "", ErrMissing
	case lines > 1:
		return "", ErrMalformed
	}
	if len(xAPIKey) == 1 {
		return secret(trim(xAPIKey[0]))
	}
	value := trim(authorization[0])
	if strings.HasPrefix(value, "sk-") {
		return secret(value)
	}
	scheme, rest, _ := strings.Cut(value, " ")
	if value != "" && !strings.EqualFold(scheme, "Bearer") {
		return "", ErrMalformed
	}
	return secret(trim(rest))
}

// trim removes what HTTP allows around a field value.
func trim(s string) string { return strings.Trim(s, " \t") }

func secret(s string) (string, error) {
	if s == "" {
		return "", ErrMissing
	}
	if len(s) > MaxCredential {
		return "", ErrMalformed
	}
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return "", ErrMalformed
		}
	}
	return s, nil
}

// tokenByte reports a byte of RFC 6750's b64token.
func tokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/=", c) >= 0
}

// Digest is what is stored and compared in place of a secret.
func Digest(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }
