package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"perigee.example/internal/bucket"
	"perigee.example/origin"
)

// A bucket, where one is configured, holds every blob; the folder then holds what
// the control node cannot do without (manifests and snapshots, which are in the
// bucket too), and what is on its way there: an upload is verified and synced in
// the folder, sent to the bucket, and only then acknowledged and removed here. The
// bucket is in the place of the second copy.
//
// Several control nodes share it. What one of them calls stored, another must not
// remove; but they do not know each other's pushes. So each calls stored only what is
// sealed, or what was written less than bucketHave ago, and removes only what is
// neither sealed nor was forgotten in the last forgottenFor, and was written more than
// bucketAge ago. A day lies between the two, for pushes that are about to be sealed.
const (
	bucketHave = 48 * time.Hour
	bucketAge  = bucketHave + blobAge
	// heldFor is how long after a release was forgotten its blobs still count as
	// sealed, here, if no collection has found out what is sealed since. It is
	// far from forgottenFor.
	heldFor = 12 * time.Hour
	// maxRecent bounds what is remembered of blobs that were written here: some
	// 60 bytes each. The bucket is asked about others.
	maxRecent = maxOpenBlobs
	// bucketAsks is how many questions about blobs go to the bucket at a time.
	bucketAsks = 32
	// bucketTick is how often the bucket is looked at that has nothing to do.
	bucketTick = 30 * time.Second
	// smallBlob is up to which size a blob is looked at again before it is sent.
	smallBlob = 1 << 20
	// claimPause is how long a bucket that could not be claimed is left alone.
	claimPause = time.Second
)

const (
	bucketBlobs = "blobs/"
	// bucketClaim names the fleet whose blobs these are: another's collection would remove them.
	bucketClaim        = "fleet.json"
	bucketClaimVersion = 1
)

// claim is what stands in bucketClaim.
type claim struct {
	Version int    `json:"version"`
	Fleet   string `json:"fleet"` // hex SHA-256 of its CA's certificate
}

// bucketed is what a control node knows of its bucket.
type bucketed struct {
	*bucket.Bucket
	fleet    string
	log      *slog.Logger
	claiming chan struct{} // has room for the one that looks whose it is

	mu      sync.Mutex
	claimed bool
	refused error // why it is not, since refusedAt
	// triedAt is when it was looked at last.
	refusedAt, triedAt time.Time
	sending            map[origin.Digest]int       // blobs that are on their way there
	doomed             map[origin.Digest]time.Time // blobs that are being removed, until then at most
	recent             map[origin.Digest]time.Time // written here, or seen, at that time
	// absent are blobs that have to be sent again: of sealed releases, that were not there
	// (zero), or that were not what they are to be, at that time.
	absent  map[origin.Digest]time.Time
	listed  time.Time
	objects int
	bytes   int64
	waiting int // blobs in the folder that are to go there
}

// openBucket opens the bucket, if there is one.
func (s *Server) openBucket() error {
	if s.c.Bucket == nil {
		return nil
	}
	b, err := bucket.Open(*s.c.Bucket, s.log)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(s.ca.cert.Raw)
	s.bucket = &bucketed{Bucket: b, fleet: hex.EncodeToString(sum[:]), log: s.log, claiming: make(chan struct{}, 1), sending: map[origin.Digest]int{}, doomed: map[origin.Digest]time.Time{},
		recent: map[origin.Digest]time.Time{}, absent: map[origin.Digest]time.Time{}}
	return nil
}

// keyOf is a blob's object.
func keyOf(d origin.Digest) string { return bucketBlobs + d.String() }

