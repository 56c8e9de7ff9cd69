package openai

import "strconv"

func (s *scanner) digits() int {
	start := s.pos
	for s.pos < len(s.buf) && s.buf[s.pos]-'0' <= 9 {
		s.pos++
	}
	return s.pos - start
}

// number reads a number. It refuses a number that a float64 cannot hold: Python reads
// 1e999 as infinity and fails on very long integers.
func (s *scanner) number() (kind, error) {
	start, k, exponent := s.pos, integer, false
	if s.buf[s.pos] == '-' {
		s.pos++
	}
	zero := s.peek() == '0'
	if n := s.digits(); n == 0 || zero && n > 1 {
		return k, s.fail("a number is malformed")
	}
	if s.peek() == '.' {
		k = fraction
		s.pos++
		if s.digits() == 0 {
			return k, s.fail("a number is malformed")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		k, exponent = fraction, true
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if s.digits() == 0 {
			return k, s.fail("a number is malformed")
		}
	}
	if exponent || s.pos-start > 300 {
		if _, err := strconv.ParseFloat(string(s.buf[start:s.pos]), 64); err != nil {
			return k, s.fail("a number is too large")
		}
	}
	s.numbers++
	return k, nil
}
