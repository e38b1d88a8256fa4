package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/internal/txtest"
	"perigee.example/origin"
)

// TestConversations plays testdata/http. Every command goes to three edges: one
// behind net/http, one that serves with its own loop over connections in memory,
// and one whose loop makes system calls on real sockets. They must agree.
func TestConversations(t *testing.T) {
	txtest.Run(t, "../testdata/http/*.txtar", openSession)
}

// session plays one conversation inside a synctest bubble, whose clock stands
// still between commands, and beside it on real sockets.
type session struct {
	t     testing.TB
	ask   chan string
	reply chan reply
	done  chan struct{}
	real  *world
}

type reply struct {
	out string
	err error
}

func openSession(tb testing.TB, files map[string][]byte) txtest.Session {
	s := &session{t: tb, ask: make(chan string), reply: make(chan reply), done: make(chan struct{})}
	open := func(t *testing.T, loop bool, l *loopback) *world {
		var adjust func(*Config)
		if len(files) > 0 { // what a release is made of
			adjust = pushSites(t)
		}
		w := makeWorld(t, loop, l, adjust)
		w.files = files
		return w
	}
	s.real = open(tb.(*testing.T), true, &loopback{clock: newClock()})
	go func() {
		defer close(s.done)
		synctest.Test(tb.(*testing.T), func(t *testing.T) {
			worlds := []*world{open(t, false, nil), open(t, true, nil)}
			for cmd := range s.ask {
				out, err := both(worlds, cmd)
				s.reply <- reply{out, err}
			}
			for _, w := range worlds {
				w.stop()
			}
		})
	}()
	return s
}

func (s *session) Do(cmd string) (string, error) {
	s.ask <- cmd
	r := <-s.reply
	real := s.doReal(cmd)
	if err := differ("a bubble", "real sockets", r, real); err != nil {
		return "", err
	}
	return r.out, r.err
}

// doReal runs a command on real sockets.
func (s *session) doReal(cmd string) (r reply) {
	var pause time.Duration
	if d, ok := strings.CutPrefix(cmd, "advance "); ok {
		pause, r.err = time.ParseDuration(d)
	} else {
		r.out, r.err = s.real.do(cmd)
	}
	if err := s.real.loopback.advance(s.real.edge, pause); err != nil {
		s.t.Error(err)
	}
	return r
}

func differ(a, b string, one, other reply) error {
	if one.out == other.out && fmt.Sprint(one.err) == fmt.Sprint(other.err) {
		return nil
	}
	return fmt.Errorf("%s and %s differ:\n%s: %v\n%s\n%s: %v\n%s", a, b, a, one.err, one.out, b, other.err, other.out)
}

func (s *session) Close() error {
	close(s.ask)
	<-s.done
	s.real.stop()
	return nil
}

// both runs a command in both worlds of the bubble, at the same time.
func both(worlds []*world, cmd string) (string, error) {
	if d, ok := strings.CutPrefix(cmd, "advance "); ok {
		pause, err := time.ParseDuration(d)
		time.Sleep(pause)
		return "", err
	}
	var replies [2]reply
	var wg sync.WaitGroup
	for i, w := range worlds {
		wg.Go(func() { replies[i].out, replies[i].err = w.do(cmd) })
	}
	wg.Wait()
	synctest.Wait()
	if err := differ("the handler", "the loop", replies[0], replies[1]); err != nil {
		return "", err
	}
	return replies[0].out, replies[0].err
}

// do runs one command: a request ("GET http://shop.test/a" and its fields), or
//
//	origin GET /a 200 [option …]	what the origin answers from now on
//	origin requests [whole]		what it was asked since the last time
//	activate NAME			the archive's files below NAME/ become www.test's release
//	purge [soft] url URL | prefix URL | tag SITE TAG | site NAME | all
//	behind | caught-up		SetBehind
//	20 GET http://shop.test/a	so many at once; shows the answers that differ
func (w *world) do(cmd string) (string, error) {
	first, rest, _ := strings.Cut(cmd, "\n")
	words := strings.Fields(first)
	switch words[0] {
	case "origin":
		if words[1] == "requests" {
			seen := w.requests(len(words) == 3)
			if len(seen) == 0 {
				return "none", nil
			}
			return strings.Join(seen, "\n"), nil
		}
		return "", w.script(words[1:], rest)
	case "purge":
		return "", w.purge(words[1:])
	case "activate":
		return w.activate(words[1], words[2:]...)
	case "delete-channel":
		w.generation++
		return "", w.edge.releases.Remove(origin.Place(words[1], words[2]), w.generation)
	case "behind", "caught-up":
		w.edge.SetBehind(words[0] == "behind")
		return "", nil
	}
	if n, err := strconv.Atoi(words[0]); err == nil {
		return w.atOnce(n, words[1:], rest)
	}
	r, err := request1(words, rest)
	if err != nil {
		return "", err
	}
	w.asks(1)
	return w.roundTrip(r)
}

