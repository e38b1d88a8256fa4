// Package origin is where content comes from: Pool, balanced upstreams behind
// an http.RoundTripper; Releases, pushed content by digest over Blobs; and
// Static, a correct origin for a folder of files.
//
// It knows nothing of HTTP caching: that is package edge. It opens no listener
// and reads no configuration file.
//
//	pool, err := origin.NewPool(origin.PoolConfig{Origins: []string{"https://a.example.net", "https://b.example.net"}})
//	client := &http.Client{Transport: pool}
//
//	blobs, err := origin.OpenBlobs("state/blobs")
//	releases, err := origin.OpenReleases("state/releases", blobs)
//	folder, err := origin.ManifestOf(ctx, "public", origin.FolderOptions{}) // hash a folder
//	text, id, err := folder.Manifest.Canonical()                            // id names the release
//	missing := blobs.Missing(folder.Manifest)                 // Put these, and text itself
//	err = releases.Activate("www", id, 1, time.Now())
//	file, release, ok := releases.Site("www").Resolve("index.html", time.Now())
//
// # Limits
//
// A pool has at most MaxOrigins upstreams, 1,024 connections in use to each, and
// sends a request to three of them at most. It speaks HTTP/1.1 to them, by code
// of its own, and reads strictly: a head of 64 KiB, 256 fields and 16 interim
// responses at most. A manifest has
// at most MaxFiles paths of MaxPathBytes, and MaxManifestBytes in its canonical
// form; a site keeps at most MaxKeep releases. What is acknowledged has been
// synced to disk, as far as the disk is honest.
package origin
