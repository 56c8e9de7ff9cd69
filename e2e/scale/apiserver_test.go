//go:build scale

package scale_test

import (
	"strings"
	"testing"

	"tollgate/e2e/kube"
)

// A real API server keeps what is right and refuses a name that it does not know.
func TestTheAPIServerIsStrict(t *testing.T) {
	c := kube.Start(t)
	const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: a, image: a}]}
`
	c.Apply(deployment)
	if got := c.Kubectl("", "get", "deployments", "-o", "name"); strings.TrimSpace(got) != "deployment.apps/a" {
		t.Errorf("got %q", got)
	}
	if said := c.Refuses(strings.Replace(deployment, "image: a", "imagee: a", 1)); !strings.Contains(said, "imagee") {
		t.Errorf("the refusal does not name the typo: %s", said)
	}
}
