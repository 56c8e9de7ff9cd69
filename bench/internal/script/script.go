// Package script says how the upstream of a measurement answers one request.
// It travels in a request header, which every gateway passes on.
package script

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Header is the request header that carries a script.
const Header = "x-bench"

// Script is one answer; the zero value is an empty one.
type Script struct {
	Chunks int           // chunks with text; as tokens in a JSON answer
	Every  time.Duration // between two chunks; the first one goes with the headers
	Cut    int           // the connection is closed after so many chunks; 0 = never
	Stall  bool          // nothing comes after the last chunk, not even an end
	Usage  bool          // usage in every chunk, also when the request does not ask for it
	Strip  bool          // asks the bare server to take usage out again
}

// String is the header's value.
func (s Script) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "n=%d;us=%d", s.Chunks, s.Every.Microseconds())
	if s.Cut > 0 {
		fmt.Fprintf(&b, ";cut=%d", s.Cut)
	}
	for _, f := range []struct {
		name string
		on   bool
	}{{"stall", s.Stall}, {"usage", s.Usage}, {"strip", s.Strip}} {
		if f.on {
			b.WriteString(";" + f.name + "=1")
		}
	}
	return b.String()
}

// Parse reads a header's value; an empty one is the zero value.
func Parse(v string) (Script, error) {
	var s Script
	for part := range strings.SplitSeq(v, ";") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return Script{}, fmt.Errorf("parse script: %q: want NAME=NUMBER", part)
		}
		switch name {
		case "n":
			s.Chunks = n
		case "us":
			s.Every = time.Duration(n) * time.Microsecond
		case "cut":
			s.Cut = n
		case "stall":
			s.Stall = n > 0
		case "usage":
			s.Usage = n > 0
		case "strip":
			s.Strip = n > 0
		default:
			return Script{}, fmt.Errorf("parse script: there is no %q", name)
		}
	}
	return s, nil
}
