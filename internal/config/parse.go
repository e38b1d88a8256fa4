package config

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The defaults. template.toml shows each; a test holds the two together.
const (
	DefaultControlListen = "127.0.0.1:7440"
	DefaultFeedListen    = "127.0.0.1:7441"
	DefaultBlobListen    = "127.0.0.1:7442"

	DefaultHealthPath     = "/-/ready"
	DefaultHealthInterval = 5 * time.Second
	DefaultHealthTimeout  = 2 * time.Second
	DefaultRise           = 2
	DefaultFall           = 3
	DefaultDrain          = time.Second

	DefaultCacheMemory = 256 << 20
)

// Bounds of single values.
const (
	maxNSID = 128 // octets; an NSID is a short name of a server, and rides in replies of 1232 octets

	minInterval = 100 * time.Millisecond // faster, probes are a load of their own
	maxInterval = time.Hour              // slower, nobody would call it a health check
	minTimeout  = 10 * time.Millisecond
	maxInARow   = 100 // probes in a row

	maxDrain = 10 * time.Minute // longer than any TTL of a steered name

	minCacheMemory = 64 << 10 // below, no page of today fits
	maxCacheMemory = 1 << 40  // beyond any machine: a slip of the unit

	minCacheDisk = 256 << 20 // four files of the smallest size: one is written, one makes way
	maxCacheDisk = 1 << 50   // beyond any machine
)

