package policy

import (
	"strings"
	"testing"
)

func TestParseSelector(t *testing.T) {
	for _, text := range []string{
		"default", "europe", "north-america", "south-america", "africa", "antarctica", "asia", "oceania",
		"DE", "NA", "US-CA", "GB-ENG", "FR-1", "DE/Berlin", "BR/São Paulo", "GB/Stoke-on-Trent", "AS1", "AS4294967295",
		"0.0.0.0/0", "192.0.2.0/24", "::/0", "2001:db8::/48",
	} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := s.String(); got != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
}

func TestParseSelectorErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "selects no client"},
		{"Europe", "is written europe"},
		{"eu", "write two capital letters"},
		{"de", "write two capital letters"},
		{"Germany", "selects no client"},
		{"AS0", "is not an autonomous system"},
		{"AS064500", "is not an autonomous system"},
		{"AS4294967296", "is not an autonomous system"},
		{"AS-1", "is not an autonomous system"},
		{"us-CA", "is not a subdivision"},
		{"US-CALI", "is not a subdivision"},
		{"US-", "selects no client"},
		{"DE/", "is not a city"},
		{"DE/ Berlin", "is not a city's name"},
		{"DE/Ber\nlin", "is not a city's name"},
		{"DE/" + strings.Repeat("a", maxCity+1), "is not a city's name"},
		{"192.0.2.1", "write the network it is in, such as 192.0.2.0/24"},
		{"2001:db8::1", "write the network it is in, such as 2001:db8::/48"},
		{"192.0.2.1/24", "has bits beyond its length: write 192.0.2.0/24"},
		{"192.0.2.0/25", "is longer than /24"},
		{"2001:db8::/49", "is longer than /48"},
		{"::ffff:192.0.2.0/120", "is IPv4 inside IPv6"},
		{"192.0.2.0/33", "is not a network"},
		{"2001:db8::/129", "is not a network"},
	} {
		_, err := ParseSelector(test.text)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: error %v, want one with %q", test.text, err, test.want)
		}
	}
}

func TestSelectorCheck(t *testing.T) {
	for _, test := range []struct {
		sel  Selector
		want string
	}{
		{Selector{ASN: 1, Country: "DE"}, "has 2"},
		{Selector{Continent: "EUROPE"}, "is not a continent"},
		{Selector{Subdivision: "CA"}, "is not a subdivision"},
		{Selector{City: "Berlin"}, "is not a city"},
	} {
		if err := test.sel.check(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %q", test.sel, err, test.want)
		}
	}
}

// FuzzParseSelector checks that what is read is written back in the same
// words, so that no two texts are one selector.
func FuzzParseSelector(f *testing.F) {
	for _, seed := range []string{"default", "europe", "DE", "US-CA", "DE/Berlin", "AS64500", "192.0.2.0/24", "2001:DB8::/32", "1.2.3.4", "fe80::%eth0/10", "AS", "\xff\xff", "ÄÖ"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err != nil {
			if s != (Selector{}) {
				t.Fatalf("%q: error %v with %+v", text, err, s)
			}
			return
		}
		if s.check() != nil {
			t.Fatalf("%q gives %+v: %v", text, s, s.check())
		}
		again, err := ParseSelector(s.String())
		if err != nil || again != s {
			t.Fatalf("%q gives %+v, and %q gives %+v, %v", text, s, s.String(), again, err)
		}
		if s.Prefix.IsValid() {
			return // an IPv6 address has many spellings
		}
		if s.String() != text {
			t.Fatalf("%q comes back as %q", text, s)
		}
	})
}
