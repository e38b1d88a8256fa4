package main

import (
	"path/filepath"
	"slices"
)

// plainMixes are what a server answers when nothing else is said.
var plainMixes = []string{"mix", "referral", "cname", "large", "truncated", "ecs", "tcp", "paced"}

// contender says how one server is started.
type contender struct {
	name, program, note string
	mix                 []string // what it answers; nil is plainMixes
	zone                string   // what its zone has besides
	threads             int      // GOMAXPROCS; 0 is 1
	// files are written into the server's folder; {DIR}, {ZONE}, {SIGNED}, {GEO}
	// and {PORT} in them and in args are replaced.
	files map[string]string
	args  []string
}

// wanted reports whether it answers some of the mixes.
func (k *contender) wanted(mixes []string) bool {
	own := k.mix
	if own == nil {
		own = plainMixes
	}
	return slices.ContainsFunc(mixes, func(m string) bool { return slices.Contains(own, m) })
}

// probe is a mix that the server answers.
func (k *contender) probe() string {
	if k.mix != nil {
		return k.mix[0]
	}
	return plainMixes[0]
}

func contenders(c *config) []contender {
	signed := append(slices.Clone(plainMixes), "signed")
	perigee := contender{program: c.perigee, zone: steeredZone,
		files: map[string]string{"perigee.toml": perigeeConfig}, args: []string{"serve", "dns", "-c", "{DIR}/perigee.toml", "--state", "{DIR}/state"}}
	one, two := perigee, perigee
	one.name, one.note, one.mix = "perigee", "limits, cookies and counters on", append(slices.Clone(signed), "steered", "weighted")
	beside := one
	beside.name, beside.note, beside.program = "beside", "another binary", c.beside
	two.name, two.note, two.mix, two.threads = "perigee-2", "two threads on the one processor", []string{"mix"}, 2
	return []contender{
		{name: "c-echo", program: filepath.Join(c.dir, "echo"), note: "the floor", mix: []string{"mix", "ecs", "paced"}, args: []string{"{PORT}"}},
		one,
		beside,
		two,
		{name: "gdnsd", program: "gdnsd", mix: append(slices.Clone(plainMixes), "steered", "weighted"), zone: gdnsdZone,
			files: map[string]string{"config": gdnsdConfig, "zones/bench.test": "$INCLUDE {ZONE}\n"}, args: []string{"-c", "{DIR}", "start"}},
		{name: "knot", program: "knotd", mix: append(slices.Clone(signed), "weighted"), zone: steeredZone,
			files: map[string]string{"knot.conf": knotConfig, "geo.conf": knotGeo}, args: []string{"-c", "{DIR}/knot.conf"}},
		{name: "nsd", program: "nsd", mix: signed, files: map[string]string{"nsd.conf": nsdConfig}, args: []string{"-d", "-c", "{DIR}/nsd.conf"}},
		{name: "bind", program: "named", mix: signed, files: map[string]string{"named.conf": namedConfig}, args: []string{"-f", "-n", "1", "-c", "{DIR}/named.conf"}},
		{name: "pdns", program: "pdns_server", note: "bind backend, all caches", files: map[string]string{"pdns.conf": pdnsConfig, "named.conf": pdnsZones},
			args: pdnsArgs},
		{name: "pdns-geoip", program: "pdns_server", note: "geoip backend", mix: []string{"steered", "weighted"},
			files: map[string]string{"pdns.conf": pdnsGeoConfig, "geo.yaml": pdnsGeoZone}, args: pdnsArgs},
		{name: "pdns-lua", program: "pdns_server", note: "LUA records", mix: []string{"steered", "weighted"}, zone: pdnsLuaZone,
			files: map[string]string{"pdns.conf": pdnsLuaConfig, "named.conf": pdnsZones, "geo.yaml": "domains: []\n"}, args: pdnsArgs},
		{name: "coredns", program: c.coredns, files: map[string]string{"Corefile": corefile}, args: []string{"-conf", "{DIR}/Corefile", "-dns.port", "{PORT}"}},
	}
}

var pdnsArgs = []string{"--config-dir={DIR}", "--guardian=no", "--daemon=no"}

// The steered names: for Perigee records to stand in for, for others the
// answer itself.
const (
	steeredZone = "steered IN A 10.202.0.1\nweighted IN A 10.202.0.1\n"
	gdnsdZone   = "steered 30 DYNA geoip!world\nweighted 30 DYNA weighted!west\n"
	pdnsLuaZone = `steered 30 IN LUA A ";if continent('EU') or continent('AS') then return pickwrandom({{60,'10.202.1.1'},{30,'10.202.1.2'},{10,'10.202.1.3'}}) else return pickwrandom({{10,'10.202.1.1'},{30,'10.202.1.2'},{60,'10.202.1.3'}}) end"
weighted 30 IN LUA A "pickwrandom({{10,'10.202.1.1'},{30,'10.202.1.2'},{60,'10.202.1.3'}})"
`
)

