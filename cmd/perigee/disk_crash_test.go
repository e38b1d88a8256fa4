package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"perigee.example/internal/txtest"
)

// How often the edge is killed and loses power, and how long it is watched.
// `make soak` asks for a thousand and two hundred (reliability F5, F6).
const (
	envEdgeKills  = "PERIGEE_EDGE_KILLS"
	envEdgeLosses = "PERIGEE_EDGE_LOSSES"
	envEdgeSoak   = "PERIGEE_EDGE_SOAK" // a duration
	envEdgeSeed   = "PERIGEE_EDGE_SEED"
	fewKills      = 30
	fewLosses     = 5
	fewSoak       = 5 * time.Second

	crashClients = 6
	crashPaths   = 200
)

// versioned is an origin whose pages have versions: a POST makes the next one.
// The body of a page names it and its version, from end to end.
type versioned struct {
	mu       sync.Mutex
	versions [crashPaths]int
	floor    [crashPaths]int // acknowledged: an older one is wrong from then on
	asked    atomic.Int64
}

func pagePath(n int) string { return "/page/" + strconv.Itoa(n) }

func pageBody(n, version int) []byte {
	size := 100 + n*n%60_000
	if n%20 == 7 { // beyond a part of a record
		size = 1<<20 + n*4321
	}
	line := fmt.Appendf(nil, "page %d version %d\n", n, version)
	return bytes.Repeat(line, size/len(line)+1)[:size]
}

func (o *versioned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.asked.Add(1)
	n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/page/"))
	if err != nil || n < 0 || n >= crashPaths {
		http.NotFound(w, r)
		return
	}
	o.mu.Lock()
	if r.Method == http.MethodPost {
		o.versions[n]++
	}
	v := o.versions[n]
	o.mu.Unlock()
	if r.Method == http.MethodPost {
		w.Header().Set("Version", strconv.Itoa(v))
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Cache-Control", "max-age=3600")
	w.Header().Set("Etag", fmt.Sprintf(`"%d-%d"`, n, v))
	w.Header().Set("Version", strconv.Itoa(v))
	if r.Header.Get("If-None-Match") == w.Header().Get("Etag") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Write(pageBody(n, v))
}

// crashLoad asks an edge that may be killed at any moment. What it does not get
// whole does not count; what it gets whole must be right.
type crashLoad struct {
	t      *testing.T
	origin *versioned
	addr   string
	dying  atomic.Bool // the edge is being killed, or is not there yet
	right  atomic.Int64
	hits   atomic.Int64
	warm   atomic.Int64 // hits of pages that nobody has asked this process for before
	posts  atomic.Int64
	mu     sync.Mutex
	seen   map[int]bool // asked of this process
}

func (l *crashLoad) client(ctx context.Context, r *rand.Rand) {
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	for ctx.Err() == nil {
		n := r.IntN(crashPaths)
		if r.IntN(3) > 0 {
			n = r.IntN(crashPaths / 10) // some are asked for much more
		}
		method := http.MethodGet
		if r.IntN(40) == 0 {
			method = http.MethodPost
		}
		if err := l.ask(ctx, transport, method, n); err != nil && ctx.Err() == nil && !l.dying.Load() {
			l.t.Error(err)
			return
		}
	}
}

func (l *crashLoad) ask(ctx context.Context, transport *http.Transport, method string, n int) error {
	l.origin.mu.Lock()
	floor := l.origin.floor[n]
	l.origin.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+l.addr+pagePath(n), nil)
	if err != nil {
		return err
	}
	req.Host = "www.example.test"
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, req.URL, err)
	}
	v, verr := strconv.Atoi(resp.Header.Get("Version"))
	switch {
	case resp.StatusCode == http.StatusNoContent && method == http.MethodPost && verr == nil:
		l.origin.mu.Lock()
		l.origin.floor[n] = max(l.origin.floor[n], v)
		l.origin.mu.Unlock()
		l.posts.Add(1)
		return nil
	case resp.StatusCode != http.StatusOK || method != http.MethodGet || verr != nil:
		return fmt.Errorf("%s %s: status %d: %q", method, req.URL, resp.StatusCode, body[:min(len(body), 200)])
	case v < floor:
		l.t.Errorf("%s: version %d, and %d was acknowledged: %v", req.URL, v, floor, resp.Header["Cache-Status"])
	case !bytes.Equal(body, pageBody(n, v)):
		l.t.Errorf("%s: a wrong byte, in %d: %v", req.URL, len(body), resp.Header["Cache-Status"])
	}
	l.right.Add(1)
	if strings.Contains(resp.Header.Get("Cache-Status"), "; hit") {
		l.hits.Add(1)
		l.mu.Lock()
		if !l.seen[n] {
			l.warm.Add(1)
		}
		l.mu.Unlock()
	}
	l.mu.Lock()
	l.seen[n] = true
	l.mu.Unlock()
	return nil
}

// crashRig is an edge with a disk tier, started again and again.
type crashRig struct {
	t      *testing.T
	dir    string // of its configuration
	state  string
	bin    string
	load   *crashLoad
	random *rand.Rand
	slow   time.Duration // the longest start
	round  int
	prefix string // of the shell command that starts it
}

