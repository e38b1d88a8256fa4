package origin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cache-Control of a static origin, by class, when StaticOptions has none.
const (
	DefaultStaticCacheControl    = "public, max-age=60"
	DefaultImmutableCacheControl = "public, max-age=31536000, immutable" // RFC 8246
)

const (
	// maxETags bounds how many files' hashes are remembered, at some 300
	// bytes each; beyond, all are forgotten and computed again when needed.
	maxETags = 100_000
	// racyTime is how old a file must be before its hash is remembered: a file
	// changed twice within the granularity of file times would look the same.
	racyTime = 2 * time.Second
	// etagBytes of the digest are in an ETag: 128 bits collide never.
	etagBytes = 16
)

// StaticOptions adjust a static origin.
type StaticOptions struct {
	// CacheControl by class (see Classify); a class that is absent has the
	// default: a minute, or a year and immutable for Immutable.
	CacheControl map[string]string
}

// Static serves the files below root: an origin that a cache in front of it
// can rely on. GET and HEAD; a strong ETag, the hash of the content;
// Last-Modified; conditional and range requests (RFC 9110 §13, §14); types from
// TypeOf and nosniff; Cache-Control by class. A folder without its final slash
// is redirected to it, and with it shows its index.html, never a list.
//
// Nothing outside root is reachable, not by "..", not by any encoding of it,
// not by a symbolic link. Names that begin with a dot are not served, all but
// .well-known at the top. The caller closes root after the handler's last use.
func Static(root *os.Root, o StaticOptions) http.Handler {
	return &static{root: root, o: o, etags: map[string]etag{}}
}

type static struct {
	root *os.Root
	o    StaticOptions

	mu    sync.Mutex
	etags map[string]etag // by file name
}

// etag is a file's remembered hash, and what the file was when it was hashed.
type etag struct {
	st    fs.FileInfo
	value string
}

func (s *static) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	name, folder, ok := fileName(r.URL)
	if !ok {
		notFound(w)
		return
	}
	if !folder {
		st, err := s.root.Stat(name)
		if err == nil && st.IsDir() {
			s.redirect(w, r, name)
			return
		}
	} else if name == "" {
		name = "index.html"
	} else {
		name += "/index.html"
	}
	f, err := openRegular(s.root, name)
	if err != nil {
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EIO) {
			http.Error(w, "the file cannot be read now", http.StatusServiceUnavailable)
			return
		}
		notFound(w) // what exactly is wrong with the name is nobody's business
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil {
		var tag string
		tag, err = s.etag(name, f, st)
		h.Set("ETag", tag)
	}
	if err != nil {
		h.Del("ETag")
		http.Error(w, "the file cannot be read now", http.StatusServiceUnavailable)
		return
	}
	h.Set("Content-Type", TypeOf(name))
	h.Set("Cache-Control", s.cacheControl(name))
	http.ServeContent(w, r, "", st.ModTime(), f)
}

func (s *static) cacheControl(name string) string {
	class := Classify(name)
	if value, ok := s.o.CacheControl[class]; ok {
		return value
	}
	if class == Immutable {
		return DefaultImmutableCacheControl
	}
	return DefaultStaticCacheControl
}

// redirect adds the final slash of a folder. name has no empty first segment,
// so the Location cannot be read as another host's.
func (s *static) redirect(w http.ResponseWriter, r *http.Request, name string) {
	to := url.URL{Path: "/" + name + "/", RawQuery: r.URL.RawQuery}
	w.Header().Set("Cache-Control", s.cacheControl("index.html"))
	http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
}

func notFound(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-cache") // the file may be there in a moment
	http.Error(w, "not found", http.StatusNotFound)
}

// fileName turns a URL's path into a name below the root. folder says that it
// had a final slash. A path that two programs could read in two ways is refused.
func fileName(u *url.URL) (name string, folder, ok bool) {
	raw := strings.ToLower(u.EscapedPath())
	if len(u.Path) > MaxPathBytes || strings.Contains(raw, "%2f") || strings.ContainsAny(u.Path, "\\\x00") {
		return "", false, false
	}
	name, ok = strings.CutPrefix(u.Path, "/")
	if !ok {
		return "", false, false
	}
	if name == "" {
		return "", true, true
	}
	name, folder = strings.CutSuffix(name, "/")
	if !fs.ValidPath(name) || name == "." {
		return "", false, false
	}
	for i, segment := range strings.Split(name, "/") {
		if segment[0] == '.' && (i != 0 || segment != ".well-known") {
			return "", false, false
		}
	}
	return name, folder, true
}

// etag returns the strong ETag of an open file: the start of its hash. It is
// remembered for as long as the file looks the same.
func (s *static) etag(name string, f *os.File, st fs.FileInfo) (string, error) {
	s.mu.Lock()
	have, ok := s.etags[name]
	s.mu.Unlock()
	if ok && os.SameFile(have.st, st) && have.st.Size() == st.Size() && have.st.ModTime().Equal(st.ModTime()) {
		return have.value, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	value := `"` + hex.EncodeToString(h.Sum(nil)[:etagBytes]) + `"`
	after, err := f.Stat()
	if err != nil {
		return "", err
	}
	if after.Size() == st.Size() && after.ModTime().Equal(st.ModTime()) && time.Since(st.ModTime()) > racyTime {
		s.mu.Lock()
		if len(s.etags) >= maxETags {
			clear(s.etags)
		}
		s.etags[name] = etag{st, value}
		s.mu.Unlock()
	}
	return value, nil
}
