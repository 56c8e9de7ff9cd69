package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// enginesCmd asks the running service about its engines, and changes them.
type enginesCmd struct {
	List   enginesListCmd   `cmd:"" default:"withargs" help:"Show the engines, what they serve, and how they are."`
	Add    enginesAddCmd    `cmd:"" help:"Send requests to one more engine, from now on and after restarts."`
	Remove enginesRemoveCmd `cmd:"" help:"Send no more requests to an engine; those that run finish."`
}

// engineRow is one engine as the service tells it.
type engineRow struct {
	Address  string   `json:"address"`
	Endpoint string   `json:"endpoint"`
	Weight   int      `json:"weight"`
	Origin   string   `json:"origin"`
	By       string   `json:"by,omitempty"`
	Since    string   `json:"since,omitempty"`
	Line     int      `json:"line,omitempty"`
	State    string   `json:"state"`
	Error    string   `json:"error,omitempty"`
	Models   []string `json:"models"`
	Waiting  int64    `json:"waiting"`
	Running  int64    `json:"running"`
}

type enginesListCmd struct{ outputFlag }

// Help is what --help says beside the flags.
func (*enginesListCmd) Help() string {
	return `An engine comes from the configuration file, from "tollgate engines add" or
/admin/engines, or from the launcher of its host. What it serves is asked of it.

  tollgate engines
  tollgate engines list --output json | jq -r '.[] | select(.state != "ready") | .address'`
}

// Run lists the engines, and says on stderr what is probably not meant.
func (c *enginesListCmd) Run(env *Env) error {
	var answer struct {
		Engines  []engineRow
		Lost     []string
		Warnings []string
	}
	if err := ask(env, http.MethodGet, "/admin/engines", nil, &answer); err != nil {
		return err
	}
	for _, w := range answer.Warnings {
		fmt.Fprintf(env.Stderr, "warning: %s\n", w)
	}
	for _, name := range answer.Lost {
		fmt.Fprintf(env.Stderr, "warning: no engine can serve %s now\n", name)
	}
	return show(env, c.Output, answer.Engines,
		column[engineRow]{name: "address", cell: func(e engineRow) string { return e.Address }},
		column[engineRow]{name: "state", cell: func(e engineRow) string { return e.State }},
		column[engineRow]{name: "weight", right: true, cell: func(e engineRow) string { return strconv.Itoa(e.Weight) }},
		column[engineRow]{name: "running", right: true, cell: func(e engineRow) string { return strconv.FormatInt(e.Running, 10) }},
		column[engineRow]{name: "waiting", right: true, cell: func(e engineRow) string { return strconv.FormatInt(e.Waiting, 10) }},
		column[engineRow]{name: "from", cell: from},
		column[engineRow]{name: "models", cell: func(e engineRow) string { return dash(few(e.Models)) }},
		column[engineRow]{name: "error", cell: func(e engineRow) string { return dash(e.Error) }},
	)
}

// from says where an engine was named.
func from(e engineRow) string {
	switch {
	case e.Line > 0:
		return "line " + strconv.Itoa(e.Line)
	case e.By != "":
		return e.Origin + " " + e.By
	}
	return e.Origin
}

// few names the first of many models.
func few(models []string) string {
	const shown = 3
	if len(models) <= shown {
		return strings.Join(models, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(models[:shown], ", "), len(models)-shown)
}

type enginesAddCmd struct {
	Address string `arg:"" placeholder:"HOST:PORT" help:"Where the engine listens."`
	Weight  int    `default:"1" placeholder:"N" help:"Its share of the load, relative to the other engines; 1 to 1000."`
}

// Run adds an engine.
func (c *enginesAddCmd) Run(env *Env) error {
	err := ask(env, http.MethodPost, "/admin/engines", map[string]any{"address": c.Address, "weight": c.Weight}, nil)
	if err == nil {
		fmt.Fprintf(env.Stdout, "added %s; tollgate engines list shows when it is ready\n", c.Address)
	}
	return err
}

type enginesRemoveCmd struct {
	Address string `arg:"" placeholder:"HOST:PORT" help:"Where the engine listens."`
}

// Run takes an engine out.
func (c *enginesRemoveCmd) Run(env *Env) error {
	err := ask(env, http.MethodDelete, "/admin/engines/"+url.PathEscape(c.Address), nil, nil)
	if err == nil {
		fmt.Fprintf(env.Stdout, "%s gets no more requests, and is gone when those that run have finished\n", c.Address)
	}
	return err
}
