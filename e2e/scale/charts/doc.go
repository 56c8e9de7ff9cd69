// Package charts installs the Helm chart and applies the kustomize bases of deploy/ on a
// real API server of Kubernetes, which has no node: what is wrong in a manifest is
// refused there, and no pod runs. Its tests have the build tag scale.
package charts
