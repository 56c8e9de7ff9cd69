package lane

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Machine says where and with what was measured.
type Machine struct {
	Date     string `json:"date"`
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Envoy    string `json:"envoy"`
	Revision string `json:"revision"`
	Load     string `json:"load"` // averages at start and end: other work on the machine
}

// Void lists what makes figures void; empty when none are.
func (b *Bench) Void() []string {
	var out []string
	for _, l := range lanes {
		figures := b.Figures(l.Name)
		if len(figures) == 0 {
			continue
		}
		for _, f := range figures {
			if f.Rounds == 0 {
				out = append(out, fmt.Sprintf("%s: %s has no valid round", l.Name, f.Target))
			}
		}
		if c := b.Control(l.Name); void(c.CPU) {
			out = append(out, fmt.Sprintf("%s: plain Envoy measured twice differs by %.0f %% in CPU in a typical round", l.Name, 100*c.CPU))
		}
	}
	for _, s := range b.Soaks {
		if s.Void != "" {
			out = append(out, "soak: "+s.Void)
		}
	}
	for _, r := range b.Runs {
		if r.Void != "" {
			out = append(out, fmt.Sprintf("%s: round %d of %s: %s", r.Lane, r.Round+1, r.Target, r.Void))
		}
	}
	return out
}

// document is a whole measurement as JSON.
type document struct {
	Machine    Machine    `json:"machine"`
	Figures    []Figure   `json:"figures"`
	Controls   []Control  `json:"controls"`
	Splits     []Split    `json:"splits,omitempty"`
	Idles      []Idle     `json:"idle,omitempty"`
	Capacities []Capacity `json:"capacity,omitempty"`
	Startups   []Started  `json:"start,omitempty"`
	Soaks      []Soaked   `json:"soak,omitempty"`
	Goals      []Goal     `json:"goals"`
	Void       []string   `json:"void,omitempty"`
	Runs       []Run      `json:"runs"`
}

// Read reads what JSON wrote, to be judged and printed again. Only what was
// measured counts; figures and judgements are made anew.
func Read(r io.Reader) (*Bench, Machine, error) {
	var doc document
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		return nil, Machine{}, fmt.Errorf("read JSON: %w", err)
	}
	b := &Bench{Runs: doc.Runs, Idles: doc.Idles, Capacities: doc.Capacities, Startups: doc.Startups, Soaks: doc.Soaks}
	for _, run := range doc.Runs { // the first round is in the order of the targets
		if !slices.ContainsFunc(b.Targets, func(t Target) bool { return t.Name == run.Target }) {
			b.Targets = append(b.Targets, Target{Name: run.Target})
		}
	}
	return b, doc.Machine, nil
}

