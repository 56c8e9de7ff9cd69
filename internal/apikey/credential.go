package apikey

import (
	"cmp"
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
// In Authorization it is "Bearer SECRET" (any case of the scheme, one or more
// spaces) or a bare secret that begins with "sk-", in x-api-key any secret. Spaces
// around a value do not count, as in HTTP. A header without a value names none, and
// the same secret in both headers is one: clients send it so.
//
// No secret at all is [ErrMissing]. Two lines of one header, two different secrets,
// a comma or any byte that is not part of a token (RFC 6750, b64token), and more
// than [MaxCredential] bytes are [ErrMalformed].
func ParseCredential(authorization, xAPIKey []string) (string, error) {
	bearer, err := only(authorization, bearerValue)
	if err != nil {
		return "", err
	}
	key, err := only(xAPIKey, trim)
	switch {
	case err != nil:
		return "", err
	case bearer == "" && key == "":
		return "", ErrMissing
	case bearer != "" && key != "" && bearer != key:
		return "", ErrMalformed
	}
	return cmp.Or(bearer, key), nil
}

// bearerValue returns the part of a value of Authorization that holds the secret. For
// another scheme it returns a space, which no secret contains.
func bearerValue(value string) string {
	value = trim(value)
	scheme, rest, _ := strings.Cut(value, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return trim(rest)
	case strings.HasPrefix(value, "sk-"), value == "":
		return value
	}
	return " " // another scheme
}

// trim removes what HTTP allows around a field value.
func trim(s string) string { return strings.Trim(s, " \t") }

// only reads the one line of a header; "" where there is none, or no value.
func only(lines []string, value func(string) string) (string, error) {
	if len(lines) > 1 {
		return "", ErrMalformed
	}
	if len(lines) == 0 {
		return "", nil
	}
	s, err := secret(value(lines[0]))
	if errors.Is(err, ErrMissing) {
		return "", nil
	}
	return s, err
}

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

// Digest is stored and compared in place of a secret.
func Digest(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }
