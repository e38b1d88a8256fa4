package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An edge with both tiers, and what may happen to it at the same time: fetches,
// validations, refreshes, evictions, what goes to the disk and comes back from it,
// restarts; and unsafe requests and purges of every kind. Whoever asks after one of
// these was acknowledged gets nothing that is older. A seed draws how long each
// step takes, by the bubble's clock, and so what comes before what.
//
// PERIGEE_EDGE_SEED runs one seed, PERIGEE_EDGE_INTERLEAVINGS that many.
const (
	envInterleavings = "PERIGEE_EDGE_INTERLEAVINGS"
	envSeed          = "PERIGEE_EDGE_SEED"
	fewInterleavings = 25

	modelActors = 5
	modelSteps  = 40 // of each
	modelPages  = 8
)

// modelPage is a page of the origin: each has its own way to be cached.
type modelPage struct {
	version int
	floor   int // acknowledged: an older answer is wrong from then on
}

// A page's number says what it is like.
func modelVaries(n int) bool    { return n == 1 || n == 2 }
func modelValidator(n int) bool { return n != 3 && n != 7 }

// No two versions are of one length: where there is no validator a HEAD would make the
// old one pass for the new (RFC 9111 §4.3.5).
func modelSize(n, version int) int {
	if n == 7 { // beyond what memory keeps: it goes to disk as it passes through
		return 200_000 + version
	}
	return 100 + 5000*n + version
}

func modelControl(n int) string {
	return [...]string{"max-age=3", "max-age=30", "max-age=3, stale-if-error=10", "max-age=30", "max-age=1, stale-while-revalidate=20", "max-age=12", "no-cache", "max-age=30"}[n]
}

// staysStale says that a soft purge lets it be used while it is validated.
func modelStaysStale(n int) bool { return n == 4 }

func modelBody(n, version int) []byte {
	line := fmt.Appendf(nil, "page %d version %d\n", n, version)
	return bytes.Repeat(line, modelSize(n, version)/len(line)+1)[:modelSize(n, version)]
}

// model is what the origin has, what the edge has acknowledged, and the edge.
type model struct {
	t    *testing.T
	seed uint64

	mu      sync.Mutex
	random  *rand.Rand
	pages   [modelPages]modelPage
	seq     uint64
	journal []Purge // as a node keeps it
	edge    *Edge
	dir     string
	life    int // how often it has been started: what an earlier life says does not count
	checked int
	hits    int
	fromOld int // hits of what was on disk
}

// draw is a number below n.
func (m *model) draw(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.random.IntN(n)
}

// pause takes a while, or none.
func (m *model) pause(most time.Duration) {
	if m.draw(3) > 0 {
		time.Sleep(time.Duration(m.draw(int(most))))
	}
}

