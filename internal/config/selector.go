package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"perigee.example/policy"
)

var continentCodes = map[string]string{
	"africa": "AF", "antarctica": "AN", "asia": "AS", "europe": "EU",
	"north-america": "NA", "oceania": "OC", "south-america": "SA",
}

// selector reads a key of a geo map or a table of round trips.
func (t *table) selector(n *node, path string) (policy.Selector, bool) {
	sel, wrong, hint := parseSelector(n.key)
	if wrong != "" {
		t.fail(n.keyAt, path, wrong, hint)
		return sel, false
	}
	return sel, true
}

const selectorHint = `write a CIDR block in quotes, AS64500, "DE/Berlin", US-CA, DE, a continent such as europe, or default`

func parseSelector(key string) (sel policy.Selector, wrong, hint string) {
	switch {
	case key == "default":
		return sel, "", ""
	case continentCodes[key] != "":
		return policy.Selector{Continent: continentCodes[key]}, "", ""
	case upper(key, 2):
		return policy.Selector{Country: key}, "", ""
	case len(key) >= 4 && upper(key[:2], 2) && key[2] == '-' && len(key) <= 6:
		if strings.Trim(key[3:], "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == "" { // ISO 3166-2: one to three
			return policy.Selector{Subdivision: key}, "", ""
		}
	case len(key) >= 4 && upper(key[:2], 2) && key[2] == '/' && strings.TrimSpace(key[3:]) == key[3:] && !strings.ContainsAny(key[3:], "\x00\n"):
		return policy.Selector{City: key}, "", ""
	case strings.HasPrefix(key, "AS") && strings.Trim(key[2:], "0123456789") == "":
		if n, err := strconv.ParseUint(key[2:], 10, 32); err == nil && n > 0 {
			return policy.Selector{ASN: uint32(n)}, "", ""
		}
	}
	if p, err := netip.ParsePrefix(key); err == nil {
		if p.Masked() != p {
			return sel, fmt.Sprintf("%s has bits set beyond its length", key), fmt.Sprintf("write %q", p.Masked())
		}
		return policy.Selector{Prefix: p}, "", ""
	}
	hint = didYouMean(key, continents)
	switch up := strings.ToUpper(key); {
	case key == "":
	case upper(up, 2):
		hint = "countries are in upper case: " + up
	case strings.HasPrefix(up, "AS") && len(up) > 2 && strings.Trim(up[2:], "0123456789") == "" && up != key:
		hint = "write " + up
	case hint == "":
		if a, err := netip.ParseAddr(key); err == nil {
			hint = fmt.Sprintf("write a block: %q", netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if hint == "" {
		hint = selectorHint
	}
	return sel, fmt.Sprintf("%q selects no clients", key), hint
}

func upper(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
