// Http measures what an answer by HTTP/1.1 costs: Perigee beside the caches of
// Debian and a C program that only writes what it has in memory.
//
//	go run ./bench/http -perigee bin/perigee [-rounds 3] [-seconds 2] [-mix bare,100k] [-peers perigee,haproxy]
//
// Each server runs pinned to the first processor, the load and the origin to the
// second. The rounds are interleaved, so that a machine whose speed drifts is
// unfair to nobody; before the first, every cache has what will be asked for.
// Every answer is checked. The cost is the processor time of every thread of the
// server and its children, by answers. Absolute figures are of one machine and
// one minute: read the ratios.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"perigee.example/bench/pinned"
)

// config is one run.
type config struct {
	perigee string // the binary
	beside  string // another one, such as that of the commit before
	src     string // folder of the C programs
	dir     string // of everything that is made
	rounds  int
	seconds float64
	draws   int // requests in the list of the mix with misses
	fill    int // octets that are stored before it
	objects int // of the table of memory
	idle    int // connections there
	peers   []string
	mixes   []string
	origin  int // its port
	tls     *http.Client
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("http: ")
	c := config{draws: mostRequests, fill: fillBytes}
	var peers, mixes string
	flag.StringVar(&c.perigee, "perigee", "bin/perigee", "the perigee `binary`")
	flag.StringVar(&c.beside, "beside", "", "another perigee `binary`, to compare with")
	flag.StringVar(&c.src, "src", "bench", "the `folder` of httpfloor.c and httpload.c")
	flag.IntVar(&c.rounds, "rounds", 3, "interleaved rounds")
	flag.Float64Var(&c.seconds, "seconds", 2, "seconds of load for each server in each round")
	flag.IntVar(&c.objects, "objects", 200_000, "stored responses of 1 KiB, for the table of memory")
	flag.IntVar(&c.idle, "idle", 4000, "idle connections, for the table of memory")
	flag.StringVar(&peers, "peers", "", "servers, with commas between them (default: all that are installed)")
	flag.StringVar(&mixes, "mix", "", "what to measure: "+strings.Join(mixNames(), ", ")+" (default: all)")
	flag.Parse()
	c.mixes, c.peers = mixNames(), nil
	if mixes != "" {
		c.mixes = strings.Split(mixes, ",")
	}
	if peers != "" {
		c.peers = strings.Split(peers, ",")
	}
	if c.beside != "" && c.peers != nil {
		c.peers = append(c.peers, "beside")
	}
	if !pinned.Isolate() {
		fmt.Println("no network of our own (it takes root, unshare and ip): TCP is as it is here")
	}
	if err := run(&c); err != nil {
		log.Fatal(err)
	}
}

func run(c *config) (err error) {
	for _, m := range c.mixes {
		if !slices.Contains(mixNames(), m) {
			return fmt.Errorf("-mix %s: want some of %s", m, strings.Join(mixNames(), ", "))
		}
	}
	if c.dir, err = os.MkdirTemp("", "benchhttp-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	if c.perigee, err = filepath.Abs(c.perigee); err != nil {
		return err
	}
	if c.beside != "" {
		if c.beside, err = filepath.Abs(c.beside); err != nil {
			return err
		}
	}
	if err := prepare(c); err != nil {
		return err
	}
	origin, err := startOrigin(c)
	if err != nil {
		return err
	}
	defer origin.Stop()
	for _, name := range c.mixes {
		if name == "memory" {
			err = memory(c)
		} else {
			err = measureMix(c, name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// prepare makes the programs, the octets of all bodies and the certificate.
func prepare(c *config) error {
	for _, name := range []string{"httpfloor", "httpload"} {
		if err := pinned.Compile(c.src, c.dir, name); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.pool(), poolOctets(), 0o644); err != nil {
		return err
	}
	var err error
	c.tls, err = makeCertificate(c.dir)
	return err
}

func (c *config) pool() string { return filepath.Join(c.dir, "pool") }

// startOrigin starts the origin of every cache, beside the load.
func startOrigin(c *config) (*pinned.Server, error) {
	var err error
	if c.origin, err = pinned.FreePort(); err != nil {
		return nil, err
	}
	logPath := filepath.Join(c.dir, "origin.log")
	s, err := pinned.Start(c.dir, logPath, true, filepath.Join(c.dir, "httpfloor"), fmt.Sprint(c.origin), c.pool())
	if err != nil {
		return nil, err
	}
	if err := waitReady(s, c.origin, logPath); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// measureMix starts the servers of a mix, runs its rounds and prints its table.
// Servers are started anew for each mix: what one leaves behind in a cache or a
// heap is not the next one's.
func measureMix(c *config, name string) error {
	m, err := newMix(c, name)
	if err != nil {
		return err
	}
	servers, err := startAll(c, m)
	defer func() {
		for _, s := range servers {
			s.Stop()
		}
	}()
	if err != nil {
		return err
	}
	results := map[string][]sample{}
	for round := range c.rounds + 1 { // the first warms up
		for _, s := range servers {
			r, err := m.measure(c, s, round)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if round > 0 {
				results[s.name] = append(results[s.name], r)
			}
		}
	}
	m.print(os.Stdout, c, servers, results)
	return nil
}

// waitReady waits until a server answers, and says why when it does not.
func waitReady(s *pinned.Server, port int, logPath string) error {
	client := http.Client{Timeout: 2 * time.Second}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && !s.Ended(); {
		req, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d/o/0/1024/0000000000", port), nil)
		if err != nil {
			return err
		}
		req.Host = host
		if res, err := client.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	text, _ := os.ReadFile(logPath)
	return fmt.Errorf("it did not answer within 30 s: %.2000s", text)
}