// ready makes sure that the bucket is this fleet's, at the first call that gets
// through, and at each anew.
func (b *bucketed) ready(ctx context.Context, anew bool) error {
	if known, err := b.standing(); known && !anew {
		return err
	}
	select {
	case b.claiming <- struct{}{}:
		defer func() { <-b.claiming }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if known, err := b.standing(); known && !anew { // somebody else has just looked
		return err
	}
	err := b.claim(ctx)
	if ctx.Err() != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var other *notOurs
	switch {
	case err == nil:
		b.claimed, b.refused = true, nil
	case errors.As(err, &other):
		if b.claimed || b.refused == nil {
			b.log.Error("the bucket cannot be used: uploads are refused, edges serve what they have", "bucket", b.Where(), "why", other.err.Why, "hint", other.err.Hint)
		}
		b.refuse(err)
	case !b.claimed: // else it stays this fleet's while it is away
		b.refuse(err)
	}
	return err
}

// refuse notes why the bucket may not be used. Called with mu held.
func (b *bucketed) refuse(err error) {
	b.triedAt = time.Now()
	if b.refused == nil {
		b.refusedAt = b.triedAt
	}
	b.claimed, b.refused = false, err
}

// standing is what is known of whose the bucket is; after claimPause a refusal is no more.
func (b *bucketed) standing() (known bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.claimed {
		return true, nil
	}
	return b.refused != nil && time.Since(b.triedAt) < claimPause, b.refused
}

// notOurs is a place in a bucket that this fleet may not use.
type notOurs struct{ err *bucket.Error }

func (e *notOurs) Error() string { return e.err.Error() }
func (e *notOurs) Unwrap() error { return e.err }

func (b *bucketed) notOurs(why, hint string) error {
	return &notOurs{&bucket.Error{Bucket: b.Where(), Op: "read", Key: bucketClaim, Why: why, Hint: hint}}
}

func (b *bucketed) claim(ctx context.Context) error {
	text, err := b.Read(ctx, bucketClaim)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = json.Marshal(claim{bucketClaimVersion, b.fleet}); err != nil {
			return err
		}
		if err := b.Put(ctx, bucketClaim, int64(len(text)), bytes.NewReader(text)); err != nil {
			return err
		}
		text, err = b.Read(ctx, bucketClaim)
	}
	if err != nil {
		return err
	}
	var c claim
	if err := json.Unmarshal(text, &c); err != nil || c.Version != bucketClaimVersion {
		return b.notOurs("it is of another version, or not perigee's", "choose another prefix in [control.bucket]")
	}
	if c.Fleet != b.fleet {
		return b.notOurs("the blobs there are another fleet's, which would remove these", "choose another prefix in [control.bucket]; if that fleet is no more, remove the object "+bucketClaim)
	}
	return nil
}

// note remembers that a blob is in the bucket since a time.
func (b *bucketed) note(d origin.Digest, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.absent, d)
	if _, there := b.recent[d]; there || len(b.recent) < maxRecent {
		b.recent[d] = at
	}
}

// since is when a blob was written, if that is remembered.
func (b *bucketed) since(d origin.Digest) (at time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, ok = b.recent[d]
	return at, ok
}

// lacks notes that a blob is not there, or was not what it is to be at that time.
func (b *bucketed) lacks(d origin.Digest, wrong time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.recent, d)
	b.absent[d] = wrong
}

// isRight notes that a blob was there as it is to be: if it was not before, that has passed.
func (b *bucketed) isRight(d origin.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.absent, d)
}

func (b *bucketed) isAbsent(d origin.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, absent := b.absent[d]
	return absent
}

