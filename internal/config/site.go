package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The defaults of a site.
const (
	DefaultKeep = 5
	// DefaultKeepFor is a month: what nobody goes back to.
	DefaultKeepFor = 720 * time.Hour
	// DefaultMaxFiles is more than most sites have, and DefaultMaxStored than most
	// disks have to spare.
	DefaultMaxFiles       = 100_000
	DefaultMaxStored      = 100 << 30
	DefaultConnectTimeout = 3 * time.Second
	DefaultHeaderTimeout  = 15 * time.Second
	DefaultBetweenTimeout = 15 * time.Second
)

// Words of a site.
const (
	HeuristicOff   = "off"
	HeuristicTenth = "10%"
	EarlyHintsH2   = "h2"
	EarlyHintsAll  = "all"
)

// originKeys make no sense without origins.
var originKeys = []string{
	"shield", "balance", "check", "allow_private", "connect_timeout", "header_timeout", "between_timeout",
	"heuristic", "share_set_cookie", "store_client_errors", "early_hints", "query_sort", "query_keep", "query_drop", "key_fields",
}

// Bounds of a site.
const (
	maxKeep          = 50             // releases: each keeps its files on every edge, and its paths in memory
	minKeepFor       = 72 * time.Hour // as long as edges answer from releases in grace
	maxKeepFor       = 100_000 * time.Hour
	maxMaxFiles      = 1_000_000
	maxMaxStored     = 1 << 50
	maxOrigins       = 64 // upstreams of one site: more are a load balancer's business
	maxOriginTimeout = 10 * time.Minute
	maxExpiry        = 256  // rules tried one by one
	maxCacheControl  = 1024 // octets of one field value
)

func (c *Config) readSite(name string, t *table) {
	if !t.nameOK(name) {
		return
	}
	s := Site{Name: name, Pos: c.src.position(t.n.keyAt)}
	s.Hosts = t.hosts()
	s.Push = t.bool("push", false)
	s.Previews = t.bool("previews", false)
	s.Keep = t.int("keep", DefaultKeep, 1, maxKeep)
	s.KeepFor = t.durationOrNone("keep_for", DefaultKeepFor, minKeepFor, maxKeepFor)
	s.MaxFiles = t.int("max_files", DefaultMaxFiles, 0, maxMaxFiles)
	s.MaxStored = t.sizeOrNone("max_stored", DefaultMaxStored, 1<<10, maxMaxStored)
	s.Origins = t.urls("origins", "https://origin.example.net", "http", "https")
	s.Balance = t.word("balance", RoundRobin, []string{RoundRobin, Weighted, LeastLoaded, Random, ActivePassive}, nil)
	for _, item := range t.strings("shield", "fra1") {
		s.Shield = append(s.Shield, item.text)
	}
	s.Weights = t.originWeights(s.Balance, len(s.Origins))
	if n := t.take("check"); n != nil && (n.kind != stringKind || n.text != "") {
		s.Check = t.urlPath("check", "")
	}
	s.AllowPrivate = t.bool("allow_private", false)
	s.ConnectTimeout = t.duration("connect_timeout", DefaultConnectTimeout, minTimeout, maxOriginTimeout)
	s.HeaderTimeout = t.duration("header_timeout", DefaultHeaderTimeout, minTimeout, maxOriginTimeout)
	s.BetweenTimeout = t.duration("between_timeout", DefaultBetweenTimeout, minTimeout, maxOriginTimeout)
	s.Heuristic = t.word("heuristic", HeuristicOff, []string{HeuristicOff, HeuristicTenth}, nil) == HeuristicTenth
	s.ShareSetCookie = t.bool("share_set_cookie", false)
	s.StoreClientErrors = t.bool("store_client_errors", false)
	s.Memory = t.size("memory", 0, minCacheMemory, maxCacheMemory)
	s.EarlyHintsAll = t.word("early_hints", EarlyHintsH2, []string{EarlyHintsH2, EarlyHintsAll}, nil) == EarlyHintsAll
	t.keys(&s)
	s.TLS = t.tls()
	s.Expiry = t.expiry()
	t.done()
	t.siteKind(&s)
	c.Sites = append(c.Sites, s)
}

