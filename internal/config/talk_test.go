package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"perigee.example/internal/txtest"
	"perigee.example/policy"
)

// TestConversations plays testdata/config. The commands:
//
//	check [FILE]     all mistakes of FILE (perigee.toml), or ok
//	zones [FILE]     the zones with their files and what is steered
//	locate PATH      the place of PATH in perigee.toml
//	policies [FILE]  what policy.Compile would get
//
// Other files of the archive are written beside it.
func TestConversations(t *testing.T) {
	txtest.Run(t, "../../testdata/config/*.txtar", func(t testing.TB, files map[string][]byte) txtest.Session {
		dir := t.TempDir()
		for name, data := range files {
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, data, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		return talk{dir, files}
	})
}

type talk struct {
	dir   string
	files map[string][]byte
}

func (k talk) Do(cmd string) (string, error) {
	verb, arg, _ := strings.Cut(cmd, " ")
	file := arg
	if file == "" || verb == "locate" {
		file = "perigee.toml"
	}
	text, ok := k.files[file]
	if !ok {
		return "", fmt.Errorf("the archive has no %s", file)
	}
	c, err := Parse(file, text, k.dir)
	if err == nil {
		c.Zones, err = c.ExpandZones()
	}
	out := "ok"
	switch {
	case err != nil:
		out = Render(err)
	case verb == "zones":
		out = k.zones(c)
	case verb == "locate":
		at := c.Locate(arg)
		e := Error{File: at.File, Line: at.Line, Col: at.Col, EndCol: at.EndCol, Text: arg, line: string(c.src.line(at.Line))}
		out = e.Render()
	case verb == "policies":
		var b strings.Builder
		for _, e := range c.Policy.Endpoints {
			fmt.Fprintf(&b, "endpoint %s %v,%v\n", e.Name, e.Lat, e.Lon)
		}
		for _, p := range c.Policy.Policies {
			fmt.Fprintf(&b, "policy %s kind %d ttl %s answers %d\n", p.Name, p.Kind, p.TTL, p.Answers)
			for _, ch := range p.Choices {
				fmt.Fprintf(&b, "  %s weight %d\n", ch.To, ch.Weight)
			}
			for _, r := range p.Map {
				type plain policy.Selector // as it is, without its String
				fmt.Fprintf(&b, "  %+v -> %s\n", plain(r.Match), r.To)
			}
		}
		out = b.String()
	case verb != "check":
		return "", fmt.Errorf("%s is not a command of these conversations", verb)
	}
	return strings.ReplaceAll(out, k.dir+string(filepath.Separator), ""), nil
}

func (k talk) zones(c *Config) string {
	var b strings.Builder
	for _, z := range c.Zones {
		fmt.Fprintf(&b, "%s %s (line %d)\n", z.Origin, z.File, z.Pos.Line)
		for _, s := range z.Steer {
			fmt.Fprintf(&b, "  %s -> %s\n", s.Name, s.To)
		}
	}
	return b.String()
}