const crashTOML = `version = 1
[log]
access = "off"
[cache]
memory = "8MiB"
disk = "256MiB"
[limit]
misses = 0
[edge.a]
addresses = ["192.0.2.1"]
listen = ["%s"]
[site.www]
hosts = ["www.example.test"]
origins = ["%s"]
`

func newCrashRig(t *testing.T, state string) *crashRig {
	t.Helper()
	seed := uint64(sizeFromEnv(t, envEdgeSeed, int(time.Now().UnixNano())))
	t.Logf("%s=%d", envEdgeSeed, seed)
	bin, err := exec.LookPath("perigee")
	if err != nil {
		t.Fatal(err)
	}
	origin := &versioned{}
	server := httptest.NewServer(origin)
	t.Cleanup(server.Close)
	r := &crashRig{t: t, dir: t.TempDir(), state: state, bin: bin, random: rand.New(rand.NewPCG(seed, 1)),
		load: &crashLoad{t: t, origin: origin, addr: freeAddr(t)}}
	writeFile(t, filepath.Join(r.dir, "perigee.toml"), fmt.Sprintf(crashTOML, r.load.addr, server.URL))
	return r
}

// start starts the edge, and waits until it takes connections unless it is to
// die before that.
func (r *crashRig) start(wait bool) *process {
	r.t.Helper()
	r.round++
	cmd := exec.Command("sh", "-c", r.prefix+`exec "$0" "$@"`, r.bin, "serve", "edge", "a", "--state", r.state)
	cmd.Dir = r.dir
	p, err := startProcess("edge", filepath.Join(r.dir, fmt.Sprintf("edge-%d.log", r.round)), cmd)
	if err != nil {
		r.t.Fatal(err)
	}
	r.load.mu.Lock()
	r.load.seen = map[int]bool{}
	r.load.mu.Unlock()
	if !wait {
		return p
	}
	begun := time.Now()
	ready := func() bool {
		c, err := net.Dial("tcp", r.load.addr)
		if err == nil {
			c.Close()
		}
		return err == nil || p.ended()
	}
	if !poll(eventuallyScript, ready) || p.ended() {
		r.t.Fatalf("the edge does not start:\n%s", p.text())
	}
	r.slow = max(r.slow, time.Since(begun))
	return p
}

// run has clients ask for a while.
func (r *crashRig) run(d time.Duration, then func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range crashClients {
		random := rand.New(rand.NewPCG(r.random.Uint64(), 2))
		wg.Go(func() { r.load.client(ctx, random) })
	}
	time.Sleep(d)
	r.load.dying.Store(true)
	then()
	cancel()
	wg.Wait()
	r.load.dying.Store(false)
}

// until has clients ask until something is so, and no request may fail.
func (r *crashRig) until(so func() bool) {
	r.t.Helper()
	r.run(0, func() {
		r.load.dying.Store(false)
		if !poll(eventuallyScript, so) {
			r.t.Error("what was waited for does not happen")
		}
		r.load.dying.Store(true) // the last requests are cut off
	})
}

// kept reports whether the tier has a file with more in it than its head.
func (r *crashRig) kept() bool {
	names, _ := filepath.Glob(filepath.Join(r.state, "edge", "cache", "*.seg"))
	for _, name := range names {
		b := make([]byte, 256<<10)
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		f.ReadAt(b, 0)
		f.Close()
		if bytes.Count(b, []byte("version")) > 1000 {
			return true
		}
	}
	return false
}

func (r *crashRig) check(p *process) {
	r.t.Helper()
	if text := p.text(); strings.Contains(text, raceReport) || strings.Contains(text, "panic:") {
		r.t.Fatalf("the edge printed:\n%s", text)
	}
}

func (r *crashRig) judge(what string, n int) {
	r.t.Helper()
	l := r.load
	r.t.Logf("%d %s: %d answers right, %d hits, %d of them of what an earlier process had stored; %d acknowledged invalidations; longest start %v",
		n, what, l.right.Load(), l.hits.Load(), l.warm.Load(), l.posts.Load(), r.slow.Round(time.Millisecond))
	if l.warm.Load() == 0 || l.posts.Load() == 0 {
		r.t.Error("nothing of an earlier process was a hit, or nothing was invalidated: this shows nothing")
	}
}

// F5: an edge killed again and again under load, also while it starts: every
// answer is right, and nothing that was invalidated comes back.
func TestEdgeKilled(t *testing.T) {
	t.Parallel()
	r := newCrashRig(t, filepath.Join(t.TempDir(), "state"))
	kills := sizeFromEnv(t, envEdgeKills, fewKills)
	for i := range kills {
		if i%6 == 5 {
			p := r.start(false)
			time.Sleep(time.Duration(r.random.Int64N(int64(200 * time.Millisecond))))
			p.kill()
			r.check(p)
			continue
		}
		p := r.start(true)
		r.run(time.Duration(r.random.Int64N(int64(400*time.Millisecond))), p.kill)
		r.check(p)
		if t.Failed() {
			t.Fatalf("at kill %d", i+1)
		}
		if i%4 == 3 {
			r.rot()
		}
	}
	r.judge("kills", kills)
}

