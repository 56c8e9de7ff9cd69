package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"tollgate/internal/mtls"
)

// reason is why a connection was closed before it came to anybody.
type reason string

const (
	noCertificate reason = "no_certificate"
	unknownCA     reason = "unknown_ca"
	expired       reason = "expired"
	wrongName     reason = "name"
	badCert       reason = "certificate" // for another use, or broken
	badHandshake  reason = "handshake"   // no TLS, an old version
	left          reason = "left"        // the client went away itself
	slow          reason = "slow"
	crowded       reason = "crowded" // the oldest of too many that have shown nothing yet
)

var reasons = []reason{noCertificate, unknownCA, expired, wrongName, badCert, badHandshake, left, slow, crowded}

// reasonOf names the error of a handshake.
func reasonOf(err error) reason {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.Is(err, mtls.ErrName):
		return wrongName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return expired
	case errors.As(err, &authority):
		return unknownCA
	case errors.As(err, &verify):
		return badCert
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return slow
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return left
	case strings.Contains(err.Error(), "didn't provide a certificate"): // crypto/tls has no value for it
		return noCertificate
	}
	return badHandshake
}

// sayEvery bounds the lines about strangers: one for each reason in this time.
const sayEvery = 10 * time.Second

// refusals counts connections that were closed, and says so now and then.
type refusals struct {
	mu   sync.Mutex
	said map[reason]time.Time
}

// due reports whether a line about this reason may be written now.
func (r *refusals) due(why reason, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.said[why]; ok && now.Sub(last) < sayEvery {
		return false
	}
	if r.said == nil {
		r.said = map[reason]time.Time{}
	}
	r.said[why] = now
	return true
}