// stored reports whether a blob of a site need not be sent: it is here, and young again,
// or it is in the bucket, and nobody removes it before the site's push is over.
func (s *Server) stored(ctx context.Context, site string, b origin.Blob) (bool, error) {
	if s.blobs.Keep(b.Digest, b.Size) {
		return true, nil
	}
	if s.bucket == nil || s.bucket.isDoomed(b.Digest) {
		return false, nil
	}
	now := s.now()
	if at, ok := s.bucket.since(b.Digest); ok && now.Sub(at) < bucketHave {
		return true, nil
	}
	if s.bucket.isAbsent(b.Digest) {
		return false, nil
	}
	if s.holds(site, b.Digest, now) {
		return true, nil
	}
	o, err := s.bucket.Head(ctx, keyOf(b.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if o.Size != b.Size || now.Sub(o.Written) >= bucketHave {
		return false, nil
	}
	s.bucket.note(b.Digest, o.Written)
	return true, nil
}

// missingThere is missing for blobs that are in the bucket: some are questions to it.
func (s *Server) missingThere(ctx context.Context, site string, blobs []origin.Blob) (missing []origin.Blob, err error) {
	there := make(map[origin.Digest]bool, len(blobs))
	var mu sync.Mutex
	err = each(ctx, bucketAsks, blobs, func(ctx context.Context, b origin.Blob) error {
		if !s.proved(site, b.Digest) {
			return nil
		}
		ok, err := s.stored(ctx, site, b)
		mu.Lock()
		there[b.Digest] = ok
		mu.Unlock()
		return err
	})
	for _, b := range blobs {
		if !there[b.Digest] {
			missing = append(missing, b)
		}
	}
	return missing, err
}

// missingAtSeal is missing as of all that the control nodes have forgotten until now.
func (s *Server) missingAtSeal(ctx context.Context, site string, blobs []origin.Blob) ([]origin.Blob, error) {
	if s.bucket != nil && s.c.Cluster != nil {
		if err := s.readOn(ctx); err != nil {
			return nil, s.noQuorum(err.Error())
		}
	}
	return s.missing(ctx, site, blobs)
}

// holds reports whether a blob is in a sealed release of a site. When releases were
// forgotten that still count, it says no: the bucket is asked then.
func (s *Server) holds(site string, d origin.Digest, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.forgotSince.IsZero() && now.Sub(s.forgotSince) > heldFor {
		return false
	}
	h := s.held[site]
	if h == nil {
		return false
	}
	_, ok := h.blobs[d]
	return ok
}

// forgot notes that what is held may hold releases that were forgotten, at that
// time. Called as fold is.
func (s *Server) forgot(at time.Time) {
	if s.forgotSince.IsZero() || at.Before(s.forgotSince) {
		s.forgotSince = at
	}
	if m := s.marking; m != nil && (m.forgot.IsZero() || at.Before(m.forgot)) {
		m.forgot = at
	}
}

// intoBucket returns when the bucket has all of the blobs, which are in the folder, or there
// already. What the control node can do without is removed from the folder.
func (s *Server) intoBucket(ctx context.Context, blobs ...origin.Blob) error {
	if err := s.bucket.ready(ctx, false); err != nil {
		return err
	}
	return each(ctx, bucketAsks, blobs, func(ctx context.Context, b origin.Blob) error {
		f, err := s.blobs.Open(b.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another push of it was quicker, or it was there before
		}
		if err != nil {
			return err
		}
		defer f.Close()
		// Written a while ago, it is written again: it is young then.
		if at, there := s.bucket.since(b.Digest); !there || s.now().Sub(at) > bucketHave/2 {
			if err := s.send(ctx, b, f); err != nil {
				return err
			}
		}
		s.mu.Lock()
		stays := s.vital[b.Digest]
		s.mu.Unlock()
		if stays {
			return nil
		}
		return s.blobs.Remove(b.Digest)
	})
}

// send puts a blob of the folder into the bucket.
func (s *Server) send(ctx context.Context, b origin.Blob, f io.ReadSeeker) error {
	if b.Size <= smallBlob { // read anew, so looked at anew
		text, err := io.ReadAll(io.LimitReader(f, smallBlob+1))
		if err != nil {
			return err
		}
		if got := origin.DigestOf(text); got != b.Digest {
			return errors.Join(fmt.Errorf("blob %s has rotted in the folder: its digest is %s now", b.Digest, got), s.blobs.Remove(b.Digest))
		}
		f = bytes.NewReader(text)
	}
	if err := s.bucket.begin(ctx, b.Digest); err != nil {
		return err
	}
	defer s.bucket.end(b.Digest)
	if err := s.bucket.Put(ctx, keyOf(b.Digest), b.Size, f); err != nil {
		return err
	}
	s.bucket.note(b.Digest, s.now())
	return nil
}

// content is a stored blob that can be read once: a file of the folder, or what
// comes from the bucket.
type content struct {
	io.ReadCloser
	size int64
	file io.ReadSeeker // nil: it is not in the folder
}

// openContent opens a blob, where it is. What comes from the bucket is verified: its
// end does not come, and the error is a *origin.MismatchError, unless all of it was right.
func (s *Server) openContent(ctx context.Context, d origin.Digest) (*content, error) {
	f, err := s.blobs.Open(d)
	if err == nil {
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		return &content{f, st.Size(), f}, nil
	}
	if s.bucket == nil || !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := s.bucket.ready(ctx, false); err != nil {
		return nil, err
	}
	r, size, err := s.bucket.Get(ctx, keyOf(d))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			s.bucket.lacks(d, time.Time{})
		}
		return nil, err
	}
	v := newVerified(r, origin.Blob{Digest: d, Size: size}, func(err error) {
		if err == nil {
			s.bucket.isRight(d)
			return
		}
		s.log.Error("the bucket has something else in the place of a blob: push the site again", "blob", d.String(), "err", err)
		s.bucket.lacks(d, s.now())
	})
	return &content{v, size, nil}, nil
}

// fromBucket gets a blob into the folder.
func (s *Server) fromBucket(ctx context.Context, d origin.Digest) error {
	c, err := s.openContent(ctx, d)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.size > MaxBlobBytes {
		return fmt.Errorf("blob %s: the bucket has %d bytes of it", d, c.size)
	}
	if c.file != nil {
		return nil // it came meanwhile
	}
	return s.blobs.Put(d, c.size, c)
}

// serveContent answers with a blob. What comes from the bucket comes whole, whatever range
// was asked for (RFC 9110 §14.2): a part of it could not be verified.
func serveContent(w http.ResponseWriter, r *http.Request, c *content, wrap func(io.ReadSeeker) io.ReadSeeker) {
	if c.file != nil {
		http.ServeContent(w, r, "", time.Time{}, wrap(c.file))
		return
	}
	w.Header().Set("Accept-Ranges", "none")
	w.Header().Set("Content-Length", fmt.Sprint(c.size))
	if r.Method == http.MethodHead {
		return
	}
	// After an error less has come than was announced, so net/http cuts the connection.
	_, _ = io.Copy(w, wrap(noSeek{c}))
}

// noSeek is a reader where one that seeks is wanted and will not.
type noSeek struct{ io.Reader }

func (noSeek) Seek(int64, int) (int64, error) { return 0, errors.ErrUnsupported }
