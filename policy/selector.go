package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Blocks of addresses stop at these lengths: what a resolver sends at most
// (RFC 7871 §11.1 recommends a SOURCE of no more than /24 and /56), and what
// one household or office has. A rule for a longer prefix is an error.
const (
	MaxBits4 = 24
	MaxBits6 = 48
)

// maxCity bounds a city's name in octets. The longest real ones have about 60.
const maxCity = 128

// Selector says which clients a rule is for. Exactly one field is set; the
// zero Selector is the default rule. The fields stand in order of precedence:
// of the selectors of a map that match a client the first kind wins, and of
// two prefixes the longer.
type Selector struct {
	Prefix      netip.Prefix // CIDR, at most MaxBits4 or MaxBits6 long
	ASN         uint32       // the autonomous system
	City        string       // "DE/Berlin": country and English name
	Subdivision string       // "US-CA"
	Country     string       // "DE"
	Continent   string       // "EU"; in text a word: africa antarctica asia europe north-america oceania south-america
}

// continents maps the words of perigee.toml to GeoIP2's codes. They are words
// because NA is Namibia, AS is American Samoa, and SA is Saudi Arabia.
var continents = []struct{ word, code string }{
	{"africa", "AF"}, {"antarctica", "AN"}, {"asia", "AS"}, {"europe", "EU"},
	{"north-america", "NA"}, {"oceania", "OC"}, {"south-america", "SA"},
}

// ParseSelector reads a map key of perigee.toml: "default", a CIDR prefix,
// "AS64500", "US-CA", "DE/Berlin", "DE", or a continent's word. Letters are in
// the case shown.
func ParseSelector(text string) (Selector, error) {
	if text == "default" {
		return Selector{}, nil
	}
	for _, c := range continents {
		if text == c.word {
			return Selector{Continent: c.code}, nil
		}
	}
	s, err := parseSelector(text)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return Selector{}, err
	}
	return s, nil
}

func parseSelector(text string) (Selector, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return Selector{Prefix: p}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return Selector{}, fmt.Errorf("%s is one address: write the network it is in, such as %s", text, networkOf(a))
	}
	if digits, ok := strings.CutPrefix(text, "AS"); ok && digits != "" {
		n, err := strconv.ParseUint(digits, 10, 32)
		if err == nil && n > 0 && digits[0] != '0' {
			return Selector{ASN: uint32(n)}, nil
		}
		return Selector{}, fmt.Errorf("%q is not an autonomous system: write AS and a number from 1 to 4294967295", text)
	}
	switch {
	case strings.Contains(text, "/") && (strings.Contains(text, ":") || strings.Trim(text, "0123456789./") == ""):
		return Selector{}, fmt.Errorf("%q is not a network: write it as 192.0.2.0/24 or 2001:db8::/32", text)
	case strings.Contains(text, "/"):
		return Selector{City: text}, nil
	case len(text) > 3 && text[2] == '-':
		return Selector{Subdivision: text}, nil
	case len(text) == 2:
		return Selector{Country: text}, nil
	}
	if lower := strings.ToLower(text); lower != text {
		if s, err := ParseSelector(lower); err == nil {
			return Selector{}, fmt.Errorf("%q is written %s", text, s)
		}
	}
	return Selector{}, fmt.Errorf("%q selects no client: write default, a CIDR prefix, AS64500, DE/Berlin, US-CA, DE, or a continent's word such as europe", text)
}

// networkOf is the widest network that a rule may name around one address.
func networkOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := MaxBits6
	if a.Is4() {
		bits = MaxBits4
	}
	p, _ := a.Prefix(bits) // cannot fail: bits is within the family's length
	return p
}

// String is the text that ParseSelector reads back.
func (s Selector) String() string {
	switch {
	case s.Prefix.IsValid():
		return s.Prefix.String()
	case s.ASN != 0:
		return "AS" + strconv.FormatUint(uint64(s.ASN), 10)
	case s.City != "":
		return s.City
	case s.Subdivision != "":
		return s.Subdivision
	case s.Country != "":
		return s.Country
	case s.Continent != "":
		for _, c := range continents {
			if s.Continent == c.code {
				return c.word
			}
		}
		return s.Continent
	}
	return "default"
}

// check says what is wrong with a selector that a program made by hand.
func (s Selector) check() error {
	set := 0
	for _, is := range []bool{s.Prefix != netip.Prefix{}, s.ASN != 0, s.City != "", s.Subdivision != "", s.Country != "", s.Continent != ""} {
		if is {
			set++
		}
	}
	switch {
	case set > 1:
		return fmt.Errorf("a selector has one field, this one has %d", set)
	case s.Prefix != netip.Prefix{}:
		return checkPrefix(s.Prefix)
	case s.City != "":
		return checkCity(s.City)
	case s.Subdivision != "":
		cc, sub, ok := strings.Cut(s.Subdivision, "-")
		if !ok || checkCountry(cc) != nil || len(sub) < 1 || len(sub) > 3 || strings.Trim(sub, upperAndDigits) != "" {
			return fmt.Errorf("%q is not a subdivision: write it as in ISO 3166-2, such as US-CA", s.Subdivision)
		}
	case s.Country != "":
		return checkCountry(s.Country)
	case s.Continent != "":
		for _, c := range continents {
			if s.Continent == c.code {
				return nil
			}
		}
		return fmt.Errorf("%q is not a continent: AF, AN, AS, EU, NA, OC or SA", s.Continent)
	}
	return nil
}

const (
	upper          = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	upperAndDigits = upper + "0123456789"
)

func checkCountry(cc string) error {
	if len(cc) != 2 || strings.Trim(cc, upper) != "" {
		return fmt.Errorf("%q is not a country: write two capital letters as in ISO 3166-1, such as DE", cc)
	}
	return nil
}

func checkCity(text string) error {
	cc, name, ok := strings.Cut(text, "/")
	if !ok || checkCountry(cc) != nil || name == "" {
		return fmt.Errorf("%q is not a city: write country and English name, such as DE/Berlin", text)
	}
	odd := func(r rune) bool { return !unicode.IsPrint(r) }
	if len(name) > maxCity || name != strings.TrimSpace(name) || !utf8.ValidString(name) || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%q is not a city's name", name)
	}
	return nil
}

func checkPrefix(p netip.Prefix) error {
	limit := MaxBits6
	if p.Addr().Is4() {
		limit = MaxBits4
	}
	switch {
	case !p.IsValid():
		return fmt.Errorf("the prefix is not valid")
	case p.Addr().Is4In6():
		return fmt.Errorf("%s is IPv4 inside IPv6: write the IPv4 prefix", p)
	case p != p.Masked():
		return fmt.Errorf("%s has bits beyond its length: write %s", p, p.Masked())
	case p.Bits() > limit:
		return fmt.Errorf("%s is longer than /%d, the smallest network that can be told apart: write %s", p, limit, networkOf(p.Addr()))
	}
	return nil
}
