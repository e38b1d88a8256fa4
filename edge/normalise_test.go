package edge

import "testing"

// TestNormalise: RFC 9111 §4.1, fields compared by what they mean.
func TestNormalise(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"Accept-Encoding", "gzip, deflate, br", "br, gzip"},
		{"Accept-Encoding", "br;q=1.0,GZIP;q=0.001", "br, gzip"},
		{"Accept-Encoding", "gzip;q=0, br ; q=0.000", "identity"},
		{"Accept-Encoding", "", "identity"},
		{"Accept-Encoding", "deflate, identity", "identity"},
		{"Accept-Encoding", "zstd, identity;q=0", "zstd,identity;q=0"},
		{"Accept-Encoding", "gzip, *", "gzip,*"},
		{"Accept-Encoding", "gzip;q=2", "identity"},
		{"Accept-Encoding", "gzip;q=0.1234, br", "br"},
		{"Accept-Encoding", "gzip;x=1", "identity"},
		{"Accept-Language", "en, de", "de,en"},
		{"Accept-Language", "De;q=0.5 ,eN;q=1.000", "en,de;q=500"},
		{"Accept-Language", "de;q=0.5;x", "de;q=0.5;x"},
		{"Accept-Language", "de;q=1.001", "de;q=1.001"},
		{"Accept", " a ,b", "a,b"},
		{"Foo", "B,a", "B,a"},
	} {
		if got := normalise(c.name, c.in); got != c.want {
			t.Errorf("%s: %q: %q, want %q", c.name, c.in, got, c.want)
		}
	}
	v := "gzip, deflate, br, zstd"
	if n := testing.AllocsPerRun(100, func() { normalise("Accept-Encoding", v) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func TestQueryRules(t *testing.T) {
	all := QueryRules{}
	keep := QueryRules{Keep: []string{"a", "b*"}}
	drop := QueryRules{Drop: []string{"utm_*"}, Sort: true}
	for _, c := range []struct {
		rules    *QueryRules
		in, want string
	}{
		{&all, "", ""},
		{&all, "?", "?"},
		{&all, "?b&&a", "?b&&a"},
		{&keep, "?c=1&bb=2&a&ab=1", "?bb=2&a"},
		{&keep, "?c", ""},
		{&keep, "?", ""},
		{&drop, "?z=1&utm_x=2&a=2&a=1", "?a=2&a=1&z=1"},
		{&drop, "?UTM_x=2&utm_=1", "?UTM_x=2"},
		{&drop, "?a=1;utm_x=2", "?a=1;utm_x=2"},
	} {
		if got := c.rules.apply(c.in); got != c.want {
			t.Errorf("%+v: %q: %q, want %q", *c.rules, c.in, got, c.want)
		}
	}
}
