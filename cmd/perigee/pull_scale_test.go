//go:build linux && !race

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pullSize is how large TestPullScale's films are, and pullMost what the edge may
// take of memory (KiB), which has 32 MiB of store and a disk of 256 MiB.
var (
	smallPull, bigPull = int64(48 << 20), int64(5 << 30)
	pullMost           = int64(160 << 10) // a film may not be in it
)

// film is a representation without end that is nowhere: each 8 octets say where
// they are.
type film struct {
	size, at int64
}

func (f *film) Read(p []byte) (int, error) {
	if f.at >= f.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), f.size-f.at))
	for i := 0; i < n; {
		at := uint64(f.at) + uint64(i)
		word := at / 8 * 0x9e3779b97f4a7c15
		if at%8 == 0 && i+8 <= n {
			binary.LittleEndian.PutUint64(p[i:], word)
			i += 8
			continue
		}
		p[i] = byte(word >> (8 * (at % 8)))
		i++
	}
	f.at += int64(n)
	return n, nil
}

func (f *film) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.size
	}
	f.at = offset
	return offset, nil
}

// filmCheck goes over octets of a film, from its start, and tells whether they are right.
type filmCheck struct{ want film }

func (c *filmCheck) Write(p []byte) (int, error) {
	want := make([]byte, len(p))
	if n, _ := c.want.Read(want); n != len(p) || string(want) != string(p) {
		return 0, fmt.Errorf("a wrong octet after %d", c.want.at-int64(n))
	}
	return len(p), nil
}

// TestPullScale: a film that is larger than memory and disk together passes through
// an edge, with a length, in slices and without a length, twice each: every octet
// is right, and the memory of the process stays what it was told to be. It is not
// there with the race detector, which takes memory of its own.
func TestPullScale(t *testing.T) {
	size := smallPull
	if os.Getenv("PERIGEE_BIG") != "" {
		size = bigPull
	}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Content-Type", "video/mp4")
		f := &film{size: size}
		switch r.URL.Path {
		case "/slices":
			w.Header().Set("Etag", `"film"`)
			http.ServeContent(w, r, "", time.Time{}, f)
			return
		case "/plain":
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		io.Copy(w, struct{ io.Reader }{f}) // without a length it goes in chunks
	}))
	t.Cleanup(origin.Close)
	r := newCrashRig(t, t.TempDir())
	config := strings.NewReplacer(`memory = "8MiB"`, `memory = "32MiB"`).Replace(fmt.Sprintf(crashTOML, r.load.addr, origin.URL))
	writeFile(t, filepath.Join(r.dir, "perigee.toml"), config)
	p := r.start(true)
	defer p.kill()
	for _, path := range []string{"/plain", "/slices", "/chunked"} {
		for again := range 2 {
			begun := time.Now()
			if err := pullFilm(r.load.addr, path, size); err != nil {
				t.Fatalf("%s: %v\n%s", path, err, p.text())
			}
			peak := peakKiB(t, p)
			t.Logf("%s, time %d: %d MiB in %v; peak of the edge %d MiB", path, again+1, size>>20, time.Since(begun).Round(time.Millisecond), peak>>10)
			if peak > pullMost {
				t.Errorf("%s: the edge took %d MiB, %d are allowed", path, peak>>10, pullMost>>10)
			}
		}
	}
	r.check(p)
}

// pullFilm fetches a film, and holds each octet against what it should be.
func pullFilm(addr, path string, size int64) error {
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return err
	}
	req.Host = "www.example.test"
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	check := &filmCheck{film{size: size}}
	n, err := io.Copy(bufio.NewWriterSize(check, 64<<10), resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n != size) {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return fmt.Errorf("after %d octets: %w", n, err)
	}
	return nil
}