// RoundTrip implements http.RoundTripper: it is the origin.
func (m *model) RoundTrip(r *http.Request) (*http.Response, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil {
		return nil, err
	}
	m.pause(50 * time.Millisecond)
	m.mu.Lock()
	p := &m.pages[n]
	if r.Method == http.MethodPost {
		p.version++
	}
	v := p.version
	m.mu.Unlock()
	m.pause(50 * time.Millisecond)
	if r.Context().Err() != nil {
		return nil, r.Context().Err()
	}
	h := http.Header{"Cache-Control": {modelControl(n)}, "Version": {strconv.Itoa(v)}, "Cache-Tag": {"all"}}
	resp := &http.Response{StatusCode: http.StatusOK, Header: h, Request: r}
	body := modelBody(n, v)
	switch {
	case r.Method == http.MethodPost && m.draw(2) == 0:
		resp.StatusCode, body = http.StatusNoContent, nil
	case r.Method == http.MethodPost:
		h["Content-Location"] = []string{r.URL.Path}
	}
	if modelVaries(n) {
		h["Vary"] = []string{"Accept-Language"}
	}
	if modelValidator(n) {
		h["Etag"] = []string{fmt.Sprintf(`"%d"`, v)}
		if strings.Contains(r.Header.Get("If-None-Match"), h["Etag"][0]) {
			resp.StatusCode, body = http.StatusNotModified, nil
		}
	}
	resp.ContentLength = int64(len(body))
	if resp.StatusCode == http.StatusOK {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	if r.Method == http.MethodHead {
		body = nil
	}
	resp.Body = &modelReader{m, r.Context(), bytes.NewReader(body)}
	return resp, nil
}

// modelReader is a body that comes in pieces.
type modelReader struct {
	m   *model
	ctx context.Context
	r   *bytes.Reader
}

func (b *modelReader) Read(p []byte) (int, error) {
	b.m.pause(20 * time.Millisecond)
	if b.ctx.Err() != nil {
		return 0, b.ctx.Err()
	}
	return b.r.Read(p[:min(len(p), 30_000)])
}

func (b *modelReader) Close() error { return nil }

// start starts an edge on the folder, as a node does: with what its journal says.
func (m *model) start() {
	e, err := New(Config{Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: m}}, MemoryBytes: 1 << 20, Limits: &Limits{Told: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, Seed: m.seed, Now: func() time.Time {
		if m.seed%2 == 0 {
			runtime.Gosched()
		}
		return time.Now()
	}})
	if err != nil {
		m.t.Fatal(err)
	}
	m.mu.Lock()
	journal, seq := m.journal, m.seq
	m.mu.Unlock()
	for _, p := range journal {
		e.Purge(p)
	}
	e.SetApplied(seq, testLog)
	if err := e.OpenDisk(DiskConfig{Dir: m.dir, Bytes: 16 << 20, SegmentBytes: 4 << 20}); err != nil {
		m.t.Fatal(err)
	}
	m.mu.Lock()
	m.edge = e
	m.mu.Unlock()
}

// restart ends the edge's life: what it says from now on does not count. After a
// kill the next one has what was on disk at that moment.
func (m *model) restart(kill bool) {
	m.mu.Lock()
	m.life++
	old := m.edge
	m.mu.Unlock()
	if kill {
		m.dir = asKilled(m.t, m.dir, filepath.Dir(m.dir))
	}
	old.Close()
	m.start()
}

// now is the edge, its life, and what of a page is acknowledged.
func (m *model) now(n int) (e *Edge, life, floor int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.edge, m.life, m.pages[n].floor
}

// acknowledged says that a page has a floor, if the edge that said so is alive.
func (m *model) acknowledged(n, version, life int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if life == m.life {
		m.pages[n].floor = max(m.pages[n].floor, version)
	}
}

// slowWriter is a client that takes its time.
type slowWriter struct {
	*httptest.ResponseRecorder
	m *model
}

func (w slowWriter) Write(p []byte) (int, error) {
	w.m.pause(10 * time.Millisecond)
	return w.ResponseRecorder.Write(p)
}

