// Package edge is a shared HTTP cache (RFC 9111) in front of an origin, the
// server of pushed releases, and the edge's listeners. It knows nothing of DNS.
//
// A hit is a pure function, Hit, over request bytes and a Snapshot. The
// connection loops, the http.Handler and the tests all call it.
package edge

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"time"

	"perigee.example/origin"
)

// Site is one tenant: its host names and where its content comes from.
type Site struct {
	Name  string
	Hosts []string // lower case, without port; "*.example.com" covers one label
	// Origin is where misses are fetched: usually an *origin.Pool. Nil: push only.
	Origin http.RoundTripper
	// Push: paths in the active release are served from it, before Origin.
	Push bool
	// Rules give expiry to pushed paths beyond the classes: first match wins.
	Rules []ExpiryRule
}

// ExpiryRule gives the Cache-Control of pushed paths that match Glob.
type ExpiryRule struct {
	Glob         string
	CacheControl string
}

// Config is what an Edge is made from.
type Config struct {
	Name        string // the edge's name, for Cache-Status and Via; "perigee" when empty
	Sites       []Site
	Releases    *origin.Releases // nil: no push sites
	MemoryBytes int64            // budget of the store; 0 means DefaultMemoryBytes
	Log         *slog.Logger     // events; nil discards
	Access      AccessLog        // one line a request; nil: off
	Now         func() time.Time // nil means time.Now; its monotonic reading is used for ages
}

// AccessLog receives one record a request. It must not block.
type AccessLog interface{ Log(r *AccessRecord) }

// AccessRecord is one served request.
type AccessRecord struct {
	Time        time.Time
	Client      string // address without port
	Site        string
	Method      string
	Host        string
	Path        string // with the query's secrets stripped, control bytes escaped by the writer
	Status      int
	Bytes       int64
	Duration    time.Duration
	Cache       string // hit, miss, stale, pass, release, …
	Release     string
	CacheStatus string
	TLS         *tls.ConnectionState
}
