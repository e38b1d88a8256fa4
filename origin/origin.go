// Package origin is where content comes from: Pool, balanced upstreams behind
// an http.RoundTripper; Releases, pushed content by digest; and Static, a
// correct origin for a folder of files.
//
// It knows nothing of HTTP caching: that is package edge.
package origin
