package origin_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"perigee.example/origin"
)

// A Pool is an http.RoundTripper: two upstreams behind one http.Client.
func ExamplePool() {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for %s", r.URL.Path, r.Host)
	}))
	defer up.Close()
	down := httptest.NewServer(nil)
	down.Close()

	pool, err := origin.NewPool(origin.PoolConfig{
		Origins: []string{down.URL, up.URL},
		Balance: origin.ActivePassive,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	client := &http.Client{Transport: pool}
	resp, err := client.Get("http://www.example.com/hello")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	// Output: /hello for www.example.com <nil>
}

// A folder becomes a release, is activated, and read back.
func ExampleReleases() {
	dir, err := os.MkdirTemp("", "perigee")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	blobs, err := origin.OpenBlobs(filepath.Join(dir, "blobs"))
	if err != nil {
		log.Fatal(err)
	}
	releases, err := origin.OpenReleases(filepath.Join(dir, "releases"), blobs)
	if err != nil {
		log.Fatal(err)
	}

	page := "<p>Hello\n"
	file := origin.File{Digest: origin.DigestOf([]byte(page)), Size: int64(len(page)), Type: origin.TypeOf("index.html"), Class: origin.Classify("index.html")}
	manifest := origin.Manifest{Version: origin.ManifestVersion, Files: map[string]origin.File{"index.html": file}}
	text, id, err := manifest.Canonical()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(blobs.Put(file.Digest, file.Size, strings.NewReader(page)))
	fmt.Println(blobs.Put(id, int64(len(text)), strings.NewReader(string(text))))
	fmt.Println(releases.Activate("www", id, 1, time.Now()))

	found, _, ok := releases.Site("www").Resolve("index.html", time.Now())
	fmt.Println(found.Type, found.Class, ok)
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// text/html; charset=utf-8 document true
}

// A correct origin for a folder of files.
func ExampleStatic() {
	dir, err := os.MkdirTemp("", "perigee")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "a.css"), []byte("p{}"), 0o600); err != nil {
		log.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()
	w := httptest.NewRecorder()
	origin.Static(root, origin.StaticOptions{}).ServeHTTP(w, httptest.NewRequest("GET", "/a.css", nil))
	fmt.Println(w.Code, w.Header().Get("Content-Type"), w.Header().Get("Cache-Control"))
	// Output: 200 text/css; charset=utf-8 public, max-age=60
}
