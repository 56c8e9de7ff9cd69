package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// requestsCmd shows requests and cancels one.
type requestsCmd struct {
	List   requestsListCmd   `cmd:"" default:"withargs" help:"Show the requests that run, or with --ended the last ones."`
	Cancel requestsCancelCmd `cmd:"" help:"Cut a running request; what it used stays charged."`
}

// requestRow is a request in the names of the admin API and the ledger.
type requestRow struct {
	LeaseID          string     `json:"lease_id"`
	RequestID        string     `json:"request_id"`
	KeyID            string     `json:"key_id"`
	User             string     `json:"user"`
	Model            string     `json:"model"`
	Endpoint         string     `json:"endpoint"`
	StartedAt        time.Time  `json:"started_at"`
	EndedAt          *time.Time `json:"ended_at"`
	EndReason        *string    `json:"end_reason"`
	Quality          *string    `json:"quality"`
	Status           int        `json:"status,omitempty"`
	PromptTokens     *int64     `json:"prompt_tokens"`
	CompletionTokens *int64     `json:"completion_tokens"`
	whole            json.RawMessage
}

// UnmarshalJSON keeps the whole of it for those who ask for JSON.
func (r *requestRow) UnmarshalJSON(raw []byte) error {
	type fields requestRow
	r.whole = slices.Clone(raw)
	return json.Unmarshal(raw, (*fields)(r))
}

// MarshalJSON gives what the service said.
func (r requestRow) MarshalJSON() ([]byte, error) {
	if r.whole != nil {
		return r.whole, nil
	}
	type fields requestRow
	return json.Marshal(fields(r))
}

type requestsListCmd struct {
	outputFlag
	Ended bool   `help:"Show the ledger's last requests, newest first, instead of those that run."`
	Limit int    `short:"n" default:"50" placeholder:"N" help:"With --ended: how many, at most 1000."`
	Of    string `placeholder:"KEY" help:"Only requests of the key with this id."`
	End   string `placeholder:"REASON" help:"With --ended: only those that ended so, as client_abort."`
	ID    string `name:"id" placeholder:"ID" help:"With --ended: the request with this x-request-id."`
	Since string `placeholder:"TIME" help:"With --ended: only those that started at or after TIME: 24h, 7d, 2026-11-01 or RFC 3339."`
}

// Help is what --help says beside the flags.
func (*requestsListCmd) Help() string {
	return `  tollgate requests
  tollgate requests list --ended --end client_abort --since 24h
  tollgate requests list --ended --id 460d7bba-fb58-41a5-8ff7-37f05da24e0a --output json
  tollgate requests cancel 460d7bba-fb58-41a5-8ff7-37f05da24e0a`
}

// Run prints them.
func (c *requestsListCmd) Run(env *Env) error {
	var answer struct {
		Requests []requestRow `json:"requests"`
	}
	path := "/admin/requests"
	if c.Ended || c.ID != "" || c.End != "" || c.Since != "" {
		q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
		for name, value := range map[string]string{"key": c.Of, "end_reason": c.End, "request_id": c.ID, "since": c.Since} {
			if value != "" {
				q.Set(name, value)
			}
		}
		path = "/admin/ledger?" + q.Encode()
	}
	if err := ask(env, http.MethodGet, path, nil, &answer); err != nil {
		return err
	}
	rows := answer.Requests[:0]
	for _, r := range answer.Requests {
		if c.Of == "" || r.KeyID == c.Of {
			rows = append(rows, r)
		}
	}
	return showRequests(env, c.Output, rows)
}

func showRequests(env *Env, output string, rows []requestRow) error {
	now := time.Now()
	return show(env, output, rows,
		column[requestRow]{name: "request id", cell: func(r requestRow) string { return dash(r.RequestID) }},
		column[requestRow]{name: "key", cell: func(r requestRow) string { return r.KeyID }},
		column[requestRow]{name: "user", cell: func(r requestRow) string { return dash(r.User) }},
		column[requestRow]{name: "model", cell: func(r requestRow) string { return dash(r.Model) }},
		column[requestRow]{name: "age", right: true, cell: func(r requestRow) string { return now.Sub(r.StartedAt).Round(time.Second).String() }},
		column[requestRow]{name: "prompt", right: true, cell: func(r requestRow) string { return counted(r.PromptTokens) }},
		column[requestRow]{name: "output", right: true, cell: func(r requestRow) string { return counted(r.CompletionTokens) }},
		column[requestRow]{name: "end", cell: func(r requestRow) string {
			if r.EndReason == nil {
				return "running"
			}
			return *r.EndReason
		}},
	)
}

// counted is a count of tokens; nothing was said where it is null or below zero.
func counted(n *int64) string {
	if n == nil || *n < 0 {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}

type requestsCancelCmd struct {
	ID string `arg:"" help:"The x-request-id of the request."`
}

// Run cuts the request.
func (c *requestsCancelCmd) Run(env *Env) error {
	if err := ask(env, http.MethodDelete, "/admin/requests/"+url.PathEscape(c.ID), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(env.Stderr, "request %s is cut\n", c.ID)
	return nil
}

// topCmd watches what runs.
type topCmd struct {
	Every time.Duration `default:"1s" help:"How often to look."`
	Once  bool          `help:"Look once and end."`
}

// Run prints until it is interrupted.
func (c *topCmd) Run(env *Env) error {
	every := time.NewTicker(max(c.Every, 200*time.Millisecond))
	defer every.Stop()
	for {
		var answer struct {
			Requests []requestRow `json:"requests"`
		}
		if err := ask(env, http.MethodGet, "/admin/requests", nil, &answer); err != nil {
			return err
		}
		if !c.Once && terminalWidth(env.Stdout) > 0 {
			fmt.Fprint(env.Stdout, "\x1b[H\x1b[2J") // the terminal's first line, and nothing below it
		}
		fmt.Fprintf(env.Stdout, "%s  running requests: %d\n\n", time.Now().Format(time.TimeOnly), len(answer.Requests))
		if err := showRequests(env, "table", answer.Requests); err != nil {
			return err
		}
		if c.Once {
			return nil
		}
		select {
		case <-env.Ctx.Done():
			return nil
		case <-every.C:
		}
	}
}