// PreviewsBelow is the host below which the site's previews are served: the
// first that is no wildcard, whose labels are anybody's, and no address; "" when
// there are no previews. One is enough, and one name in DNS and in a certificate.
func (s *Site) PreviewsBelow() string {
	for _, h := range s.Hosts {
		if _, err := netip.ParseAddr(strings.Trim(h, "[]")); s.Previews && err != nil && !strings.HasPrefix(h, "*") {
			return h
		}
	}
	return ""
}

// siteKind checks that the keys of push and of pull go with what the site is.
func (t *table) siteKind(s *Site) {
	if !s.Push && t.emptyOrAbsent("origins") {
		t.missing("a site needs origins or push", `write origins = ["https://origin.example.net"] for a cache before them, or push = true for uploaded releases`)
	}
	if len(s.Origins) > maxOrigins {
		t.wrong(t.n.child("origins"), "origins", fmt.Sprintf("%d origins; at most %d are allowed", len(s.Origins), maxOrigins), "")
	}
	if !s.Push {
		for _, key := range []string{"previews", "keep", "keep_for", "max_files", "max_stored", "expiry"} {
			if n := t.n.child(key); n != nil {
				t.fail(n.keyAt, join(t.path, key), key+" goes with push = true; this site is not pushed", "")
			}
		}
	}
	if s.Push && t.emptyOrAbsent("origins") {
		for _, key := range originKeys {
			if n := t.n.child(key); n != nil {
				t.fail(n.keyAt, join(t.path, key), key+" goes with origins; this site has none", "")
			}
		}
	}
	for i, u := range s.Origins {
		for _, h := range s.Hosts {
			if u.Hostname() == h {
				t.wrong(t.n.child("origins").list[min(i, len(t.n.child("origins").list)-1)], "origins", fmt.Sprintf("%s is a host of this very site: a miss would be fetched from the edge itself", h), "give the origin a name of its own")
			}
		}
	}
}

func (t *table) hosts() []string {
	var hosts []string
	for _, item := range t.strings("hosts", "www.example.com") {
		host := strings.ToLower(strings.TrimSuffix(item.text, "."))
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			hosts = append(hosts, host)
			continue
		}
		if name, port, ok := strings.Cut(host, ":"); ok {
			if _, err := strconv.Atoi(port); err == nil || port == "" {
				t.wrong(item, "hosts", fmt.Sprintf("%q has a port", item.text), fmt.Sprintf("write %q: every port of the edge serves it", name))
				continue
			}
			t.wrong(item, "hosts", fmt.Sprintf("%q is not a host name", item.text), "write the name alone, without scheme and path")
			continue
		}
		if text := hostName(host, true); text != "" {
			t.wrong(item, "hosts", text, "")
			continue
		}
		hosts = append(hosts, host)
	}
	if t.emptyOrAbsent("hosts") {
		t.missing("a site needs hosts", `write hosts = ["www.example.com"]`)
	}
	return hosts
}

func (t *table) originWeights(balance string, origins int) []uint32 {
	n := t.want("weights", arrayKind, "[3, 1]")
	if n == nil || len(n.list) == 0 {
		if balance == Weighted {
			t.missing(`balance = "weighted" needs weights, one for each origin`, "write weights = [3, 1]")
		}
		return nil
	}
	if balance != Weighted {
		t.wrong(n, "weights", fmt.Sprintf("weights go with balance = %q; this site has %q", Weighted, balance), "")
		return nil
	}
	if len(n.list) != origins {
		t.wrong(n, "weights", fmt.Sprintf("%d weights for %d origins", len(n.list), origins), "write one weight for each origin, in their order")
		return nil
	}
	weights := make([]uint32, 0, origins)
	sum := 0
	for _, item := range n.list {
		w, ok := 0, item.kind == integerKind
		if ok {
			w, ok = integer(item, 0, maxWeight)
		}
		if !ok {
			t.wrong(item, "weights", fmt.Sprintf("a weight is a whole number between 0 and %d", maxWeight), "")
			return nil
		}
		sum += w
		weights = append(weights, uint32(w))
	}
	if sum == 0 {
		t.wrong(n, "weights", "every weight is 0, so no origin is ever asked", "give at least one a positive weight")
	}
	return weights
}

