// Package manpage writes the manual page of a program from its command line, so that
// the two cannot differ.
package manpage

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Page is what a manual page says beside the command line.
type Page struct {
	Version string // "v1.2.3"
	About   string // one line for the section NAME
	// Sections follow the commands: their names, and text as [kong.HelpProvider] gives
	// it, whose indented lines are examples.
	Sections [][2]string
}

// Write writes the page of app, in roff for section 1.
func Write(w io.Writer, app *kong.Application, p Page) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"%s\" \"Tollgate\"\n", strings.ToUpper(app.Name), text(p.Version))
	section(&b, "NAME")
	fmt.Fprintf(&b, "%s \\- %s\n", text(app.Name), text(p.About))
	section(&b, "SYNOPSIS")
	fmt.Fprintf(&b, ".B %s\n[\\fIoptions\\fR] \\fIcommand\\fR\n", text(app.Name))
	section(&b, "DESCRIPTION")
	paragraphs(&b, app.Help)
	section(&b, "OPTIONS")
	flags(&b, app.Node)
	section(&b, "COMMANDS")
	for _, leaf := range app.Leaves(true) {
		command(&b, leaf)
	}
	for _, s := range p.Sections {
		section(&b, s[0])
		paragraphs(&b, s[1])
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write manual page: %w", err)
	}
	return nil
}

func section(b *strings.Builder, name string) { fmt.Fprintf(b, ".SH %s\n", name) }

// command writes a command that can be run, with its flags.
func command(b *strings.Builder, n *kong.Node) {
	fmt.Fprintf(b, ".SS \"%s\"\n", text(n.Summary()))
	paragraphs(b, n.Help)
	for _, arg := range n.Positional {
		fmt.Fprintf(b, ".TP\n\\fI%s\\fR\n", text(arg.Name))
		paragraphs(b, arg.Help)
	}
	flags(b, n)
	if n.Detail != "" {
		b.WriteString(".PP\n")
		paragraphs(b, n.Detail)
	}
}

func flags(b *strings.Builder, n *kong.Node) {
	for _, f := range n.Flags {
		if f.Hidden {
			continue
		}
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR\n", text(f.String()))
		paragraphs(b, f.Help)
		if len(f.Envs) > 0 {
			fmt.Fprintf(b, "Environment: %s.\n", text(strings.Join(f.Envs, ", ")))
		}
	}
}

// paragraphs writes text: blank lines part paragraphs, and indented lines stay as they
// are.
func paragraphs(b *strings.Builder, s string) {
	verbatim := false
	for line := range strings.Lines(strings.TrimRight(s, "\n") + "\n") {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
		if indented != verbatim && line != "" {
			b.WriteString(map[bool]string{true: ".RS 2\n.nf\n", false: ".fi\n.RE\n"}[indented])
			verbatim = indented
		}
		switch {
		case line == "" && !verbatim:
			b.WriteString(".PP\n")
		case line == "":
			b.WriteString("\n")
		default:
			b.WriteString(text(strings.TrimPrefix(line, "  ")) + "\n")
		}
	}
	if verbatim {
		b.WriteString(".fi\n.RE\n")
	}
}

// text is text without meaning to roff.
func text(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
