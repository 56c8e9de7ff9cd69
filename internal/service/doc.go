// Package service is the door for Envoys on other hosts: one TCP port with mutual TLS,
// behind which are gRPC and the HTTP API, and the certificates of that port, which may
// change while it is open.
package service