func (w *world) script(words []string, rest string) error {
	if len(words) < 3 {
		return errors.New("usage: origin METHOD PATH STATUS [option …]")
	}
	status, err := strconv.Atoi(words[2])
	if err != nil {
		return err
	}
	a := answer{status: status, header: http.Header{}}
	fields, body, _ := strings.Cut("\n"+rest, "\n\n")
	if err := addFields(a.header, fields); err != nil {
		return err
	}
	a.body = body
	for _, option := range words[3:] {
		name, v, _ := strings.Cut(option, "=")
		switch name {
		case "validates":
			a.validates = true
		case "chunked":
			a.chunked = true
		case "refuses":
			a.refuses = true
		case "interim":
			a.interim, err = strconv.Atoi(v)
		case "trailer":
			name, v, _ := strings.Cut(v, ":")
			a.trailer = http.Header{name: {v}}
		case "cut":
			a.cut, err = strconv.Atoi(v)
		case "delay":
			a.delay, err = time.ParseDuration(v)
		case "octets":
			var n int
			n, err = strconv.Atoi(v)
			a.body = strings.Repeat("0123456789", n/10+1)[:n]
		default:
			err = fmt.Errorf("unknown option %s", option)
		}
		if err != nil {
			return err
		}
	}
	w.say(words[0]+" "+words[1], a)
	return nil
}

func (w *world) purge(words []string) error {
	var p Purge
	if words[0] == "soft" {
		p.Soft, words = true, words[1:]
	}
	switch words[0] {
	case "url":
		p.URL = words[1]
	case "prefix":
		p.Prefix = words[1]
	case "tag":
		p.Site, p.Tag = words[1], strings.Join(words[2:], " ")
	case "site":
		p.Site, p.All = words[1], true
	case "all":
		p.All = true
	}
	return w.edge.Purge(p)
}

// pushSites adds a pushed site, and one that is pushed and pulled.
func pushSites(t *testing.T) func(*Config) {
	return func(c *Config) {
		blobs, err := origin.OpenBlobs(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		releases, err := origin.OpenReleases(t.TempDir(), blobs)
		if err != nil {
			t.Fatal(err)
		}
		c.Blobs, c.Releases = blobs, releases
		c.Sites = append(c.Sites,
			Site{Name: "www", Hosts: []string{"www.test", "*.www.test"}, Push: true, PreviewsBelow: "www.test", Rules: []ExpiryRule{{Glob: "feeds/*.xml", CacheControl: "public, max-age=300"}}},
			Site{Name: "both", Hosts: []string{"both.test"}, Push: true, PreviewsBelow: "both.test", Origin: c.Sites[0].Origin})
	}
}

// activate makes a release of the files below name/ and activates it on both
// pushed sites, or in a preview of them.
func (w *world) activate(name string, channel ...string) (string, error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for path, data := range w.files {
		path, ok := strings.CutPrefix(path, name+"/")
		if !ok {
			continue
		}
		file := filepath.Join(dir, filepath.FromSlash(path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
			return "", err
		}
	}
	folder, err := origin.ManifestOf(context.Background(), dir, origin.FolderOptions{})
	if err != nil {
		return "", err
	}
	defer folder.Close()
	m := folder.Manifest
	for _, b := range m.Blobs() {
		f, err := folder.Open(b.Digest)
		if err != nil {
			return "", err
		}
		err = w.edge.blobs.Put(b.Digest, b.Size, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	canonical, id, err := m.Canonical()
	if err != nil {
		return "", err
	}
	if err := w.edge.blobs.Put(id, int64(len(canonical)), bytes.NewReader(canonical)); err != nil {
		return "", err
	}
	w.generation++
	for _, site := range []string{"www", "both"} {
		if len(channel) > 0 {
			site = origin.Place(site, channel[0])
		}
		if err := w.edge.releases.Activate(site, id, w.generation, w.now()); err != nil {
			return "", err
		}
	}
	return releaseID(id), nil
}

func addFields(h http.Header, text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		name, v, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("%q is no field line", line)
		}
		h.Add(name, strings.TrimSpace(v))
	}
	return nil
}

func request1(words []string, rest string) (*http.Request, error) {
	if len(words) != 2 {
		return nil, errors.New("usage: METHOD URL")
	}
	u, err := url.Parse(words[1])
	if err != nil {
		return nil, err
	}
	fields, body, hasBody := strings.Cut("\n"+rest, "\n\n")
	r := &http.Request{Method: words[0], URL: u, Header: http.Header{"User-Agent": {""}}}
	if hasBody {
		r, _ = http.NewRequest(words[0], words[1], strings.NewReader(body))
		r.Header.Set("User-Agent", "")
	}
	return r, addFields(r.Header, fields)
}

func (w *world) atOnce(n int, words []string, rest string) (string, error) {
	start := w.now()
	outs := make([]string, n)
	var wg sync.WaitGroup
	w.asks(n)
	for i := range n {
		r, err := request1(words, rest)
		if err != nil {
			return "", err
		}
		wg.Go(func() {
			if outs[i], err = w.roundTrip(r); err != nil {
				outs[i] = err.Error()
			}
		})
	}
	wg.Wait()
	counts := map[string]int{}
	for _, out := range outs {
		status, _, _ := strings.Cut(out, "\n")
		_, body, _ := strings.Cut(out, "\n\n")
		counts[fmt.Sprintf("%s, body %.40q", status, body)]++
	}
	var b strings.Builder
	fmt.Fprintf(&b, "after %v", w.now().Sub(start))
	for _, out := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "\n%d times %s", counts[out], out)
	}
	return b.String(), nil
}