// rot flips bits in the files of the tier (F7).
func (r *crashRig) rot() {
	r.t.Helper()
	names, err := filepath.Glob(filepath.Join(r.state, "edge", "cache", "*.*"))
	if err != nil || len(names) == 0 {
		r.t.Fatalf("the tier has no files: %v", err)
	}
	for range 200 {
		f, err := os.OpenFile(names[r.random.IntN(len(names))], os.O_RDWR, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		info, err := f.Stat()
		if err == nil && info.Size() > 0 {
			var b [1]byte
			at := r.random.Int64N(min(info.Size(), 8<<20)) // what is written is at the start
			_, err = f.ReadAt(b[:], at)
			b[0] ^= 1 << r.random.IntN(8)
			if err == nil {
				_, err = f.WriteAt(b[:], at)
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			r.t.Fatal(err)
		}
	}
}

// F6: an edge whose machine loses power again and again: what was not synced is
// gone, and every answer is right all the same.
func TestEdgePowerLoss(t *testing.T) {
	t.Parallel()
	if !txtest.OwnMounts(t) {
		return
	}
	at := t.TempDir()
	disk, err := txtest.NewDisk(filepath.Join(t.TempDir(), "disk.xfs"), at, 700<<20)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = disk.Unmount() }() // the namespace's end does it, too
	r := newCrashRig(t, filepath.Join(at, "state"))
	losses := sizeFromEnv(t, envEdgeLosses, fewLosses)
	for i := range losses {
		p := r.start(true)
		r.run(time.Duration(r.random.Int64N(int64(2*time.Second))), func() {
			if i%2 == 1 { // between two losses the log is on the disk
				if err := txtest.Tool("sync", "-f", at); err != nil {
					t.Error(err)
				}
			}
			if err := disk.LosePower(); err != nil {
				t.Error(err)
			}
			p.kill()
		})
		r.check(p)
		if err := errors.Join(disk.Unmount(), disk.Mount()); err != nil {
			t.Fatal(err)
		}
		// A machine that starts again has another boot id; this one has not.
		state := filepath.Join(at, "state", "edge", "cache", "state")
		if b, err := os.ReadFile(state); err == nil {
			if err := os.WriteFile(state, bytes.Replace(b, []byte(" open "), []byte(" open x"), 1), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if t.Failed() {
			t.Fatalf("at loss %d", i+1)
		}
	}
	p := r.start(true)
	r.run(time.Second, p.kill)
	l := r.load
	t.Logf("%d losses of power: %d answers right, %d hits, %d acknowledged invalidations; longest start %v", losses, l.right.Load(), l.hits.Load(), l.posts.Load(), r.slow.Round(time.Millisecond))
	if l.posts.Load() == 0 || l.hits.Load() == 0 {
		t.Error("nothing was invalidated, or a hit: this shows nothing")
	}
}

// F10, F11: a disk that is full, one that can only be read, and a limit on the
// size of files cost no request; the log says so once, and it is over by itself.
func TestEdgeFailingDisk(t *testing.T) {
	t.Parallel()
	if !txtest.OwnMounts(t) {
		return
	}
	for _, c := range []struct{ name, mount, limit, cure, stopped, again string }{
		{"full", "size=20m", "", "size=500m", "no space left on device", "writing again"},
		{"read-only", "ro,size=500m", "", "rw", "not there yet", `msg="disk tier"`},
		{"limit of files", "size=500m", "ulimit -f 10000; ", "", "file too large", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			state := t.TempDir()
			at := filepath.Join(state, "edge", "cache")
			if err := errors.Join(os.MkdirAll(at, 0o700), txtest.Tool("mount", "-t", "tmpfs", "-o", c.mount, "none", at)); err != nil {
				t.Skip(err)
			}
			defer func() { txtest.Tool("umount", at) }()
			r := newCrashRig(t, state)
			r.prefix = c.limit
			p := r.start(true)
			r.run(300*time.Millisecond, func() {})
			says := func(text string) func() bool { return func() bool { return strings.Contains(p.text(), text) } }
			r.run(0, func() {
				r.load.dying.Store(false) // no request may fail
				if !poll(eventuallyScript, func() bool { return says(c.stopped)() && r.load.right.Load() >= 50 }) {
					t.Errorf("not in the log: %s; or only %d answers", c.stopped, r.load.right.Load())
				}
			})
			if n := strings.Count(p.text(), "writing has stopped"); n > 1 {
				t.Errorf("said %d times", n)
			}
			if c.cure != "" {
				if err := txtest.Tool("mount", "-o", "remount,"+c.cure, at); err != nil {
					t.Fatal(err)
				}
				if !poll(eventuallyScript, says(c.again)) {
					t.Errorf("not in the log: %s", c.again)
				}
				r.until(func() bool { return r.kept() })
				p.kill()
				r.check(p)
				p = r.start(true)
				r.until(func() bool { return r.load.warm.Load() > 0 && r.load.posts.Load() > 0 })
				r.judge("fault", 1)
			}
			p.kill()
			r.check(p)
		})
	}
}
