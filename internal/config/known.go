package config

import (
	"fmt"
	"slices"
	"strings"
)

const (
	pemMark    = "-----BEGIN "
	secretHint = "no secret stands in perigee.toml, which every node has: keep it in a file of mode 0600 and write the file's path"
)

// secretWords are parts of keys that people give to secrets.
var secretWords = []string{"token", "password", "passwd", "passphrase", "secret", "credential", "api_key", "apikey", "private_key", "psk"}

// later are keys that are planned and not there yet; a "*" stands for a name.
// To take one out: remove the line when the key is read.
var later = []string{
	"peers",
	"dns.tls", "dns.https", "dns.quic", "dns.log", "dns.dnstap", "dns.transfer",
	"edge.*.capacity", "edge.*.shield", "edge.*.http3",
	"control.copies", "control.standby",
	"log.dnstap", "log.format",
	"zone.*.families", "zone.*.dnssec", "zone.*.sign", "zone.*.keys", "zone.*.primary", "zone.*.primaries",
	"zone.*.secondaries", "zone.*.transfer", "zone.*.notify", "zone.*.update", "zone.*.dynamic", "zone.*.tsig",
	"policy.*.families", "policy.*.panic", "policy.*.learn",
	"site.*.acme", "site.*.tls.acme", "site.*.key", "site.*.vary", "site.*.stale", "site.*.compress", "site.*.rate_limit",
}

// done reports every key of t that nothing has asked for.
func (t *table) done() {
	if t.n == nil {
		return
	}
	for _, n := range t.n.list {
		if slices.Contains(t.known, n.key) {
			continue
		}
		path := join(t.path, n.key)
		switch {
		case looksSecret(n):
			t.fail(n.keyAt, path, "this looks like a secret", secretHint)
		case isLater(path):
			t.fail(n.keyAt, path, "there is no such key yet", fmt.Sprintf("%s is planned for a later version; take it out", n.key))
		default:
			t.fail(n.keyAt, path, "there is no such key", t.knownHint(n.key))
		}
	}
}

// knownHint names the nearest known key, or all when they are few.
func (t *table) knownHint(key string) string {
	if hint := didYouMean(key, t.known); hint != "" {
		return hint
	}
	known := slices.Clone(t.known)
	slices.Sort(known)
	where := "the keys here are: "
	if t.path == "" {
		where = "the keys outside of any table are: "
	}
	return where + strings.Join(slices.Compact(known), ", ")
}

func looksSecret(n *node) bool {
	key := strings.ReplaceAll(strings.ToLower(n.key), "-", "_")
	for _, w := range secretWords {
		if strings.Contains(key, w) {
			return true
		}
	}
	return n.kind == stringKind && strings.Contains(n.text, pemMark)
}

func isLater(path string) bool {
	parts := splitPath(path)
	for _, l := range later {
		want := strings.Split(l, ".")
		if len(want) == len(parts) && matches(want, parts) {
			return true
		}
	}
	return false
}

func matches(want, parts []string) bool {
	for i, w := range want {
		if w != "*" && w != parts[i] {
			return false
		}
	}
	return true
}
