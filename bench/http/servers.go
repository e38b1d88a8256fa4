package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"perigee.example/bench/pinned"
)

// server is one contender that runs.
type server struct {
	*pinned.Server
	name, note string
	port, tls  int
}

func (s *server) title() string {
	if s.note == "" {
		return s.name
	}
	return s.name + " (" + s.note + ")"
}

// contender says how one server is started.
type contender struct {
	name, program, note string
	mix                 []string // what it takes part in; nil: everything
	disk                bool     // it keeps what it has on disk, if it is asked to
	// files are written into the server's folder; {DIR}, {PORT}, {TLS}, {EXTRA}, {DISK},
	// {ORIGIN} and {POOL} in them and in args are replaced.
	files map[string]string
	args  []string
}

func contenders(c *config) []contender {
	plain := []string{"bare", "chromium", "100k", "10m", "pipelined"}
	perigee := contender{name: "perigee", program: c.perigee, note: "access log, metrics and limits on", disk: true, files: map[string]string{"perigee.toml": perigeeConfig},
		args: []string{"serve", "edge", "bench", "-c", "{DIR}/perigee.toml", "--state", "{DIR}/state"}}
	beside := perigee
	beside.name, beside.note, beside.program = "beside", "another binary", c.beside
	list := []contender{
		{name: "floor", program: filepath.Join(c.dir, "httpfloor"), note: "C, epoll", mix: plain, args: []string{"{PORT}", "{POOL}"}},
		perigee,
		{name: "haproxy", program: "haproxy", note: "cache, nbthread 1", files: map[string]string{"haproxy.cfg": haproxyConfig}, args: []string{"-db", "-f", "{DIR}/haproxy.cfg"}},
		{name: "nginx", program: "nginx", note: "proxy_cache", disk: true, files: map[string]string{"nginx.conf": nginxConfig + nginxProxy},
			args: []string{"-p", "{DIR}", "-e", "stderr", "-c", "{DIR}/nginx.conf"}},
		{name: "nginx-file", program: "nginx", note: "files", mix: append(slices.Clone(plain), "tls1k", "tls100k"), files: map[string]string{"nginx.conf": nginxConfig + nginxFile},
			args: []string{"-p", "{DIR}", "-e", "stderr", "-c", "{DIR}/nginx.conf"}},
		{name: "ats", program: "traffic_server", note: "RAM cache, one thread", disk: true, files: atsFiles, args: []string{"--run-root={DIR}/runroot.yaml"}},
		{name: "varnish", program: "varnishd", note: "malloc, threads started before", mix: append(slices.Clone(plain), "zipf", "memory"),
			files: map[string]string{"default.vcl": varnishConfig},
			args: []string{"-F", "-j", "none", "-n", "{DIR}/run", "-a", "127.0.0.1:{PORT}", "-f", "{DIR}/default.vcl", "-s", "malloc,2g",
				"-T", "none", "-p", "thread_pools=1", "-p", "thread_pool_min=100", "-p", "http_gzip_support=off"}},
	}
	if c.beside != "" {
		list = append(list, beside)
	}
	return list
}

// startAll starts every contender of a mix that is installed and wanted, and
// waits until each answers.
func startAll(c *config, m *mix) (running []*server, err error) {
	for _, k := range contenders(c) {
		if len(c.peers) > 0 && !slices.Contains(c.peers, k.name) || k.mix != nil && !slices.Contains(k.mix, m.name) || m.disk && !k.disk {
			continue
		}
		if _, err := exec.LookPath(k.program); err != nil {
			fmt.Printf("%s is not installed: left out\n", k.name)
			continue
		}
		s, err := k.start(c, m)
		if err != nil {
			return running, fmt.Errorf("%s: %w", k.name, err)
		}
		running = append(running, s)
	}
	return running, nil
}

func (k *contender) start(c *config, m *mix) (*server, error) {
	var ports [3]int
	for i := range ports {
		var err error
		if ports[i], err = pinned.FreePort(); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(c.dir, m.name+"-"+k.name)
	for _, sub := range []string{"", "run", "state", "cache", "log", "temp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	disk := "0"
	if m.disk {
		disk = "8GiB"
	}
	put := strings.NewReplacer("{DISK}", disk, "{DIR}", dir, "{PORT}", fmt.Sprint(ports[0]), "{TLS}", fmt.Sprint(ports[1]), "{EXTRA}", fmt.Sprint(ports[2]),
		"{ORIGIN}", fmt.Sprint(c.origin), "{POOL}", c.pool(), "{CERTS}", c.dir)
	for name, text := range k.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(put.Replace(text)), 0o644); err != nil {
			return nil, err
		}
	}
	if k.name == "nginx-file" {
		if err := writeFiles(c, dir, m); err != nil {
			return nil, err
		}
	}
	args := []string{k.program}
	for _, a := range k.args {
		args = append(args, put.Replace(a))
	}
	logPath := filepath.Join(dir, "says.log")
	p, err := pinned.Start(dir, logPath, false, args...)
	if err != nil {
		return nil, err
	}
	if err := waitReady(p, ports[0], logPath); err != nil {
		p.Stop()
		return nil, err
	}
	return &server{Server: p, name: k.name, note: k.note, port: ports[0], tls: ports[1]}, nil
}

// writeFiles writes what a mix asks for as files; the one with variants with its
// gzip form beside it.
func writeFiles(c *config, dir string, m *mix) error {
	pool, err := os.ReadFile(c.pool())
	if err != nil {
		return err
	}
	list := append(slices.Clone(m.warm), request{head: fill(bareHead, path(0, 1024)), from: 0, size: 1024}) // the last is what waitReady asks for
	for _, q := range list {
		name := filepath.Join(dir, "root", filepath.FromSlash(strings.Fields(q.head)[1]))
		if strings.Contains(q.head, "gzip") {
			name += ".gz"
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, pool[q.from:q.from+q.size], 0o644); err != nil {
			return err
		}
	}
	return nil
}