// ask sends one request; a response that is cut counts for nothing.
func (m *model) ask(method string, n int) {
	e, life, floor := m.now(n)
	r := httptest.NewRequest(method, fmt.Sprintf("http://s.test/%d", n), nil)
	if modelVaries(n) {
		r.Header.Set("Accept-Language", [...]string{"de", "fr"}[m.draw(2)])
	}
	rec := httptest.NewRecorder()
	cut := false
	func() {
		defer func() {
			p := recover()
			if err, _ := p.(error); p != nil && !errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			cut = p != nil
		}()
		e.ServeHTTP(slowWriter{rec, m}, r)
	}()
	v, err := strconv.Atoi(rec.Header().Get("Version"))
	if cut || err != nil {
		return
	}
	if method == http.MethodPost {
		m.acknowledged(n, v, life)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if life != m.life {
		return
	}
	m.checked++
	status := rec.Header().Get("Cache-Status")
	if strings.Contains(status, "hit") {
		m.hits++
		if strings.Contains(status, "disk") {
			m.fromOld++
		}
	}
	if v < floor {
		m.t.Errorf("seed %d: %s /%d: version %d, and %d was acknowledged: %s", m.seed, method, n, v, floor, status)
	}
	if body, _ := io.ReadAll(rec.Body); method == http.MethodGet && !bytes.Equal(body, modelBody(n, v)) {
		m.t.Errorf("seed %d: /%d: %d octets that are not those of version %d, but %.60q…%.60q: %s", m.seed, n, len(body), v, body, body[max(0, len(body)-60):], status)
	}
}

// purge changes a page, or several, and purges them.
func (m *model) purge() {
	n, soft := m.draw(modelPages), m.draw(2) == 0
	p := Purge{URL: fmt.Sprintf("http://s.test/%d", n), Soft: soft}
	first, last := n, n
	switch m.draw(4) {
	case 0:
		p, first, last = Purge{Site: "s", Tag: "all", Soft: soft}, 0, modelPages-1
	case 1:
		p, first, last = Purge{Site: "s", All: true, Soft: soft}, 0, modelPages-1
	}
	var versions [modelPages]int
	m.mu.Lock()
	e, life := m.edge, m.life
	for n := first; n <= last; n++ {
		m.pages[n].version++
		versions[n] = m.pages[n].version
	}
	if m.random.IntN(2) == 0 {
		m.seq++
		p.Seq = m.seq
		m.journal = append(m.journal, p)
	}
	m.mu.Unlock()
	if err := e.Purge(p); err != nil {
		m.t.Error(err)
	}
	for n := first; n <= last; n++ {
		if !soft || !modelStaysStale(n) {
			m.acknowledged(n, versions[n], life)
		}
	}
}

// step does one thing.
func (m *model) step() {
	n := m.draw(modelPages)
	switch d := m.draw(100); {
	case d < 60:
		m.ask(http.MethodGet, n)
	case d < 66:
		m.ask(http.MethodHead, n)
	case d < 78:
		m.ask(http.MethodPost, n)
	case d < 84:
		m.purge()
	case d < 88: // it changes, and nobody says so
		m.mu.Lock()
		m.pages[n].version++
		m.mu.Unlock()
	case d < 95: // something makes way
		e, _, _ := m.now(n)
		e.store.mu.Lock()
		e.store.evictOne(pages)
		e.store.mu.Unlock()
	default:
		time.Sleep(time.Duration(m.draw(int(3 * time.Second))))
	}
	m.pause(100 * time.Millisecond)
}

// run plays one seed.
func (m *model) run() {
	m.start()
	var wg sync.WaitGroup
	for range modelActors {
		wg.Go(func() {
			for range modelSteps {
				m.step()
			}
		})
	}
	for range 1 + m.draw(3) {
		time.Sleep(time.Duration(m.draw(int(8 * time.Second))))
		m.restart(m.draw(2) == 0)
	}
	wg.Wait()
	m.edge.Close()
	time.Sleep(time.Minute) // for fetches that nobody waits for
}

// fastDir is a folder in memory, where there is one: nothing here loses power.
func fastDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "perigee-edge")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestInterleavings(t *testing.T) {
	count, first := fewInterleavings, rand.Uint64()
	if text := os.Getenv(envInterleavings); text != "" {
		count, _ = strconv.Atoi(text)
	}
	if text := os.Getenv(envSeed); text != "" {
		first, _ = strconv.ParseUint(text, 10, 64)
		count = 1
	}
	checked, hits, fromDisk := 0, 0, 0
	for i := range count {
		m := &model{t: t, seed: first + uint64(i), random: rand.New(rand.NewPCG(first+uint64(i), 3)), dir: filepath.Join(fastDir(t), "0")}
		synctest.Test(t, func(t *testing.T) { m.run() })
		if os.RemoveAll(filepath.Dir(m.dir)); t.Failed() {
			t.Fatalf("%s=%d (the %d. seed)", envSeed, m.seed, i+1)
		}
		checked, hits, fromDisk = checked+m.checked, hits+m.hits, fromDisk+m.fromOld
	}
	t.Logf("%d seeds from %d: %d answers, %d hits, %d of them from the disk", count, first, checked, hits, fromDisk)
	if count >= fewInterleavings && (hits < checked/20 || fromDisk == 0) {
		t.Error("hardly anything was a hit, or from the disk: this shows nothing")
	}
}