func (t *table) tls() TLS {
	sub := t.table("tls")
	pair := TLS{Cert: sub.file("cert", "shop.crt"), Key: sub.file("key", "shop.key")}
	if sub.n == nil {
		return pair
	}
	pair.Default = sub.bool("default", false)
	if pair.Default && !sub.has("cert") {
		sub.missing("has default without cert", "write cert and key, and the paths of the files")
	}
	for key, other := range map[string]string{"cert": "key", "key": "cert"} {
		if sub.has(key) && !sub.has(other) {
			sub.missing(fmt.Sprintf("has %s without %s", key, other), fmt.Sprintf("write %s = and the path of the file", other))
		}
	}
	sub.done()
	return pair
}

func (t *table) expiry() []Expiry {
	sub := t.table("expiry")
	if sub.n == nil {
		return nil
	}
	if len(sub.n.list) > maxExpiry {
		sub.missing(fmt.Sprintf("%d rules; at most %d are allowed", len(sub.n.list), maxExpiry), "")
		return nil
	}
	var rules []Expiry
	for _, n := range sub.n.list {
		path := join(sub.path, n.key)
		switch text := globPattern(n.key); {
		case n.kind == tableKind:
			t.fail(n.keyAt, path, "expected a Cache-Control value, not a table", `a glob needs quotes: "feeds/*.xml" = "public, max-age=300"`)
			continue
		case n.kind != stringKind:
			t.fail(n.at, path, "expected a Cache-Control value, not "+n.kind.String(), `write "public, max-age=300"`)
			continue
		case text != "":
			t.fail(n.keyAt, path, text, "")
			continue
		case n.key == "" || n.key[0] == '/':
			t.fail(n.keyAt, path, "the paths of a release begin without a slash", fmt.Sprintf("write %q", strings.TrimLeft(n.key, "/")))
			continue
		}
		if text, hint := cacheControl(n.text); text != "" {
			t.fail(n.at, path, text, hint)
			continue
		}
		rules = append(rules, Expiry{Glob: n.key, CacheControl: n.text})
	}
	return rules
}

// seconds are the response directives whose argument is delta-seconds (RFC 9111
// §5.2.2, RFC 5861); words those without an argument, or with an optional one.
var (
	seconds = []string{"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"}
	words   = []string{"public", "private", "no-cache", "no-store", "no-transform", "must-revalidate", "proxy-revalidate", "must-understand", "immutable"}
)

// cacheControl says what is wrong with a Cache-Control value. Unknown
// directives are allowed by the protocol and refused here: they are slips.
func cacheControl(text string) (wrong, hint string) {
	if len(text) > maxCacheControl {
		return fmt.Sprintf("is longer than %d octets", maxCacheControl), ""
	}
	for part := range strings.SplitSeq(text, ",") {
		name, value, has := strings.Cut(strings.TrimSpace(part), "=")
		name = strings.ToLower(name)
		switch {
		case slices.Contains(seconds, name):
			if n, err := strconv.ParseUint(value, 10, 31); err != nil || !has || strconv.FormatUint(n, 10) != value {
				return fmt.Sprintf("%s needs a number of seconds", name), fmt.Sprintf("write %s=300", name)
			}
		case slices.Contains(words, name) && (!has || name == "private" || name == "no-cache"):
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
				return fmt.Sprintf("the value of %s holds a character that may not stand there", name), ""
			}
		case name == "":
			return "an empty directive", `write "public, max-age=300"`
		default:
			return fmt.Sprintf("%q is not a Cache-Control directive", strings.TrimSpace(part)), didYouMean(name, append(slices.Clone(seconds), words...))
		}
	}
	return "", ""
}
