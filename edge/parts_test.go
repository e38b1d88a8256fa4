package edge

import (
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// expectParts asks for several ranges, each of which comes whole, when all that went
// before has come to its end.
func (f *largeFile) expectParts(t *testing.T, w *world, ranges ...byteRange) {
	t.Helper()
	synctest.Wait()
	var specs []string
	for _, r := range ranges {
		specs = append(specs, fmt.Sprintf("%d-%d", r.start, r.start+r.length-1))
	}
	status, h, body, whole := w.get("/film", "Range", "bytes="+strings.Join(specs, ","))
	_, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if status != http.StatusPartialContent || !whole || err != nil {
		t.Errorf("%v: %d, %d octets, whole %v; %v", specs, status, len(body), whole, h)
		return
	}
	parts := multipart.NewReader(strings.NewReader(body), params["boundary"])
	for _, r := range ranges {
		p, err := parts.NextRawPart()
		if err != nil {
			t.Fatal(specs, err)
		}
		got, err := io.ReadAll(p)
		if err != nil || string(got) != string(f.octetsAt(r.start, r.length)) || p.Header.Get("Content-Range") != r.contentRange(f.size) {
			t.Errorf("%v: %.20q, %v; %v", r, got, err, p.Header)
		}
	}
}

// Several ranges of one slice, stored or coming, and of several.
func TestRangesOfOneSlice(t *testing.T) {
	f := newLargeFile(8 << 20)
	slicing(t, f, 16<<20, func(t *testing.T, w *world) {
		f.expect(t, w, "0-9", 0, 10, "stored")
		for range 2 {
			f.expectParts(t, w, byteRange{2000000, 10}, byteRange{2000500, 10}, byteRange{2001000, 10})
			f.expectParts(t, w, byteRange{0, 10}, byteRange{5000000, 10}, byteRange{5001000, 10}, byteRange{7000000, 2000})
		}
	})
}

// A range that needs one slice beyond what is stored, and is no longer than one, is
// answered anew when the representation has changed: that is known before anything
// was said.
func TestPartOfAFileThatChanged(t *testing.T) {
	const border = 3 * sliceBytes
	for _, test := range []struct {
		size  int64
		first string // what is stored
		ask   func(t *testing.T, w *world, f *largeFile)
	}{
		{1000, "0-9", func(t *testing.T, w *world, f *largeFile) { f.expect(t, w, "0-99", 0, 100, "fwd=") }},
		{1000, "0-9", func(t *testing.T, w *world, f *largeFile) { f.expect(t, w, "0-", 0, 1000, "fwd=") }},
		{1000, "0-9", func(t *testing.T, w *world, f *largeFile) { f.expect(t, w, "-1", 999, 1, "fwd=") }},
		{sliceBytes, "500-509", func(t *testing.T, w *world, f *largeFile) { f.expect(t, w, "505-", 505, sliceBytes-505, "fwd=") }},
		{sliceBytes, "500-509", func(t *testing.T, w *world, f *largeFile) { f.expect(t, w, "5-600", 5, 596, "fwd=") }},
		{5000, "0-999", func(t *testing.T, w *world, f *largeFile) { // of what is still coming, several ranges are the whole
			status, h, body, whole := w.get("/film", "Range", "bytes=0-9,2000-2009")
			if !whole || h.Get("Etag") != `"v2"` || status != 206 && (status != 200 || body != string(f.octetsAt(0, f.size))) {
				t.Errorf("several: %d, %d octets, whole %v; %v", status, len(body), whole, h)
			}
		}},
		{8 << 20, fmt.Sprintf("%d-%d", border-9, border-1), func(t *testing.T, w *world, f *largeFile) {
			f.expect(t, w, fmt.Sprintf("%d-%d", border-5, border+4), border-5, 10, "fwd=")
		}},
	} {
		t.Run(test.first, func(t *testing.T) {
			f := newLargeFile(test.size)
			slicing(t, f, 16<<20, func(t *testing.T, w *world) {
				if status, _, _, _ := w.get("/film", "Range", "bytes="+test.first); status != http.StatusPartialContent {
					t.Fatal(status)
				}
				synctest.Wait()
				f.etag.Store(`"v2"`)
				f.shift = 7
				w.client.CloseIdleConnections() // on a new one it does not ask again by itself
				test.ask(t, w, f)
			})
		})
	}
}

// What is longer streams: what is stored of it does not wait for what is not.
func TestStoredPartDoesNotWait(t *testing.T) {
	f := newLargeFile(8 << 20)
	slicing(t, f, 16<<20, func(t *testing.T, w *world) {
		f.expect(t, w, "0-1048575", 0, sliceBytes, "stored")
		f.delay = time.Hour
		began := time.Now()
		r := mustGet("http://shop.test/film")
		r.Header.Set("Range", "bytes=0-1999999")
		resp, err := w.client.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
