// Package vllm holds the tests on a real vLLM: through the launcher, Envoy and
// tollgate. They are behind the build tag vllm, because they need an engine that
// takes minutes to install and half a minute to start: `make e2e-vllm` installs
// it and runs them. What can be seen on a fake engine is in the folder crash.
package vllm
