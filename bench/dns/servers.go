package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is one contender.
type server struct {
	name string
	note string   // beside its name in the table
	mix  []string // what it answers; nil is everything that is not steered
	port int
	cmd  *exec.Cmd
	done chan struct{}
}

func (s *server) title() string {
	if s.note == "" {
		return s.name
	}
	return s.name + " (" + s.note + ")"
}

func (s *server) answers(mix string) bool {
	if s.mix != nil {
		return slices.Contains(s.mix, mix)
	}
	return mix != "steered"
}

// cpu is the processor time of all threads of the server (and of its children:
// some fork).
func (s *server) cpu() (time.Duration, error) {
	var total time.Duration
	for _, pid := range append(children(s.cmd.Process.Pid), s.cmd.Process.Pid) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, t := range tasks {
			b, err := os.ReadFile(t)
			if err != nil {
				continue // the thread has ended
			}
			ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ns)
		}
	}
	return total, nil
}

func children(pid int) []int {
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, word := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(append(all, child), children(child)...)
			}
		}
	}
	return all
}

func (s *server) stop() {
	for _, pid := range children(s.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// contender says how one server is started.
type contender struct {
	name, program, note string
	mix                 []string
	// files are written into the server's folder; {DIR}, {ZONE}, {ORIGIN} and {PORT} in them
	// and in args are replaced.
	files map[string]string
	args  []string
}

func contenders(c *config) []contender {
	return []contender{
		{name: "c-echo", program: filepath.Join(c.dir, "echo"), note: "the floor", mix: []string{"mix", "ecs"}, args: []string{"{PORT}"}},
		{name: "perigee", program: c.perigee, note: "limits, cookies and counters on", mix: []string{"mix", "referral", "cname", "large", "ecs", "steered"},
			files: map[string]string{"perigee.toml": perigeeConfig}, args: []string{"serve", "dns", "-c", "{DIR}/perigee.toml", "--state", "{DIR}/state"}},
		{name: "gdnsd", program: "gdnsd", files: map[string]string{"config": gdnsdConfig, "zones/bench.test": "$INCLUDE {ZONE}\n"}, args: []string{"-c", "{DIR}", "start"}},
		{name: "knot", program: "knotd", files: map[string]string{"knot.conf": knotConfig}, args: []string{"-c", "{DIR}/knot.conf"}},
		{name: "nsd", program: "nsd", files: map[string]string{"nsd.conf": nsdConfig}, args: []string{"-d", "-c", "{DIR}/nsd.conf"}},
		{name: "bind", program: "named", files: map[string]string{"named.conf": namedConfig}, args: []string{"-f", "-n", "1", "-c", "{DIR}/named.conf"}},
		{name: "pdns", program: "pdns_server", note: "bind backend, all caches", files: map[string]string{"pdns.conf": pdnsConfig, "named.conf": pdnsZones},
			args: []string{"--config-dir={DIR}", "--guardian=no", "--daemon=no"}},
	}
}

const perigeeConfig = `version = 1
[dns]
listen = ["127.0.0.1:{PORT}"]
[dns.limit]
rate   = 1000000   # above the load: every answer is accounted, none held back
exempt = []
[zone."bench.test"]
file = "{ZONE}"
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
US = "west"
default = "west"
[zone."bench.test".steer]
steered = "world"
`

const gdnsdConfig = `options => { listen => [ "127.0.0.1:{PORT}" ], udp_threads => 1, tcp_threads => 1, udp_rcvbuf => 1048576, udp_sndbuf => 1048576, zones_strict_data => false, run_dir => "{DIR}/run", state_dir => "{DIR}/state" }
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
zone:
  - domain: bench.test
    file: {ZONE}
    journal-content: none
    zonefile-sync: -1
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
`

const namedConfig = `options { directory "{DIR}"; pid-file "{DIR}/named.pid"; session-keyfile "{DIR}/session.key"; listen-on port {PORT} { 127.0.0.1; }; listen-on-v6 { none; };
  recursion no; minimal-responses yes; zone-statistics none; dnssec-validation no; };
controls { };
logging { category default { null; }; };
zone "bench.test" { type primary; file "{ZONE}"; };
`

const pdnsConfig = `launch=bind
bind-config={DIR}/named.conf
local-address=127.0.0.1
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

const pdnsZones = `zone "bench.test" { type master; file "{ZONE}"; };
`

// startAll starts every contender that is installed and wanted, and waits until
// each answers.
func startAll(c *config) ([]*server, error) {
	probe := filepath.Join(c.dir, "probe.queries")
	if err := writeQueries(probe, "cname"); err != nil {
		return nil, err
	}
	var running []*server
	for _, k := range contenders(c) {
		if len(c.only) > 0 && !slices.Contains(c.only, k.name) {
			continue
		}
		if _, err := exec.LookPath(k.program); err != nil {
			fmt.Printf("%s is not installed: left out\n", k.name)
			continue
		}
		s, err := k.start(c)
		if s != nil {
			running = append(running, s)
		}
		if err != nil {
			return running, err
		}
		if err := waitReady(c, s, probe); err != nil {
			return running, err
		}
	}
	return running, nil
}

func (k *contender) start(c *config) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.dir, k.name+".d")
	for _, sub := range []string{"", "run", "state", "zones"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	fill := strings.NewReplacer("{DIR}", dir, "{ZONE}", filepath.Join(c.dir, "bench.test.zone"), "{PORT}", fmt.Sprint(port), "{ORIGIN}", origin)
	for name, text := range k.files {
		if name == "state/" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), []byte(fill.Replace(text)), 0o644); err != nil {
			return nil, err
		}
	}
	if k.name == "perigee" {
		if err := os.Chmod(filepath.Join(dir, "state"), 0o700); err != nil {
			return nil, err
		}
	}
	args := []string{"-c", "0", k.program}
	for _, a := range k.args {
		args = append(args, fill.Replace(a))
	}
	out, err := os.Create(filepath.Join(c.dir, k.name+".log"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	s := &server{name: k.name, note: k.note, mix: k.mix, port: port, done: make(chan struct{})}
	s.cmd = exec.Command("taskset", args...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = out, out, dir
	s.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// freePort finds a port that is free by UDP and TCP.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
