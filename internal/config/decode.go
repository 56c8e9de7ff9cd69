package config

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// decoder walks the YAML tree and the struct together. It goes on after a mistake; the
// decoder of the YAML library stops.
type decoder struct {
	name      string
	problems  []Problem
	positions map[string]position // of every value that the file sets
}

func (d *decoder) add(p position, key, message, suggestion string) {
	d.problems = append(d.problems, Problem{
		File: d.name, Position: p, Key: key, Message: message, Suggestion: suggestion,
	})
}

// root decodes the document.
func (d *decoder) root(n ast.Node, cfg *Config) {
	if isNull(n) {
		return
	}
	if mappings(n) == nil {
		d.add(at(n), "", "must be a mapping of keys to values, is "+kindOf(n), `write for example "listen: 127.0.0.1:8080"`)
		return
	}
	d.section(n, reflect.ValueOf(cfg).Elem(), "")
}

// value decodes one node. Null leaves the default in place.
func (d *decoder) value(n ast.Node, to reflect.Value, key string) {
	d.positions[key] = at(n)
	if isNull(n) {
		return
	}
	if to.Type() == reflect.TypeFor[time.Duration]() {
		d.duration(n, to, key)
		return
	}
	switch to.Kind() { //nolint:exhaustive // the kinds that [Config] is made of
	case reflect.Struct:
		if d.short(n, to) {
			return
		}
		d.section(n, to, key)
	case reflect.Pointer:
		v := reflect.New(to.Type().Elem())
		d.value(n, v.Elem(), key)
		to.Set(v)
	case reflect.Slice:
		d.list(n, to, key)
	case reflect.Map:
		d.table(n, to, key)
	case reflect.String:
		d.string(n, to, key)
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.wrong(n, key, "true or false", "write true or false without quotes")
			return
		}
		to.SetBool(b.Value)
	case reflect.Int, reflect.Int64:
		d.integer(n, to, key)
	case reflect.Float64:
		d.float(n, to, key)
	default:
		panic("config: no decoder for " + to.Type().String())
	}
}

// wrong reports a value of the wrong type.
func (d *decoder) wrong(n ast.Node, key, want, suggestion string) {
	d.add(at(n), key, "must be "+want+", is "+kindOf(n), suggestion)
}

func (d *decoder) section(n ast.Node, to reflect.Value, key string) {
	values := mappings(n)
	if values == nil {
		names := fieldNames(to.Type())
		d.wrong(n, key, "a section", "with the keys "+strings.Join(names, ", "))
		return
	}
	seen := map[string]position{}
	for _, v := range values {
		name, p := keyText(v.Key), at(v.Key)
		if first, dup := seen[name]; dup {
			d.add(p, join(key, safeName(name)), fmt.Sprintf("is set twice, first in line %d", first.Line), "keep one of them")
			continue
		}
		seen[name] = p
		i := fieldIndex(to.Type(), name)
		if i < 0 {
			d.add(p, join(key, safeName(name)), "is not a known key", suggestKey(name, to.Type(), key))
			continue
		}
		d.value(v.Value, to.Field(i), join(key, name))
	}
}

// short takes a text for a section that has a short form.
func (d *decoder) short(n ast.Node, to reflect.Value) bool {
	entry, ok := to.Addr().Interface().(interface{ short(text string) })
	if !ok {
		return false
	}
	text, is := glued(n)
	if s, plain := n.(*ast.StringNode); plain {
		text, is = s.Value, true
	}
	if is {
		entry.short(text)
	}
	return is
}

func (d *decoder) list(n ast.Node, to reflect.Value, key string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrong(n, key, "a list", "write [A, B], or one \"- A\" per line")
		return
	}
	to.Set(reflect.Zero(to.Type()))
	for i, item := range seq.Values {
		path := fmt.Sprintf("%s[%d]", key, i)
		if isNull(item) {
			d.add(at(item), path, "is empty", "remove it or write a value")
			continue
		}
		v := reflect.New(to.Type().Elem())
		if entry, ok := v.Interface().(interface{ defaults() }); ok {
			entry.defaults()
		}
		d.value(item, v.Elem(), path)
		to.Set(reflect.Append(to, v.Elem()))
	}
}

