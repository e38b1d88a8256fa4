package origin

import (
	"io"
	"os"
	"time"
)

// Digest is the SHA-256 of a blob or of a canonical manifest.
type Digest [32]byte

// String is "sha256-" and 64 lower-case hex digits.
func (d Digest) String() string { panic("not yet") }

// ParseDigest reads the form of String.
func ParseDigest(s string) (Digest, error) { panic("not yet") }

// File is one path of a manifest.
type File struct {
	Digest Digest
	Size   int64
	Type   string // Content-Type
	Class  string // expiry class: "immutable", "document" or "asset" (push-design, Expiry)
}

// Manifest maps paths to files. Its canonical form (paths sorted, UTF-8 NFC,
// "/"-separated, no empty or ".." segment, no NUL) is JSON; the SHA-256 of
// that is the release's id.
type Manifest struct {
	Version int             // of the format; 1
	Files   map[string]File // keys without a leading slash: "index.html", "img/logo.svg"
}

// Canonical returns the canonical bytes and the release id. It refuses a
// manifest that breaks a rule, naming the path.
func (m *Manifest) Canonical() ([]byte, Digest, error) { panic("not yet") }

// ParseManifest reads canonical bytes, and refuses any other.
func ParseManifest(b []byte) (*Manifest, error) { panic("not yet") }

// Blobs is a folder of blobs by digest. Every write is hashed while it is
// written to a temporary file, synced, renamed, and its folder synced.
type Blobs struct{ stub int }

// OpenBlobs opens or makes the folder, and sweeps temporary files.
func OpenBlobs(dir string) (*Blobs, error) { panic("not yet") }

// Put stores r, which must have this digest and size. On any mismatch nothing is kept.
func (b *Blobs) Put(d Digest, size int64, r io.Reader) error { panic("not yet") }

// Has reports whether the blob is stored, and its size.
func (b *Blobs) Has(d Digest) (size int64, ok bool) { panic("not yet") }

// Open opens a blob for reading.
func (b *Blobs) Open(d Digest) (*os.File, error) { panic("not yet") }

// Releases keeps, for each site of an edge, which release is active and those
// in grace, durably, over one Blobs. A request reads a site's pointer once.
type Releases struct{ stub int }

// OpenReleases opens the state in dir and loads every site's active release;
// it needs no control node.
func OpenReleases(dir string, blobs *Blobs) (*Releases, error) { panic("not yet") }

// Activate makes release (a manifest blob) the active one of site. Every blob
// must be present: else the error names what is missing and nothing changes.
func (r *Releases) Activate(site string, release Digest, generation uint64, at time.Time) error {
	panic("not yet")
}

// Site returns the snapshot of a site's releases, or nil.
func (r *Releases) Site(name string) *SiteReleases { panic("not yet") }

// SiteReleases is an immutable picture of a site: its active release and those
// in grace.
type SiteReleases struct {
	Active     Digest
	Generation uint64
	Manifest   *Manifest
	Grace      []GraceRelease // newest first
}

// GraceRelease is a release that fingerprinted paths still resolve from.
type GraceRelease struct {
	Release  Digest
	Manifest *Manifest
	Until    time.Time
}
