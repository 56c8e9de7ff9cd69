package config

import (
	"bytes"
	"errors"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"tollgate/internal/strictfile"
)

// MaxSize is the longest file that is read, in bytes.
const MaxSize = 1 << 20

// maxDepth bounds the nesting of flow collections, and maxNested the entries
// that begin on one line: the YAML parser recurses, and a stack that overflows
// cannot be recovered. The deepest key of a real file lies at depth 4.
const (
	maxDepth  = 32
	maxNested = 64
	// maxTokens bounds the parser's time, which grows with the square of the
	// keys of one mapping. A full file has about 600.
	maxTokens = 20000
)

// Parse reads a configuration. The name is what problems are reported under,
// usually the path. Data may begin with a UTF-8 byte order mark and have any
// line ends; an empty file and one of comments only are [Default]. All mistakes
// are reported at once: a non-nil error is an [*Error].
//
// Files that the configuration names (certificates, tokens) must be readable,
// so Parse looks at the file system.
func Parse(name string, data []byte) (*Config, error) {
	d := &decoder{name: name, positions: map[string]position{}}
	cfg := Default()
	text, ok := d.text(data)
	if !ok {
		return nil, d.err()
	}
	root, ok := d.parse(text)
	if !ok {
		return nil, d.err()
	}
	if root != nil {
		d.root(root, cfg)
	}
	d.validate(cfg)
	cfg.Written = d.written()
	if len(d.problems) > 0 {
		return nil, d.err()
	}
	return cfg, nil
}

// err is every problem found so far.
func (d *decoder) err() error { return strictfile.NewError(d.problems) }

// text checks that the data is text before the parser reads it.
func (d *decoder) text(data []byte) (string, bool) {
	text, problem := strictfile.Text(data, MaxSize)
	if problem != nil {
		d.add(problem.Position, "", problem.Message, problem.Suggestion)
		return "", false
	}
	return string(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))), true
}

// parse makes the tree of the only document; nil for an empty one.
func (d *decoder) parse(text string) (root ast.Node, ok bool) {
	defer func() {
		// A panic of the parser on odd input must not end the process.
		if recover() != nil {
			d.add(position{Line: 1, Column: 1}, "", "cannot be parsed as YAML", "look for an unclosed bracket or quote")
			root, ok = nil, false
		}
	}()
	tokens := lexer.Tokenize(text)
	if !d.tokens(tokens) {
		return nil, false
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.syntax(err)
		return nil, false
	}
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if root != nil {
			d.add(at(doc.Body), "", "a second document begins here", "keep one document; remove the line ---")
			return nil, false
		}
		root = doc.Body
	}
	return root, true
}

// tokens refuses the parts of YAML that a configuration does not need and that can be
// used to attack a parser: anchors, aliases, tags, merges, deep nesting.
func (d *decoder) tokens(tokens token.Tokens) bool {
	if len(tokens) > maxTokens {
		tk := tokens[maxTokens]
		d.add(position{Line: tk.Position.Line, Column: tk.Position.Column}, "", "is too long for a configuration", "keep what differs from the defaults")
		return false
	}
	depth, line, nested := 0, 0, 0
	for _, tk := range tokens {
		if tk.Position.Line != line {
			line, nested = tk.Position.Line, 0
		}
		what := ""
		switch tk.Type { //nolint:exhaustive // only what is refused or counted
		case token.AnchorType, token.AliasType:
			what = "anchors and aliases (& and *)"
		case token.MergeKeyType:
			what = "merge keys (<<)"
		case token.TagType:
			what = "tags (!)"
		case token.DirectiveType:
			what = "directives (%)"
		case token.MappingKeyType:
			what = "complex keys (?)"
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			nested++
		}
		p := position{Line: tk.Position.Line, Column: tk.Position.Column}
		if what != "" {
			d.add(p, "", what+" are not supported", "write the value out; text that begins with such a character needs quotes")
			return false
		}
		if depth > maxDepth || nested > maxNested {
			d.add(p, "", "is nested too deeply", "no value lies deeper than four levels")
			return false
		}
	}
	return true
}

// syntax reports the parser's error without its excerpt of the source, which may
// contain a secret.
func (d *decoder) syntax(err error) {
	p, message := position{Line: 1, Column: 1}, "cannot be parsed as YAML"
	var ye yaml.Error
	if errors.As(err, &ye) {
		message = ye.GetMessage()
		if tk := ye.GetToken(); tk != nil && tk.Position != nil {
			p = position{Line: max(tk.Position.Line, 1), Column: max(tk.Position.Column, 1)}
		}
	}
	if strings.Contains(message, "non-map value") || strings.Contains(message, "value is not allowed in this context") {
		d.add(p, "", "is not valid YAML: "+message, "write KEY: VALUE, sections indented by two spaces; text with \": \" needs quotes")
		return
	}
	d.add(p, "", "is not valid YAML: "+message, "")
}