// table decodes a mapping of names to texts, as an environment is.
func (d *decoder) table(n ast.Node, to reflect.Value, key string) {
	values := mappings(n)
	if values == nil {
		d.wrong(n, key, "a table of names and texts", `write {NAME: "text"}, or one NAME: "text" per line`)
		return
	}
	out := reflect.MakeMap(to.Type())
	seen := map[string]position{}
	for _, v := range values {
		name, p := keyText(v.Key), at(v.Key)
		path := join(key, safeName(name))
		if first, dup := seen[name]; dup {
			d.add(p, path, fmt.Sprintf("is set twice, first in line %d", first.Line), "keep one of them")
			continue
		}
		seen[name] = p
		if isNull(v.Value) {
			d.add(p, path, "is empty", `write "" for an empty text`)
			continue
		}
		item := reflect.New(to.Type().Elem()).Elem()
		d.value(v.Value, item, path)
		out.SetMapIndex(reflect.ValueOf(name), item)
	}
	if out.Len() > 0 {
		to.Set(out)
	}
}

// string takes text. For arguments and the environment of a program it takes a number
// too, in the spelling of the file.
func (d *decoder) string(n ast.Node, to reflect.Value, key string) {
	switch n := n.(type) {
	case *ast.StringNode:
		to.SetString(n.Value)
	case *ast.LiteralNode:
		to.SetString(n.Value.Value)
	case *ast.IntegerNode, *ast.FloatNode:
		if strings.HasPrefix(key, "vllm.args[") || strings.HasPrefix(key, "vllm.extra_env.") {
			to.SetString(source(n))
			return
		}
		if isAddress(key) {
			d.add(at(n), key, source(n)+" is not HOST:PORT", "write for example 127.0.0.1:"+strings.TrimLeft(source(n), ":"))
			return
		}
		d.wrong(n, key, "text", "put it in quotes")
	default:
		if text, ok := glued(n); ok {
			to.SetString(text)
			return
		}
		d.wrong(n, key, "text", "put it in quotes")
	}
}

// isAddress reports whether the key takes HOST:PORT, where people often write the port
// alone.
func isAddress(key string) bool {
	return key == "listen" || strings.HasSuffix(key, "_listen") || strings.HasSuffix(key, ".listen") ||
		strings.HasPrefix(key, "vllm.endpoints[") || strings.HasPrefix(key, "engines[") && strings.HasSuffix(key, ".address") || strings.HasPrefix(key, "launchers[") || strings.HasPrefix(key, "store.redis.addresses[")
}

var wholeNumber = regexp.MustCompile(`^[-+]?(0|[1-9][0-9_]*)$`)

func (d *decoder) integer(n ast.Node, to reflect.Value, key string) {
	if quoted(n) {
		d.wrong(n, key, "a whole number", "write it without quotes")
		return
	}
	text := source(n)
	if !wholeNumber.MatchString(text) {
		d.wrong(n, key, "a whole number", "write it in decimal digits, without unit, point or leading zero")
		return
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, to.Type().Bits())
	if err != nil {
		d.add(at(n), key, "is out of range", "")
		return
	}
	to.SetInt(v)
}

func (d *decoder) float(n ast.Node, to reflect.Value, key string) {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
	default:
		d.wrong(n, key, "a number", "write it without quotes and unit")
		return
	}
	v, err := strconv.ParseFloat(source(n), 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		d.add(at(n), key, "is not a number that can be used", "write it in decimal digits, as 2.5")
		return
	}
	to.SetFloat(v)
}

var days = regexp.MustCompile(`^([0-9]{1,5}) ?d(ays?)?$`)

func (d *decoder) duration(n ast.Node, to reflect.Value, key string) {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		d.add(at(n), key, "needs a unit", fmt.Sprintf("write %ss for seconds, or %sms", source(n), source(n)))
		return
	case *ast.StringNode:
	default:
		d.wrong(n, key, "a duration", "as 90s, 10m, 1h30m or 250ms")
		return
	}
	text := strings.TrimSpace(source(n))
	v, err := time.ParseDuration(text)
	if err != nil || isDigits(text) {
		suggestion := "write it as 90s, 10m, 1h30m or 250ms"
		if m := days.FindStringSubmatch(text); m != nil {
			if count, err := strconv.Atoi(m[1]); err == nil {
				suggestion = fmt.Sprintf("write days as hours: %dh", count*24)
			}
		}
		d.add(at(n), key, show(key, text)+" is not a duration", suggestion)
		return
	}
	to.SetInt(int64(v))
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }
