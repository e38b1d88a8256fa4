package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"perigee.example/origin"
)

// manyFiles writes a site whose manifest is long enough for pages.
func manyFiles(t *testing.T, dir string, n int) {
	t.Helper()
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("docs/part-%d/page-%d.bin", i%20, i)] = fmt.Sprintf("page %d", i)
	}
	writeSite(t, dir, files)
}

// The manifest of a large site goes in pages and its small files in batches; the
// second time only what has changed, of both.
func TestLargeSiteIsSentInPagesAndBatches(t *testing.T) {
	f := newFleet(t)
	ctx, dir := t.Context(), t.TempDir() // it syncs some thousand files
	manyFiles(t, dir, 2000)
	sent := func() map[string]int {
		t.Helper()
		lines, err := f.audit.newest(10_000)
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for _, l := range lines.Lines {
			switch {
			case strings.Contains(l.What, "/pages/"):
				n["pages"]++
			case strings.HasSuffix(l.What, "/blobs"):
				n["batches"]++
			case strings.Contains(l.What, "/blobs/"):
				n["blobs"]++
			}
		}
		return n
	}
	first, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir})
	if err != nil || first.Sent != 2000 {
		t.Fatalf("%+v, %v", first, err)
	}
	one := sent()
	if one["pages"] < 5 || one["batches"] != 4 || one["blobs"] != 0 {
		t.Fatalf("sent %v", one)
	}
	writeSite(t, dir, map[string]string{"docs/part-3/page-3.bin": "another"})
	f.restart(t) // what was sent is not forgotten
	second, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir})
	if err != nil || second.Sent != 1 || second.Release == first.Release {
		t.Fatalf("%+v, %v", second, err)
	}
	if two := sent(); two["pages"]-one["pages"] > 2 {
		t.Fatalf("sent %v, then %v", one, two)
	}
}

func TestHostilePagesAreRefused(t *testing.T) {
	f := newFleet(t)
	pages := func(r *http.Request) { r.Header.Set("Content-Type", pageType) }
	d := origin.DigestOf([]byte("x"))
	page := fmt.Sprintf(`{"digest":%q,"size":1}`, d)
	list := func(release origin.Digest, pages ...string) string {
		return fmt.Sprintf(`{"release":%q,"pages":[%s]}`, release, strings.Join(pages, ","))
	}
	const path = "/v1/sites/www/releases"
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"no JSON", "x", 400}, {"unknown field", `{"release":"` + d.String() + `","pages":[],"more":1}`, 400}, {"no pages", list(d), 413},
		{"an empty page", list(d, fmt.Sprintf(`{"digest":%q,"size":0}`, d)), 400}, {"a large page", list(d, fmt.Sprintf(`{"digest":%q,"size":%d}`, d, origin.MaxPageBytes+1)), 400},
		{"too much in all", list(d, strings.Split(strings.Repeat(fmt.Sprintf(`{"digest":%q,"size":%d} `, d, origin.MaxPageBytes), origin.MaxManifestBytes/origin.MaxPageBytes+1), " ")[:origin.MaxManifestBytes/origin.MaxPageBytes+1]...), 413},
		{"a long list", strings.Repeat(" ", maxPageListBytes+1), 413},
	} {
		if code, answer := f.raw(t, "POST", path, c.body, pages); code != c.status {
			t.Errorf("%s: %d %.200s, want %d", c.name, code, answer, c.status)
		}
	}
	// A page that nobody announced, or of another site.
	if code, _ := f.raw(t, "PUT", "/v1/sites/www/pages/"+d.String(), "x", nil); code != 404 {
		t.Errorf("not announced: %d", code)
	}
	if code, answer := f.raw(t, "POST", path, list(d, page), pages); code != 200 || !strings.Contains(answer, "missing_pages") {
		t.Fatalf("%d %s", code, answer)
	}
	if code, _ := f.raw(t, "PUT", "/v1/sites/a/pages/"+d.String(), "x", nil); code != 404 {
		t.Errorf("announced for another site: %d", code)
	}
	if code, _ := f.raw(t, "PUT", "/v1/sites/www/pages/"+d.String(), "y", nil); code != 422 {
		t.Errorf("another content: %d", code)
	}
	if code, answer := f.raw(t, "PUT", "/v1/sites/www/pages/"+d.String(), "x", nil); code != 200 {
		t.Fatalf("%d %s", code, answer)
	}
	// Another site is not told that the page is here.
	if code, answer := f.raw(t, "POST", "/v1/sites/a/releases", list(d, page), pages); code != 200 || !strings.Contains(answer, "missing_pages") {
		t.Errorf("%d %s", code, answer)
	}
	// All pages are here, and are no manifest; and not the one that was named.
	if code, _ := f.raw(t, "POST", path, list(d, page), pages); code != 400 {
		t.Errorf("no manifest: %d", code)
	}
	if code, _ := f.raw(t, "POST", path, list(origin.DigestOf(nil), page), pages); code != 422 {
		t.Errorf("another release: %d", code)
	}
	if code, _ := f.raw(t, "POST", path, strings.Repeat(" ", maxPostBytes+1), nil); code != 413 {
		t.Errorf("a long manifest in one: %d", code)
	}
}

func TestHostileBatchesAreRefused(t *testing.T) {
	f := newFleet(t)
	const text = "<h1>hello</h1>"
	_, manifest, _, blob := page(t, text)
	if code, answer := f.raw(t, "POST", "/v1/sites/www/releases", string(manifest), nil); code != 200 {
		t.Fatal(answer)
	}
	before := len(stored(t, f.dir))
	batch := func(r *http.Request) { r.Header.Set("Content-Type", origin.BatchType) }
	line := origin.BatchLine(origin.Blob{Digest: blob, Size: int64(len(text))})
	other := origin.DigestOf([]byte("other"))
	for _, c := range []struct {
		name, site, body string
		status           int
	}{
		{"not asked for", "www", origin.BatchLine(origin.Blob{Digest: other, Size: 5}) + "other", 404}, {"another site", "a", line + text, 404},
		{"another content", "www", line + "<h1>HELLO</h1>", 422}, {"another size", "www", origin.BatchLine(origin.Blob{Digest: blob, Size: 5}) + "hello", 422},
		{"broken off", "www", line + "<h1>", 400}, {"no batch", "www", "hello", 400}, {"too many", "www", strings.Repeat(line+text, origin.MaxBatchBlobs+1), 400},
	} {
		code, answer := f.raw(t, "PUT", "/v1/sites/"+c.site+"/blobs", c.body, batch)
		if code != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, code, answer, c.status)
		}
	}
	if code, _ := f.raw(t, "PUT", "/v1/sites/www/blobs", line+text, nil); code != 415 {
		t.Errorf("another type: %d", code)
	}
	if got := len(stored(t, f.dir)); got > before+1 { // "too many" begins with a good one
		t.Errorf("%d files are stored, %d before", got, before)
	}
	if code, answer := f.raw(t, "PUT", "/v1/sites/www/blobs", line+text+line+text, batch); code != 200 || answer != "{\"stored\":2}\n" {
		t.Errorf("%d %s", code, answer)
	}
}

// A large file goes on where the connection broke, within one push and in the
// next, also over a restart of the control node.
func TestLargeFileGoesOnWhereItBrokeOff(t *testing.T) {
	f := newFleet(t)
	ctx, dir := t.Context(), t.TempDir()
	big := make([]byte, 40<<20)
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range big {
		big[i] = byte(rng.Uint32())
	}
	if err := os.WriteFile(filepath.Join(dir, "film.mp4"), big, 0o644); err != nil {
		t.Fatal(err)
	}
	d := origin.DigestOf(big)
	var wrote atomic.Int64
	limit := atomic.Int64{}
	limit.Store(15 << 20)
	cut := errors.New("cut")
	c, err := NewClient(ClientConfig{Address: "https://" + f.admin, TokenFile: f.TokenFile(), CAFile: f.CAFile()})
	if err != nil {
		t.Fatal(err)
	}
	transport := c.http.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, f.admin) // it may have moved
		return &cutConn{Conn: conn, wrote: &wrote, limit: &limit, err: cut}, err
	}
	transport.MaxIdleConnsPerHost = -1
	transport.DisableKeepAlives = true
	if _, err := c.Push(ctx, PushOptions{Site: "www", Dir: dir, Channel: "prod"}); err == nil {
		t.Fatal("a push went through a connection that is cut each time")
	}
	had := f.Server.blobs.Partial("www", d)
	if had < 10<<20 || had >= int64(len(big)) {
		t.Fatalf("%d bytes are here", had)
	}
	f.restart(t)
	limit.Store(1 << 40)
	wrote.Store(0)
	out, err := c.Push(ctx, PushOptions{Site: "www", Dir: dir})
	if err != nil || out.Sent != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	if got := wrote.Load(); got > int64(len(big))-had+1<<20 {
		t.Errorf("sent %d bytes, though %d of %d were there", got, had, len(big))
	}
	file, err := f.Server.blobs.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if b, err := io.ReadAll(file); err != nil || !bytes.Equal(b, big) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
}

// cutConn breaks once limit bytes went through all of its kind together.
type cutConn struct {
	net.Conn
	wrote, limit *atomic.Int64
	err          error
}

func (c *cutConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.wrote.Add(int64(n)) > c.limit.Load() {
		c.Conn.Close()
		return n, c.err
	}
	return n, err
}

func TestPartsThatAreRefused(t *testing.T) {
	f := newFleet(t)
	const text = "0123456789"
	_, manifest, _, blob := page(t, text)
	if code, answer := f.raw(t, "POST", "/v1/sites/www/releases", string(manifest), nil); code != 200 {
		t.Fatal(answer)
	}
	put := func(site, content, field string, digest origin.Digest) (int, string) {
		return f.raw(t, "PUT", "/v1/sites/"+site+"/blobs/"+blob.String(), content, func(r *http.Request) {
			r.Header.Set("Content-Range", field)
			r.Header.Set("Repr-Digest", ContentDigest(digest))
		})
	}
	for _, c := range []struct {
		name, site, content, field string
		digest                     origin.Digest
		status                     int
	}{
		{"not to the end", "www", "01234", "bytes 0-4/10", blob, 400}, {"no field", "www", text, "octets 0-9/10", blob, 400}, {"negative", "www", text, "bytes -1-9/10", blob, 400},
		{"no size", "www", text, "bytes 0-9/*", blob, 400}, {"past the end", "www", text, "bytes 10-9/10", blob, 400}, {"huge", "www", text, "bytes 0-9999999999998/9999999999999", blob, 400},
		{"another length", "www", "0123", "bytes 0-9/10", blob, 400}, {"another size", "www", text + "x", "bytes 0-10/11", blob, 422}, {"a gap", "www", "56789", "bytes 5-9/10", blob, 409},
		{"another digest", "www", text, "bytes 0-9/10", origin.DigestOf(nil), 422}, {"another content", "www", "012345678x", "bytes 0-9/10", blob, 422}, {"another site", "a", text, "bytes 0-9/10", blob, 404},
	} {
		if code, answer := put(c.site, c.content, c.field, c.digest); code != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, code, answer, c.status)
		}
	}
	if code, answer := f.raw(t, "GET", "/v1/sites/www/blobs/"+blob.String(), "", nil); code != 200 || !strings.Contains(answer, `"offset":0`) {
		t.Errorf("%d %s", code, answer)
	}
	if code, _ := f.raw(t, "GET", "/v1/sites/a/blobs/"+blob.String(), "", nil); code != 404 {
		t.Errorf("another site: %d", code)
	}
	if code, answer := put("www", text, "bytes 0-9/10", blob); code != 200 {
		t.Errorf("%d %s", code, answer)
	}
}