const perigeeConfig = `version = 1
[dns]
listen = ["127.0.0.1:{PORT}"]
[dns.limit]
rate   = 1000000   # above the load: every answer is accounted, none held back
exempt = []
[zone."bench.test"]
file = "{ZONE}"
[zone."signed.test"]
file = "{SIGNED}"
[endpoint.one]
addresses = ["10.202.1.1"]
[endpoint.two]
addresses = ["10.202.1.2"]
[endpoint.three]
addresses = ["10.202.1.3"]
[policy.west]
by = "weighted"
weights = { one = 10, two = 30, three = 60 }
[policy.east]
by = "weighted"
weights = { one = 60, two = 30, three = 10 }
[policy.world]
by = "geo"
[policy.world.map]
europe = "east"
asia = "east"
default = "west"
[zone."bench.test".steer]
steered = "world"
weighted = "west"
`

const gdnsdConfig = `options => { listen => [ "127.0.0.1:{PORT}" ], udp_threads => 1, tcp_threads => 1, udp_rcvbuf => 1048576, udp_sndbuf => 1048576, zones_strict_data => false, run_dir => "{DIR}/run", state_dir => "{DIR}/state" }
plugins => {
  weighted => {
    service_types => up
    west => { one => [10.202.1.1, 10], two => [10.202.1.2, 30], three => [10.202.1.3, 60] }
    east => { one => [10.202.1.1, 60], two => [10.202.1.2, 30], three => [10.202.1.3, 10] }
  }
  geoip => {
    maps => { world => { geoip2_db => "{GEO}", datacenters => [west, east], map => { EU => [east, west], AS => [east, west], default => [west, east] } } }
    resources => { world => { map => world, dcmap => { west => "%weighted!west", east => "%weighted!east" } } }
  }
}
`

const knotConfig = `server:
    listen: 127.0.0.1@{PORT}
    rundir: {DIR}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {DIR}
log:
  - target: stderr
    any: warning
mod-geoip:
  - id: weighted
    config-file: {DIR}/geo.conf
    ttl: 30
    mode: weighted
template:
  - id: default
    journal-content: none
    zonefile-sync: -1
zone:
  - domain: bench.test
    file: {ZONE}
    module: mod-geoip/weighted
  - domain: signed.test
    file: {SIGNED}
`

const knotGeo = `weighted.bench.test:
  - weight: 10
    A: 10.202.1.1
  - weight: 30
    A: 10.202.1.2
  - weight: 60
    A: 10.202.1.3
`

const nsdConfig = `server:
    ip-address: 127.0.0.1@{PORT}
    username: ""
    server-count: 1
    minimal-responses: yes
    rrl-ratelimit: 0
    send-buffer-size: 4194304
    receive-buffer-size: 4194304
    zonesdir: "{DIR}"
    database: ""
    pidfile: "{DIR}/nsd.pid"
    xfrdfile: "{DIR}/xfrd.state"
    zonelistfile: "{DIR}/zone.list"
    cookie-secret-file: ""
remote-control:
    control-enable: no
zone:
    name: bench.test
    zonefile: {ZONE}
zone:
    name: signed.test
    zonefile: {SIGNED}
`

const namedConfig = `options { directory "{DIR}"; pid-file "{DIR}/named.pid"; session-keyfile "{DIR}/session.key"; listen-on port {PORT} { 127.0.0.1; }; listen-on-v6 { none; };
  recursion no; minimal-responses yes; zone-statistics none; dnssec-validation no; };
controls { };
logging { category default { null; }; };
zone "bench.test" { type primary; file "{ZONE}"; };
zone "signed.test" { type primary; file "{SIGNED}"; };
`

const (
	pdnsCommon = `local-address=127.0.0.1
local-port={PORT}
socket-dir={DIR}
receiver-threads=1
distributor-threads=1
cache-ttl=60
query-cache-ttl=60
negquery-cache-ttl=60
setuid=
setgid=
security-poll-suffix=
`
	pdnsConfig    = "launch=bind\nbind-config={DIR}/named.conf\n" + pdnsCommon
	pdnsGeo       = "geoip-zones-file={DIR}/geo.yaml\ngeoip-database-files=mmdb:{GEO}\nedns-subnet-processing=yes\n" + pdnsCommon
	pdnsGeoConfig = "launch=geoip\n" + pdnsGeo
	pdnsLuaConfig = "launch=bind,geoip\nbind-config={DIR}/named.conf\nenable-lua-records=shared\n" + pdnsGeo
)

const pdnsGeoZone = `domains:
- domain: bench.test
  ttl: 30
  records:
    bench.test:
    - soa: ns1.bench.test hostmaster.bench.test 1 7200 900 1209600 300
    - ns: ns1.bench.test
    west.bench.test: &west
    - a: {content: 10.202.1.1, weight: 10}
    - a: {content: 10.202.1.2, weight: 30}
    - a: {content: 10.202.1.3, weight: 60}
    weighted.bench.test: *west
    eu.world.bench.test: &east
    - a: {content: 10.202.1.1, weight: 60}
    - a: {content: 10.202.1.2, weight: 30}
    - a: {content: 10.202.1.3, weight: 10}
    as.world.bench.test: *east
  services:
    steered.bench.test: ["%cn.world.bench.test", "west.bench.test"]
`

const corefile = `bench.test {
  bind 127.0.0.1
  file {ZONE}
}
`

const pdnsZones = `zone "bench.test" { type master; file "{ZONE}"; };
`
