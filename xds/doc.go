// Package xds tells Envoy its engines while both run: endpoints (EDS) over one
// aggregated stream (ADS) on tollgate's gRPC socket. Everything else of Envoy's
// configuration is in its bootstrap.
//
// testdata/in has lists of engines, testdata/out the assignments that they become.
//
// An Envoy that loses the stream keeps what it has and asks again, several times a
// second. Adding, changing and removing an engine cuts nothing: requests that run at
// an engine that is gone finish there.
package xds
