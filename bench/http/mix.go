package main

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

const (
	// host is what every request names.
	host = "bench.test"
	// poolBytes is what all bodies are cut from.
	poolBytes = 24 << 20
	bigFrom   = 2 << 20 // where the bodies of 100 KiB and 10 MiB begin
	// catalogue, the Zipf exponent and the sizes are those of the mix with misses.
	catalogue    = 20_000
	exponent     = 0.9
	leastBytes   = 1 << 10
	mostBytes    = 32 << 10
	mostRequests = 400_000 // drawn for a list
	// fillBytes is what the mix with misses stores before all else, in objects of
	// fillObject: a memory of 2 GiB is then full, and each miss takes the place of
	// what is there, as in a cache that has run for an hour. A page that nobody
	// has touched costs ten times what is written to it, and not all take theirs at
	// the same time.
	fillBytes  = 1900 << 20
	fillObject = 10 << 20
	// gzipContent is as long as makes a gzip member of 1 KiB by storing.
	gzipContent = 1024 - 10 - 5 - 5 - 8
)

// chromiumHead is what Chromium 156 sent for a page that had set two cookies, to
// a secure origin; path and host are put in.
//
//go:embed chromium.head
var chromiumHead string

const bareHead = "GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\n\r\n" // as wrk's

func fill(head, path string) string {
	return strings.NewReplacer("{PATH}", path, "{HOST}", host).Replace(head)
}

// request is one request, and the answer it must get: octets of the pool.
type request struct {
	head       string
	from, size int
	unique     bool // the last ten octets of its path are a new number each time
}

// mix is one thing to measure.
type mix struct {
	name, title  string
	conns, depth int
	requests     []request
	warm         []request // asked for once before the first round
	tls          bool
	misses       bool // the share of requests that reach the origin is told
	disk         bool // caches have a tier on disk
}

func mixNames() []string {
	return []string{"bare", "chromium", "100k", "10m", "pipelined", "zipf", "zipfdisk", "tls1k", "tls100k", "memory"}
}

func newMix(c *config, name string) (*mix, error) {
	m := &mix{name: name, depth: 1}
	one := func(head string, size, conns int) {
		from := 4096
		if size > mostBytes {
			from = bigFrom
		}
		m.requests = []request{{head: fill(head, path(from, size)), from: from, size: size}}
		m.warm, m.conns = m.requests, conns
	}
	switch name {
	case "bare":
		m.title = "1 KiB, the head that wrk sends"
		one(bareHead, 1<<10, 64)
	case "chromium":
		m.title = fmt.Sprintf("1 KiB, a head of Chromium (%d octets), Vary: Accept-Encoding, two variants stored", len(chromiumHead))
		varied := fmt.Sprintf("/v/0/1024/%d/%d/x", 1<<20, gzipContent)
		m.requests = []request{{head: fill(chromiumHead, varied), from: 0, size: 1024}}
		m.warm, m.conns = append(m.requests, request{head: fill(bareHead, varied), from: 1 << 20, size: gzipContent}), 64
	case "100k":
		m.title = "100 KiB"
		one(bareHead, 100<<10, 16)
	case "10m":
		m.title = "10 MiB"
		one(bareHead, 10<<20, 4)
	case "pipelined":
		m.title = "1 KiB, 16 requests in one write"
		one(bareHead, 1<<10, 16)
		m.depth = 16
	case "zipf":
		m.title = "1 to 32 KiB, half hits (Zipf 0.9 of 20,000), half misses"
		m.zipf(c.draws, c.fill)
	case "zipfdisk":
		m.title = "the same with a tier on disk"
		m.zipf(c.draws, c.fill)
		m.disk = true
	case "tls1k":
		m.title = "1 KiB by TLS 1.3"
		one(bareHead, 1<<10, 64)
		m.tls = true
	case "tls100k":
		m.title = "100 KiB by TLS 1.3"
		one(bareHead, 100<<10, 16)
		m.tls = true
	}
	for file, list := range map[string][]request{m.file(c): m.requests, m.warmFile(c): m.warm} {
		if err := writeList(file, list); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *mix) file(c *config) string     { return filepath.Join(c.dir, m.name+".list") }
func (m *mix) warmFile(c *config) string { return filepath.Join(c.dir, m.name+".warm") }

func path(from, size int) string { return fmt.Sprintf("/o/%d/%d/%010d", from, size, 0) }

// zipf fills in the mix with misses. Draws are seeded: all servers get the same
// requests, run after run.
func (m *mix) zipf(requests, filled int) {
	r := rand.New(rand.NewPCG(1, 2))
	type object struct{ from, size int }
	objects := make([]object, catalogue)
	below := make([]float64, catalogue)
	sum := 0.0
	for i := range objects {
		objects[i] = object{bigFrom + r.IntN(16<<20), leastBytes + r.IntN(mostBytes-leastBytes+1)}
		sum += math.Pow(float64(i+1), -exponent)
		below[i] = sum
		p := fmt.Sprintf("/o/%d/%d/%010d", objects[i].from, objects[i].size, i)
		m.warm = append(m.warm, request{head: fill(bareHead, p), from: objects[i].from, size: objects[i].size})
	}
	draw := func() int { return min(sort.SearchFloat64s(below, r.Float64()*sum), catalogue-1) }
	for range requests / 2 {
		q := m.warm[draw()]
		o := objects[draw()]
		miss := request{head: fill(bareHead, path(o.from, o.size)), from: o.from, size: o.size, unique: true}
		if r.IntN(2) == 0 {
			m.requests = append(m.requests, q, miss)
		} else {
			m.requests = append(m.requests, miss, q)
		}
	}
	var first []request
	for i := range filled / fillObject {
		p := fmt.Sprintf("/o/%d/%d/%010d", bigFrom, fillObject, i)
		first = append(first, request{head: fill(bareHead, p), from: bigFrom, size: fillObject})
	}
	m.warm = append(first, m.warm...)
	m.conns, m.misses = 32, true
}

// writeList writes requests in the form that httpload reads.
func writeList(file string, list []request) error {
	var b []byte
	for _, q := range list {
		at := 0
		if q.unique {
			at = strings.Index(q.head, " HTTP/1.1") - 10
		}
		le := binary.LittleEndian
		b = le.AppendUint32(le.AppendUint32(b, uint32(len(q.head))), 200)
		b = le.AppendUint64(le.AppendUint64(b, uint64(q.from)), uint64(q.size))
		b = le.AppendUint32(le.AppendUint32(b, uint32(at)), 0)
		b = append(b, q.head...)
		b = append(b, make([]byte, (8-len(q.head)%8)%8)...)
	}
	return os.WriteFile(file, b, 0o644)
}

// poolOctets are seeded random octets; at the start a gzip member of 1 KiB, and
// at 1 MiB what it decodes to.
func poolOctets() []byte {
	var seed [32]byte
	pool := make([]byte, poolBytes)
	if _, err := rand.NewChaCha8(seed).Read(pool); err != nil {
		panic(err) // it never fails
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		panic(err) // the level is one
	}
	w.Write(pool[1<<20 : 1<<20+gzipContent])
	w.Close()
	if b.Len() != 1024 {
		panic(fmt.Sprintf("the gzip member has %d octets", b.Len()))
	}
	copy(pool, b.Bytes())
	return pool
}
