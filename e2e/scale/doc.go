// Package scale proves the manifests of deploy/ on the control planes that they are
// written for: a real API server of Kubernetes, Envoy Gateway, istiod, an endpoint picker
// and Prometheus, with a real Envoy that they configure. `make scale` runs it, in a
// network namespace of its own, from which nothing can be fetched; the build tag scale
// keeps it out of `make test`.
package scale
