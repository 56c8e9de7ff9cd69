package config

import (
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// isNull reports null, ~ and nothing at all.
func isNull(n ast.Node) bool {
	if n == nil {
		return true
	}
	_, ok := n.(*ast.NullNode)
	return ok
}

// at is where a node begins. A mapping begins at its first key: its own token is
// the colon.
func at(n ast.Node) position {
	if values := mappings(n); len(values) > 0 && values[0].Key != nil {
		if m, ok := n.(*ast.MappingNode); !ok || !m.IsFlowStyle {
			n = values[0].Key
		}
	}
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return position{Line: 1, Column: 1}
	}
	p := n.GetToken().Position
	return position{Line: max(p.Line, 1), Column: max(p.Column, 1)}
}

// mappings are the entries of a mapping; nil when the node is none.
func mappings(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		if n.Values == nil {
			return []*ast.MappingValueNode{}
		}
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

// glued returns the text of an entry "a:b" without a space after its colon. YAML takes
// it for text, but the parser takes it for a mapping where it stands in a list inside
// braces.
func glued(n ast.Node) (string, bool) {
	values := mappings(n)
	if len(values) != 1 || values[0].Start == nil || values[0].Value == nil || values[0].Value.GetToken() == nil {
		return "", false
	}
	v := values[0]
	colon, value := v.Start.Position, v.Value.GetToken().Position
	if quoted(v.Value) || colon.Line != value.Line || colon.Column+1 != value.Column {
		return "", false
	}
	if m, ok := n.(*ast.MappingNode); ok && m.IsFlowStyle && m.Start.Value == "{" {
		return "", false
	}
	return keyText(v.Key) + ":" + source(v.Value), true
}

// kindOf names the kind of a node in words for people who do not know YAML's terms.
func kindOf(n ast.Node) string {
	switch n := n.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode:
		return "a number"
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number with a point"
	case *ast.BoolNode:
		return n.String()
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	}
	return "something else"
}

// quoted reports text in quotes or in a block.
func quoted(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.LiteralNode:
		return true
	case *ast.StringNode:
		return n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
	}
	return false
}

// source returns the text of a scalar in the spelling of the file. The result has no
// meaning for other nodes.
func source(n ast.Node) string {
	if n.GetToken() == nil {
		return ""
	}
	return n.GetToken().Value
}

// keyText is the name of an entry.
func keyText(k ast.MapKeyNode) string {
	if k == nil || k.GetToken() == nil {
		return ""
	}
	return k.GetToken().Value
}

// safeName returns a key for use in a message. It hides a name that cannot be a key of
// the configuration: a misplaced colon can turn a whole line, with a secret in it, into
// a key.
func safeName(name string) string {
	if name == "" || looksSecret(name) || len(name) > 40 || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == 0x7f
	}) {
		return strings.Trim(show("", name), `"`)
	}
	return name
}

// fieldIndex is the field of that YAML name, -1 when there is none.
func fieldIndex(t reflect.Type, name string) int {
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag == name && tag != "-" {
			return i
		}
	}
	return -1
}
