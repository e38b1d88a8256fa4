package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The words of [log] access.
const (
	AccessJSON     = "json"
	AccessCombined = "combined"
	AccessOff      = "off"
)

// The words of [log] queries, beside a sample.
const (
	queriesOff = "off"
	queriesAll = "all"
)

const (
	// maxSample is the thinnest sample of queries: at 10 million a second still
	// one a minute or so.
	maxSample = 1_000_000_000
	maxHidden = 256 // query parameters whose values are hidden
)

// DefaultHide are the query parameters whose values no log shows.
func DefaultHide() []string {
	return []string{
		"access_token", "api_key", "apikey", "auth", "authorization", "client_secret", "code", "hmac", "id_token", "jwt", "key",
		"passwd", "password", "policy", "pwd", "refresh_token", "secret", "session", "sessionid", "sig", "signature", "token",
		"x-amz-security-token", "x-amz-signature", "x-goog-signature",
	}
}

// Log is [log].
type Log struct {
	Access      string   // AccessJSON, AccessCombined or AccessOff
	AccessFile  string   // where it goes; empty: stdout
	Queries     int      // of DNS: one in so many is logged; 0: none
	QueriesFile string   // where they go; empty: stdout
	Hide        []string // query parameters, lower case, whose values are not logged
}

// Metrics is [metrics].
type Metrics struct {
	Listen netip.AddrPort // the zero value: metrics are not shown
}

func (c *Config) readLog(t *table) {
	c.Log.Access = t.word("access", AccessJSON, []string{AccessJSON, AccessCombined, AccessOff}, nil)
	c.Log.AccessFile = t.file("access_file", "/var/log/perigee/access.log")
	c.Log.Queries = t.sample("queries")
	c.Log.QueriesFile = t.file("queries_file", "/var/log/perigee/queries.log")
	c.Log.Hide = t.hide("hide")
	t.done()
}

// sample is "off", "all" or "1/N".
func (t *table) sample(key string) int {
	n := t.want(key, stringKind, strconv.Quote("1/1000"))
	if n == nil {
		return 0
	}
	switch n.text {
	case queriesOff:
		return 0
	case queriesAll:
		return 1
	}
	rest, ok := strings.CutPrefix(n.text, "1/")
	if every, err := strconv.Atoi(rest); ok && err == nil && every >= 1 && every <= maxSample {
		return every
	}
	t.wrong(n, key, fmt.Sprintf("%q is no share of the queries", n.text), fmt.Sprintf("write %q, %q, or one in so many, up to a thousand million: \"1/1000\"", queriesOff, queriesAll))
	return 0
}

func (t *table) hide(key string) []string {
	if !t.has(key) {
		t.known = append(t.known, key)
		return DefaultHide()
	}
	list := []string{}
	for _, item := range t.strings(key, "token") {
		name := strings.ToLower(item.text)
		switch {
		case name == "" || strings.ContainsAny(name, "=&;"):
			t.wrong(item, key, fmt.Sprintf("%q is no name of a query parameter", item.text), "write the name alone: \"token\"")
		case slices.Contains(list, name):
			t.wrong(item, key, name+" stands here twice", "")
		case len(list) == maxHidden:
			t.wrong(item, key, fmt.Sprintf("at most %d names may stand here", maxHidden), "")
			return list
		default:
			list = append(list, name)
		}
	}
	return list
}

func (c *Config) readMetrics(t *table) {
	if n := t.want("listen", stringKind, strconv.Quote("127.0.0.1:9440")); n != nil && n.text != "" {
		ap, text, hint := listenAddress(n.text)
		if text != "" {
			t.wrong(n, "listen", text, hint)
		}
		c.Metrics.Listen = ap
	}
	t.done()
}
