package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/limit"
)

// statusCmd shows the gateway on one screen.
type statusCmd struct {
	outputFlag
}

// Help is what --help says beside the flags.
func (*statusCmd) Help() string {
	return `Exit status 0 while requests can be answered, 1 when they cannot.`
}

// childRow is one process of a launcher.
type childRow struct {
	Host     string    `json:"host"`
	Name     string    `json:"name"`
	State    string    `json:"state"`
	PID      int       `json:"pid"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
}

// statusView is what the command shows.
type statusView struct {
	Health    string      `json:"health"`
	Running   int         `json:"running_requests"`
	Engines   []engineRow `json:"engines"`
	Processes []childRow  `json:"processes"`
}

// Run asks for all of it.
func (c *statusCmd) Run(env *Env) error {
	view, err := c.look(env)
	if err != nil {
		return err
	}
	err = showOne(env, c.Output, view, func(io.Writer) error { return view.print(env) })
	if err == nil && view.Health == "unavailable" {
		err = errors.New("no request can be answered now")
	}
	return err
}

func (c *statusCmd) look(env *Env) (view statusView, err error) {
	var health struct {
		Status string
	}
	// A gateway that can answer nothing says so with a 503, which is an answer here.
	if err := ask(env, http.MethodGet, "/health", nil, &health); err != nil {
		var said *answerError
		if !errors.As(err, &said) || said.status != http.StatusServiceUnavailable {
			return view, err
		}
		health.Status = "unavailable"
	}
	var requests struct{ Requests []requestRow }
	var engines struct{ Engines []engineRow }
	var hosts struct {
		Hosts []struct {
			Host     string
			OK       bool
			Children []childRow
		}
	}
	for path, to := range map[string]any{"/admin/requests": &requests, "/admin/engines": &engines, "/admin/children": &hosts} {
		if err := ask(env, http.MethodGet, path, nil, to); err != nil {
			return view, err
		}
	}
	view = statusView{Health: health.Status, Running: len(requests.Requests), Engines: engines.Engines, Processes: []childRow{}}
	for _, h := range hosts.Hosts {
		for _, child := range h.Children {
			child.Host = h.Host
			view.Processes = append(view.Processes, child)
		}
	}
	return view, nil
}

func (v statusView) print(env *Env) error {
	fmt.Fprintf(env.Stdout, "health            %s\nrunning requests  %d\n\n", v.Health, v.Running)
	if err := show(env, "table", v.Engines,
		column[engineRow]{name: "engine", cell: func(e engineRow) string { return e.Address }},
		column[engineRow]{name: "state", cell: func(e engineRow) string { return e.State }},
		column[engineRow]{name: "models", cell: func(e engineRow) string { return dash(few(e.Models)) }},
		column[engineRow]{name: "error", cell: func(e engineRow) string { return dash(e.Error) }},
	); err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout)
	return show(env, "table", v.Processes,
		column[childRow]{name: "host", cell: func(c childRow) string { return c.Host }},
		column[childRow]{name: "process", cell: func(c childRow) string { return c.Name }},
		column[childRow]{name: "state", cell: func(c childRow) string { return c.State }},
		column[childRow]{name: "pid", right: true, cell: func(c childRow) string { return strconv.Itoa(c.PID) }},
		column[childRow]{name: "restarts", right: true, cell: func(c childRow) string { return strconv.Itoa(c.Restarts) }},
		column[childRow]{name: "since", cell: func(c childRow) string { return c.Since.Local().Format(time.DateTime) }},
	)
}

// limitsCmd shows limits.
type limitsCmd struct {
	outputFlag
	ID string `arg:"" optional:"" help:"Id of one key; default is all."`
}

// limitsRow is a key's limits and what is used of them, as the admin API has it.
type limitsRow struct {
	KeyID  string            `json:"key_id"`
	User   string            `json:"user"`
	Now    limit.View        `json:"now"`
	Limits map[string]*int64 `json:"limits"`
}

// Run prints them.
func (c *limitsCmd) Run(env *Env) error {
	var rows []limitsRow
	if c.ID != "" {
		rows = make([]limitsRow, 1)
		if err := ask(env, http.MethodGet, "/admin/limits/"+url.PathEscape(c.ID), nil, &rows[0]); err != nil {
			return err
		}
	} else {
		var answer struct{ Limits []limitsRow }
		if err := ask(env, http.MethodGet, "/admin/limits", nil, &answer); err != nil {
			return err
		}
		rows = answer.Limits
	}
	full := func(name, used string, n func(limit.View) int64) column[limitsRow] {
		return column[limitsRow]{name: name, right: true, cell: func(r limitsRow) string {
			text, most := strconv.FormatInt(max(0, n(r.Now)), 10), r.Limits[used]
			if most == nil {
				return text + "/-" // used, of no limit
			}
			return text + "/" + strconv.FormatInt(*most, 10)
		}}
	}
	return show(env, c.Output, rows,
		column[limitsRow]{name: "key", cell: func(r limitsRow) string { return r.KeyID }},
		column[limitsRow]{name: "user", cell: func(r limitsRow) string { return dash(r.User) }},
		full("slots", "concurrent", func(v limit.View) int64 { return v.Slots }),
		full("requests/min", "requests_per_minute", func(v limit.View) int64 { return v.RequestsWindow }),
		full("tokens/min", "tokens_per_minute", func(v limit.View) int64 { return v.TokensWindow }),
		full("quota", "quota", func(v limit.View) int64 { return v.QuotaUsed }),
		column[limitsRow]{name: "period", cell: func(r limitsRow) string { return dash(r.Now.QuotaPeriod) }},
	)
}

// logsCmd shows a log.
type logsCmd struct {
	Name string `arg:"" optional:"" default:"gateway" help:"Which log: gateway, envoy, vllm or launcher."`
	N    int    `short:"n" default:"50" placeholder:"N" help:"How many lines, at most 2000."`
	Host string `placeholder:"NAME" help:"The launcher whose log it is, as \"tollgate status\" names its host; default is this host."`
}

// Run prints the last lines.
func (c *logsCmd) Run(env *Env) error {
	name := c.Name
	if !strings.HasSuffix(name, ".log") {
		name += ".log"
	}
	q := url.Values{"lines": {strconv.Itoa(c.N)}}
	if c.Host != "" {
		q.Set("host", c.Host)
	}
	var answer struct{ Lines []string }
	if err := ask(env, http.MethodGet, "/admin/logs/"+url.PathEscape(name)+"?"+q.Encode(), nil, &answer); err != nil {
		return err
	}
	for _, line := range answer.Lines {
		if _, err := fmt.Fprintln(env.Stdout, printable(line)); err != nil {
			return err
		}
	}
	return nil
}