// Load reads and checks the file at path. Relative paths in it are relative to
// its folder. Besides what Parse does, it looks which zone files zone_files
// finds. The error is of type *Errors unless the file cannot be read.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, fmt.Errorf("%s: is a folder; name the file in it", path)
	}
	text, err := readBounded(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c, err := Parse(path, text, filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	zones, err := c.ExpandZones()
	if err != nil {
		return nil, err
	}
	c.Zones = zones
	return c, nil
}

// Parse reads and checks the text of a perigee.toml. name is for messages;
// relative paths are resolved against dir. It touches no disk. The error is of
// type *Errors.
func Parse(name string, text []byte, dir string) (*Config, error) {
	src := newSource(name, text)
	if len(text) > maxFileBytes {
		return nil, report([]*Error{src.error(span{}, "", fmt.Sprintf("the file has %s; at most %s are read", Size(len(text)), Size(maxFileBytes)), "bring zones in by zone_files instead of one by one")})
	}
	root, syntax := parseTree(src)
	if syntax != nil {
		return nil, report([]*Error{syntax})
	}
	r := &reader{src: src, dir: dir, zones: map[string]int{}}
	c := &Config{File: name, src: src, root: root, mixed: map[string]bool{}, hash: sha256.Sum256(text)}
	top := &table{reader: r, n: root}
	c.readTop(top)
	if !r.fatal {
		c.check(r)
	}
	if err := report(r.errors); err != nil {
		return nil, err
	}
	c.tables = slices.Clone(c.Zones)
	return c, nil
}

func (c *Config) readTop(t *table) {
	c.Version = c.readVersion(t)
	if t.fatal {
		return
	}
	c.State = t.file("state", "/var/lib/perigee")
	c.readDNS(t.table("dns"))
	c.readControl(t.table("control"))
	c.readFeed(t.table("feed"))
	c.readHealth(t.table("health"))
	c.readCache(t.table("cache"))
	c.readClientLimit(t.table("limit"))
	c.readLog(t.table("log"))
	c.readMetrics(t.table("metrics"))
	t.table("zone").tables(c.readZone)
	t.table("edge").tables(c.readEdge)
	t.table("endpoint").tables(c.readEndpoint)
	t.table("policy").tables(c.readPolicy)
	t.table("site").tables(c.readSite)
	t.done()
}

// readVersion comes first: under another version, nothing else means what it
// seems to.
func (c *Config) readVersion(t *table) int {
	n := t.want("version", integerKind, "1")
	if n == nil {
		if !t.has("version") {
			t.fail(span{}, "version", "the file does not say its version", "begin it with the line: version = 1")
		}
		return 1
	}
	if v, ok := integer(n, 1, 1); ok {
		return v
	}
	t.wrong(n, "version", n.text+" is not a version that this perigee reads", "write version = 1, or use the perigee that wrote this file")
	t.fatal = true
	return 1
}

func (c *Config) readDNS(t *table) {
	c.DNS.Listen = t.addrPorts("listen", "192.0.2.53:53")
	for _, item := range t.strings("zone_files", "zones/*.zone") {
		text := globPattern(item.text)
		if item.text == "" || strings.ContainsRune(item.text, 0) {
			text = "a glob is not empty and holds no zero byte"
		}
		if text != "" {
			t.wrong(item, "zone_files", text, "")
			continue
		}
		glob := item.text
		if !filepath.IsAbs(glob) {
			glob = filepath.Join(globEscape.Replace(t.dir), glob)
		}
		c.DNS.ZoneFiles = append(c.DNS.ZoneFiles, filepath.Clean(glob))
		c.globs = append(c.globs, item.at)
	}
	c.DNS.GeoIP = t.file("geoip", "GeoLite2-City.mmdb")
	c.DNS.GeoIPASN = t.file("geoip_asn", "GeoLite2-ASN.mmdb")
	c.DNS.NSID = t.string("nsid", "", "ns1")
	if len(c.DNS.NSID) > maxNSID {
		t.wrong(t.n.child("nsid"), "nsid", fmt.Sprintf("is longer than %d octets", maxNSID), "")
	}
	c.DNS.Cookies = t.bool("cookies", true)
	c.readChaos(t.table("chaos"))
	c.readLimit(t.table("limit"))
	t.done()
}

func (c *Config) readControl(t *table) {
	c.Control.Present = t.n != nil
	c.readCluster(t.table("cluster"))
	listen, feed, blobs := DefaultControlListen, DefaultFeedListen, DefaultBlobListen
	if len(c.Control.Cluster) > 0 { // others connect to it: by default at the member's address
		listen, feed, blobs = "0.0.0.0:7440", "0.0.0.0:7441", "0.0.0.0:7442"
	}
	c.Control.Listen = t.addrPort("listen", listen)
	c.Control.FeedListen = t.addrPort("feed_listen", feed)
	c.Control.BlobListen = t.addrPort("blob_listen", blobs)
	c.readControlLimit(t.table("limit"))
	c.readBucket(t.table("bucket"))
	c.Control.Addresses = t.urls("addresses", "https://ctl1.example.net:7440", "https")
	if len(c.Control.Addresses) == 0 {
		c.Control.Addresses = c.Control.clusterAddresses()
	}
	if len(c.Control.Addresses) == 0 {
		c.Control.Addresses = []*url.URL{{Scheme: "https", Host: c.Control.Listen.String()}}
	}
	t.done()
}

func (c *Config) readHealth(t *table) {
	c.Health.Path = t.urlPath("path", DefaultHealthPath)
	c.Health.Interval = t.duration("interval", DefaultHealthInterval, minInterval, maxInterval)
	c.Health.Timeout = t.duration("timeout", DefaultHealthTimeout, minTimeout, maxInterval)
	c.Health.Rise = t.int("rise", DefaultRise, 1, maxInARow)
	c.Health.Fall = t.int("fall", DefaultFall, 1, maxInARow)
	c.Health.Drain = t.duration("drain", DefaultDrain, 0, maxDrain)
	if c.Health.Timeout > c.Health.Interval {
		at := "timeout"
		if !t.has(at) {
			at = "interval"
		}
		if t.has(at) {
			t.wrong(t.n.child(at), at, fmt.Sprintf("timeout (%s) is longer than interval (%s)", Duration(c.Health.Timeout), Duration(c.Health.Interval)), "a probe ends before the next begins: make timeout shorter or interval longer")
		}
	}
	t.done()
}

func (c *Config) readCache(t *table) {
	c.Cache.Memory = t.size("memory", DefaultCacheMemory, minCacheMemory, maxCacheMemory)
	c.Cache.Disk = t.sizeOrNone("disk", 0, minCacheDisk, maxCacheDisk)
	c.Cache.Eviction = t.word("eviction", EvictionS3FIFO, []string{EvictionS3FIFO, EvictionLRU}, nil)
	t.done()
}

func (t *table) urlPath(key, def string) string {
	n := t.want(key, stringKind, strconv.Quote(DefaultHealthPath))
	if n == nil {
		return def
	}
	if text := urlPath(n.text); text != "" {
		t.wrong(n, key, text, "")
		return def
	}
	return n.text
}

// zoneSuffix is what a zone file's name ends in; the rest is the origin.
const zoneSuffix = ".zone"

func (c *Config) readZone(name string, t *table) {
	z := Zone{Pos: c.src.position(t.n.keyAt)}
	var wrong string
	if z.Origin, wrong = domainName(name, false); wrong != "" {
		t.fail(t.n.keyAt, t.path, wrong, "")
		return
	}
	if t.unquotedZone(name) {
		return
	}
	z.File = t.file("file", "zones/"+name+zoneSuffix)
	if z.File == "" && !t.has("file") && len(c.DNS.ZoneFiles) == 0 {
		t.missing("has no file", fmt.Sprintf("write file = %q, or bring it in by zone_files in [dns]", "zones/"+strings.TrimSuffix(z.Origin, ".")+zoneSuffix))
	}
	t.word("kind", "file", []string{"file"}, []string{"dynamic", "secondary"})
	z.Auto = t.word("serial", "file", []string{"file", "auto"}, nil) == "auto"
	z.Steer = c.readSteers(z.Origin, t.table("steer"))
	t.done()
	if i, twice := t.zones[z.Origin]; twice {
		t.missing(fmt.Sprintf("the zone %s stands here twice, first in line %d", z.Origin, c.Zones[i].Pos.Line), "put both into one table")
		return
	}
	t.zones[z.Origin] = len(c.Zones)
	c.Zones = append(c.Zones, z)
}

func (c *Config) readSteers(origin string, steer *table) []Steer {
	var list []Steer
	if steer.n != nil {
		first := map[string]Position{}
		for _, n := range steer.n.list {
			s, ok := c.readSteer(steer, origin, n)
			if !ok {
				continue
			}
			if p, twice := first[s.Name]; twice {
				steer.fail(n.keyAt, join(steer.path, n.key), fmt.Sprintf("%s is steered twice, first in line %d", s.Name, p.Line), "")
				continue
			}
			first[s.Name] = s.Pos
			list = append(list, s)
		}
	}
	return list
}

// unquotedZone reports [zone.example.com], which TOML reads as a table com in a
// table example.
func (t *table) unquotedZone(name string) bool {
	for _, n := range t.n.list {
		if n.kind != tableKind || n.key == "steer" {
			return false
		}
	}
	if len(t.n.list) == 0 {
		return false
	}
	for n := t.n.list[0]; n.kind == tableKind; n = n.list[0] {
		if n.child("file") != nil || n.child("steer") != nil || len(n.list) == 0 {
			name += "." + n.key
			break
		}
		name += "." + n.key
	}
	t.missing("the dots of a zone's name need quotes", fmt.Sprintf("write [zone.%q]", name))
	return true
}

func (c *Config) readSteer(t *table, origin string, n *node) (Steer, bool) {
	path := join(t.path, n.key)
	if n.kind == tableKind {
		t.fail(n.keyAt, path, "expected a policy's name, not a table", "the dots of a name need quotes: \"www.eu\" = \"nearest\"")
		return Steer{}, false
	}
	if n.kind != stringKind {
		t.fail(n.at, path, "expected a policy's name, not "+n.kind.String(), "write the name of a policy, an edge or an endpoint in quotes")
		return Steer{}, false
	}
	owner, wrong, hint := ownerName(n.key, origin)
	if wrong != "" {
		t.fail(n.keyAt, path, wrong, hint)
		return Steer{}, false
	}
	return Steer{Name: owner, To: n.text, Pos: c.src.position(n.keyAt), path: path}, true
}

// ownerName makes an owner name of a zone fully qualified.
func ownerName(key, origin string) (fqdn, wrong, hint string) {
	if key == "@" {
		return origin, "", ""
	}
	name, wrong := domainName(key, true)
	if wrong != "" {
		return "", wrong, ""
	}
	inside := name == origin || strings.HasSuffix(name, "."+origin)
	switch {
	case strings.HasSuffix(key, "."):
		if !inside {
			return "", fmt.Sprintf("%s is not in the zone %s", name, origin), "steer it in its own zone"
		}
		return name, "", ""
	case inside: // www.example.com in example.com: nobody means www.example.com.example.com
		short := strings.TrimSuffix(strings.TrimSuffix(name, origin), ".")
		if short == "" {
			short = "@"
		}
		return "", fmt.Sprintf("%q is relative to the zone and so means %s%s", key, name, origin), fmt.Sprintf("write %q, or %q with the final dot", short, name)
	case len(name)+len(origin)-1 > maxNameText:
		return "", fmt.Sprintf("%s%s is longer than a domain name may be", name, origin), ""
	}
	return name + origin, "", ""
}