// JSON writes everything, single runs included.
func (b *Bench) JSON(w io.Writer, m Machine) error {
	doc := document{
		Machine: m, Splits: b.Splits(), Idles: b.Idles, Capacities: b.Capacities, Startups: b.Startups,
		Soaks: b.Soaks, Goals: b.Goals(), Void: b.Void(), Runs: b.Runs,
	}
	for _, l := range lanes {
		if f := b.Figures(l.Name); len(f) > 0 {
			doc.Figures, doc.Controls = append(doc.Figures, f...), append(doc.Controls, b.Control(l.Name))
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// Table writes the figures as Markdown that can be read as it is.
func (b *Bench) Table(w io.Writer, m Machine) {
	fmt.Fprintf(w, "%s, %d cores of %s, Linux %s, %s, Envoy %s, revision %s, load average %s.\n\n",
		m.Date, m.Cores, m.CPU, m.Kernel, m.Go, m.Envoy, m.Revision, m.Load)
	b.figureTable(w)
	b.splitTable(w)
	b.otherTables(w)
	if goals := b.Goals(); len(goals) > 0 {
		t := table{head: []string{"goal", "at most", "got", ""}}
		for _, g := range goals {
			t.add(g.Name, fmt.Sprintf("%.2f", g.Most), fmt.Sprintf("%.2f", g.Got), g.verdict())
		}
		t.write(w)
	}
	for _, v := range b.Void() {
		fmt.Fprintf(w, "Void: %s.\n", v)
	}
}

func (g Goal) verdict() string {
	switch {
	case g.Void:
		return "void"
	case g.Missed:
		return "missed"
	}
	return "met"
}

func (b *Bench) figureTable(w io.Writer) {
	t := table{head: []string{"lane", "target", "Envoy", "server", "sum", "× plain", "× bare", "server × bare's", "added TTFT p50 / p99", "added delay p50 / p99", "rounds"}}
	var notes strings.Builder
	for _, l := range lanes {
		figures := b.Figures(l.Name)
		if len(figures) == 0 {
			continue
		}
		c := b.Control(l.Name)
		unit := "ms per request"
		if l.Chunk {
			unit = "µs per chunk"
		}
		fmt.Fprintf(&notes, "- %s: %s; CPU in %s. Plain Envoy against itself, in a typical round: CPU %.1f %%, TTFT p50 %.1f %% and p99 %.0f %%, delay p50 %.1f %% and p99 %.0f %%.\n",
			l.Name, l.Title, unit, 100*c.CPU, 100*c.TTFT50, 100*c.TTFT99, 100*c.Lag50, 100*c.Lag99)
		for _, f := range figures {
			t.add(l.row(f, c)...)
		}
	}
	if len(t.rows) == 0 {
		return
	}
	t.write(w)
	fmt.Fprintf(w, "%s\n`≈`: the difference is not larger than that of plain Envoy to itself. `void`: plain Envoy differs from itself by more than 10 %%. Times in ms.\n\n", notes.String())
}

// row is one line of the table.
func (l Lane) row(f Figure, c Control) []string {
	if f.Rounds == 0 {
		return []string{l.Name, f.Target, "void", "", "", "", "", "", "", "", fmt.Sprintf("0 of %d", f.Voided)}
	}
	envoy, server, sum := f.EnvoyReq, f.ServerReq, f.SumReq
	if l.Chunk {
		envoy, server, sum = f.EnvoyChunk, f.ServerChunk, f.SumChunk
	}
	number := func(v float64) string {
		if v == 0 {
			return ""
		}
		if l.Chunk {
			return fmt.Sprintf("%.1f", v)
		}
		return fmt.Sprintf("%.2f", v)
	}
	times := func(v float64) string {
		switch {
		case v == 0:
			return ""
		case void(c.CPU):
			return "void"
		case math.Abs(v-1) < c.CPU && f.Target != NamePlain && f.Target != NameBare:
			return fmt.Sprintf("%.2f ≈", v)
		}
		return fmt.Sprintf("%.2f", v)
	}
	ttft := pair(f.AddedTTFT50, void(c.TTFT50)) + " / " + pair(f.AddedTTFT99, void(c.TTFT99))
	lag := pair(f.AddedLag50, void(c.Lag50)) + " / " + pair(f.AddedLag99, void(c.Lag99))
	if f.Target == NameDirect {
		ttft = fmt.Sprintf("(is %.2f / %.2f)", f.TTFT50, f.TTFT99)
		lag = fmt.Sprintf("(is %.2f / %.2f)", f.Lag50, f.Lag99)
	}
	if f.Lag50 == 0 {
		lag = ""
	}
	return []string{
		l.Name, f.Target, number(envoy), number(server), number(sum), times(f.OverPlain), times(f.OverBare), times(f.ServerToBare),
		ttft, lag, fmt.Sprintf("%d of %d", f.Rounds, f.Rounds+f.Voided),
	}
}

func pair(ms float64, isVoid bool) string {
	if isVoid {
		return "void"
	}
	return fmt.Sprintf("%.2f", ms)
}

func (b *Bench) splitTable(w io.Writer) {
	splits := b.Splits()
	if len(splits) == 0 {
		return
	}
	near, far, _ := b.splitBy()
	t := table{head: []string{"CPU of, by " + near.Name + " and " + far.Name, "Envoy s / 1,000 requests", "server", "× plain", "Envoy s / million chunks", "server", "× plain"}}
	f := func(v float64) string { return fmt.Sprintf("%.2f", v) }
	for _, s := range splits {
		t.add(s.Target, f(s.EnvoyPerK), f(s.ServerPerK), f(s.RequestOverSame), f(s.EnvoyPerM), f(s.ServerPerM), f(s.ChunkOverSame))
	}
	t.write(w)
}

func (b *Bench) otherTables(w io.Writer) {
	t := table{head: []string{"idle streams", "clients", "target", "Envoy kB each", "server kB each", "above plain"}}
	for _, i := range b.Idles {
		t.add(fmt.Sprint(i.Streams), i.Protocol(), i.Target, fmt.Sprintf("%.1f", i.Envoy), fmt.Sprintf("%.1f", i.Server), fmt.Sprintf("%.1f %s", i.Above, i.Void))
	}
	t.write(w)
	t = table{head: []string{"capacity", "carried chunks/s", "not carried", "why"}}
	for _, c := range b.Capacities {
		t.add(c.Target, fmt.Sprint(c.Carried), fmt.Sprint(c.Failed), c.Why)
	}
	t.write(w)
	t = table{head: []string{"start", "cold ms", "warm ms"}}
	for _, s := range b.Startups {
		t.add(s.Target, fmt.Sprintf("%.0f", s.Cold), fmt.Sprintf("%.0f", s.Warm))
	}
	t.write(w)
	for _, s := range b.Soaks {
		fmt.Fprintf(w, "Soak of %v: %d streams at a time, %d pauses of %v, %d requests, %d chunks, %d cut; tollgate %.1f MB → %.1f MB (%+.1f MB per hour), Envoy %.1f MB → %.1f MB (%+.1f MB per hour); leases at the end %d; %d ledger rows %s.\n\n",
			s.Duration.Round(time.Second), s.Streams, s.Pauses, soakPause, s.Requests, s.Chunks, s.Cuts, s.ServerStart, s.ServerEnd, s.ServerSlope,
			s.EnvoyStart, s.EnvoyEnd, s.EnvoySlope, s.Leases, s.Rows, orEqual(s.Void))
	}
}

func orEqual(void string) string {
	if void == "" {
		return "equal to the truth"
	}
	return "NOT equal to the truth: " + void
}

// table is Markdown with padded cells.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	width := make([]int, len(t.head))
	for _, r := range append([][]string{t.head}, t.rows...) {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	line := func(cells []string) {
		var b strings.Builder
		for i, c := range cells {
			b.WriteString("| " + c + strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+1))
		}
		fmt.Fprintln(w, b.String()+"|")
	}
	line(t.head)
	rule := make([]string, len(width))
	for i, n := range width {
		rule[i] = strings.Repeat("-", n)
	}
	line(rule)
	for _, r := range t.rows {
		line(r)
	}
	fmt.Fprintln(w)
}
