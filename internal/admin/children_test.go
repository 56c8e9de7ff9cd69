package admin_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tollgate/internal/admin"
)

// launcher is a [admin.Host] that says what it is told to.
type launcher struct {
	name, says string
	err        error
}

func (l *launcher) Name() string { return l.name }

func (l *launcher) Call(_ context.Context, method, path string, _ []byte) (status int, answer []byte, err error) {
	if method+" "+path != "GET /state" {
		return 404, nil, l.err
	}
	return 200, []byte(l.says), l.err
}

func children(crash, asked string) string {
	return `{"children":[{"name":"envoy","state":"ready","restarts":0,"restarts_by":{"crash":` + crash + `,"asked":` + asked + `}}]}`
}

// zeros are the series that stay as they were made.
const zeros = `
child_restarts_total{child="envoy",host="local",reason="hung"} 0
child_restarts_total{child="envoy",host="local",reason="not_ready"} 0
child_restarts_total{child="tollgate",host="local",reason="asked"} 0
child_restarts_total{child="tollgate",host="local",reason="crash"} 0
child_restarts_total{child="tollgate",host="local",reason="hung"} 0
child_restarts_total{child="tollgate",host="local",reason="not_ready"} 0
child_restarts_total{child="vllm",host="10.0.0.2:9466",reason="asked"} 0
child_restarts_total{child="vllm",host="10.0.0.2:9466",reason="crash"} 0
child_restarts_total{child="vllm",host="10.0.0.2:9466",reason="hung"} 0
child_restarts_total{child="vllm",host="10.0.0.2:9466",reason="not_ready"} 0
child_restarts_total{child="vllm",host="local",reason="asked"} 0
child_restarts_total{child="vllm",host="local",reason="crash"} 0
child_restarts_total{child="vllm",host="local",reason="hung"} 0
child_restarts_total{child="vllm",host="local",reason="not_ready"} 0
`

func TestRestartsOfChildrenAreCountedByReason(t *testing.T) {
	local, far := &launcher{name: "local"}, &launcher{name: "10.0.0.2:9466", err: errors.New("no route")}
	c := admin.NewChildren([]admin.Host{local, far}, nil)
	for _, step := range []struct {
		name, says   string
		err          error
		crash, asked string
	}{
		{"fresh", children("0", "0"), nil, "0", "0"},
		{"a crash", children("1", "0"), nil, "1", "0"},
		{"no answer", "", errors.New("gone"), "1", "0"},
		{"another launcher", children("0", "0"), nil, "1", "0"},
		{"its first crash", children("1", "2"), nil, "2", "2"},
		{"nonsense", "<html>", nil, "2", "2"},
	} {
		local.says, local.err = step.says, step.err
		if err := testutil.CollectAndCompare(c, strings.NewReader(`# HELP child_restarts_total Starts after the first of a process that a launcher looks after, by reason.
# TYPE child_restarts_total counter
child_restarts_total{child="envoy",host="local",reason="asked"} `+step.asked+`
child_restarts_total{child="envoy",host="local",reason="crash"} `+step.crash+zeros), "child_restarts_total"); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}

func TestLostLinesAreCountedWhoeverWritesThem(t *testing.T) {
	state := func(envoy, vllm string) string {
		return `{"children":[{"name":"envoy","lost_log_lines":` + envoy + `},{"name":"vllm","lost_log_lines":` + vllm + `},{"name":"tollgate"}]}`
	}
	own := int64(0)
	local := &launcher{name: "local"}
	c := admin.NewChildren([]admin.Host{local}, func() int64 { return own })
	for _, step := range []struct {
		name, says            string
		own                   int64
		envoy, tollgate, vllm string
	}{
		{"nobody answers yet", "", 0, "0", "0", "0"},
		{"none", `{"children":[{"name":"envoy"}]}`, 0, "0", "0", "0"},
		{"the disk is full", state("3", "40"), 7, "3", "7", "40"},
		{"no answer", "", 7, "3", "7", "40"},
		{"another launcher", state("1", "0"), 9, "4", "9", "40"},
	} {
		local.says, own = step.says, step.own
		if err := testutil.CollectAndCompare(c, strings.NewReader(`# HELP log_lines_lost_total Lines of a process's log that could not be written, as on a full disk.
# TYPE log_lines_lost_total counter
log_lines_lost_total{child="envoy",host="local"} `+step.envoy+`
log_lines_lost_total{child="tollgate",host="local"} `+step.tollgate+`
log_lines_lost_total{child="vllm",host="local"} `+step.vllm+`
`), "log_lines_lost_total"); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}
