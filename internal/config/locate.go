package config

import (
	"errors"
	"strconv"
	"strings"

	"perigee.example/policy"
)

// splitPath splits a path as join makes it: keys with dots stand in quotes.
func splitPath(path string) []string {
	var parts []string
	for path != "" {
		if quoted, err := strconv.QuotedPrefix(path); err == nil && quoted[0] == '"' {
			key, _ := strconv.Unquote(quoted)
			parts = append(parts, key)
			path = strings.TrimPrefix(path[len(quoted):], ".")
			continue
		}
		key, rest, _ := strings.Cut(path, ".")
		parts = append(parts, key)
		path = rest
	}
	return parts
}

// Locate returns the place of a path such as "policy.canary.weights.fra9" or
// `zone."example.com".steer.www`: of the key that it ends in, or of an item of
// the list that it ends in ("policy.home-first.order.fra9"). Quotes may be left
// out, also around keys with dots. Where the file has less than the path, the
// place is that of the last table or key that it has; of the file's first line,
// if it has none.
func (c *Config) Locate(path string) Position {
	return c.src.position(c.locate(path))
}

func (c *Config) locate(path string) span {
	n, at := c.root, span{}
	for path != "" {
		next, rest := step(n, path)
		if next == nil {
			break
		}
		at = next.keyAt
		if n.kind == arrayKind {
			at = next.at
		}
		n, path = next, strings.TrimPrefix(rest, ".")
	}
	return at
}

// step finds the child of n that path begins with, the longest key first, and
// returns what of path is left.
func step(n *node, path string) (next *node, rest string) {
	if quoted, err := strconv.QuotedPrefix(path); err == nil && quoted[0] == '"' {
		key, _ := strconv.Unquote(quoted)
		return n.find(key), path[len(quoted):]
	}
	for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '.') {
		if found := n.find(path[:end]); found != nil {
			return found, path[end:]
		}
	}
	return nil, ""
}

// find returns a table's key, regardless of case if there is none of the same
// case, or the item of a list that is this string.
func (n *node) find(key string) *node {
	if c := n.child(key); c != nil {
		return c
	}
	for _, c := range n.list {
		switch n.kind {
		case tableKind:
			if strings.EqualFold(c.key, key) {
				return c
			}
		case arrayKind:
			if c.kind == stringKind && c.text == key {
				return c
			}
		}
	}
	return nil
}

// ErrorAt makes an *Error about a path of this file: for what only others can
// know, such as a steered name that its zone does not have.
func (c *Config) ErrorAt(path, text, hint string) *Error {
	return c.src.error(c.locate(path), path, text, hint)
}

// SteerError makes an *Error about a steered name: name is the Steer's fully
// qualified owner and origin its zone's.
func (c *Config) SteerError(origin, name, text, hint string) *Error {
	for _, z := range c.Zones {
		for _, s := range z.Steer {
			if z.Origin == origin && s.Name == name && s.Pos.Line > 0 {
				e := &Error{
					File: c.File, Line: s.Pos.Line, Col: s.Pos.Col, EndCol: s.Pos.EndCol,
					Path: s.path, Text: text, Hint: hint, line: string(c.src.line(s.Pos.Line)),
				}
				return e
			}
		}
	}
	return c.ErrorAt("zone", name+": "+text, hint)
}

// PolicyErrors puts every *policy.ConfigError in err, as policy.Compile returns
// them, into the form of Load's, with line and caret. Any other error is
// returned as it is.
func (c *Config) PolicyErrors(err error) error {
	if err == nil {
		return nil
	}
	found, ok := c.policyErrors(err, 0)
	if !ok {
		return err
	}
	return report(found)
}

// maxJoined bounds how deep errors are joined within errors.
const maxJoined = 8

func (c *Config) policyErrors(err error, depth int) ([]*Error, bool) {
	if many, ok := err.(interface{ Unwrap() []error }); ok && depth < maxJoined {
		var found []*Error
		for _, e := range many.Unwrap() {
			list, ok := c.policyErrors(e, depth+1)
			if !ok {
				return nil, false
			}
			found = append(found, list...)
		}
		return found, true
	}
	var ce *policy.ConfigError
	if !errors.As(err, &ce) {
		return nil, false
	}
	path := ce.Path
	// policy knows endpoints only: those that are edges are called so here.
	if rest, ok := strings.CutPrefix(path, "endpoint."); ok {
		if name, _, _ := strings.Cut(rest, "."); c.Edge(name) != nil {
			path = "edge." + rest
		}
	}
	return []*Error{c.ErrorAt(path, ce.Text, ce.Hint)}, true
}
