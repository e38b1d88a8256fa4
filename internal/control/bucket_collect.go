package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"perigee.example/internal/bucket"
	"perigee.example/origin"
)

const (
	// doomFor is how long a control node keeps out of the way of another one that
	// removes blobs, and removeWait how long that one takes for it at most.
	doomFor    = time.Minute
	removeWait = 30 * time.Second
	// removeAtOnce is how many blobs are removed in one go: few enough for removeWait.
	removeAtOnce = 500
	removers     = 8
	// maxDoomed bounds what one collection removes from the bucket; there is a next.
	maxDoomed = 100_000
)

// begin takes a blob for one that is being sent. While it is being removed, it waits.
func (b *bucketed) begin(ctx context.Context, d origin.Digest) error {
	for {
		b.mu.Lock()
		wait := time.Until(b.doomed[d])
		if wait <= 0 {
			b.sending[d]++
			b.mu.Unlock()
			return nil
		}
		b.mu.Unlock()
		if err := pause(ctx, min(wait, time.Second)); err != nil {
			return err
		}
	}
}

func (b *bucketed) end(d origin.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sending[d]--; b.sending[d] == 0 {
		delete(b.sending, d)
	}
}

func (b *bucketed) isDoomed(d origin.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Until(b.doomed[d]) > 0
}

// doom keeps blobs from being sent, or called stored, for doomFor. Those that are on
// their way, or were written a short time ago, it returns: they must stay.
func (b *bucketed) doom(list []origin.Digest) (stay []origin.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.doomed, func(_ origin.Digest, until time.Time) bool { return time.Until(until) <= 0 })
	for _, d := range list {
		if _, recent := b.recent[d]; recent || b.sending[d] > 0 {
			stay = append(stay, d)
			continue
		}
		b.doomed[d] = time.Now().Add(doomFor)
	}
	return stay
}

// spare ends that.
func (b *bucketed) spare(list []origin.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range list {
		delete(b.doomed, d)
	}
}

// markVital finds out what stays in the folder. Called with mu held.
func (s *Server) markVital(sealed, gone []referral) {
	s.vital = map[origin.Digest]bool{}
	for _, r := range slices.Concat(sealed, gone, s.marking.late) {
		s.vital[r.release] = true
	}
	for k := range s.open {
		s.vital[k.release] = true
	}
	for _, d := range s.snapshotBlobs() {
		s.vital[d] = true
	}
}

// collectBucket looks at all that the bucket has. It removes what nothing needs and was
// written before olderThan, and finds out what is needed and not there.
func (s *Server) collectBucket(ctx context.Context, needed map[origin.Digest]bool, olderThan time.Time, swept *origin.Swept) error {
	begun := s.now()
	if err := s.bucket.ready(ctx, true); err != nil {
		return err
	}
	s.mu.Lock()
	unseen := maps.Clone(s.referenced)
	s.mu.Unlock()
	var old []origin.Blob
	objects, bytes := 0, int64(0)
	for o, err := range s.bucket.List(ctx, bucketBlobs) {
		if err != nil {
			return err
		}
		d, err := origin.ParseDigest(strings.TrimPrefix(o.Key, bucketBlobs))
		if err != nil {
			continue // not ours: never remove what we did not write
		}
		objects, bytes = objects+1, bytes+o.Size
		delete(unseen, d)
		s.bucket.sees(d, o.Written)
		if !needed[d] && o.Written.Before(olderThan) && len(old) < maxDoomed {
			old = append(old, origin.Blob{Digest: d, Size: o.Size})
		}
	}
	s.bucket.looked(begun, unseen, objects, bytes)
	if err := s.allShareIt(ctx); err != nil {
		return err
	}
	if !s.leads(ctx) {
		return nil // the one that leads removes
	}
	for part := range slices.Chunk(old, removeAtOnce) {
		if err := s.removeThere(ctx, part, swept); err != nil {
			return err
		}
	}
	return nil
}

// allShareIt is an error when another control node says that it has no bucket. Files come
// and go all the same, but none of them would remove what is old: the one that leads need
// not have the bucket, and one without does not know what it is about to call stored.
func (s *Server) allShareIt(ctx context.Context) error {
	if s.peers == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	for _, peer := range s.peers.list {
		_, err := s.peers.askPart(ctx, peer, "/v1/doomed", "", nil)
		var refused *peerError
		if errors.As(err, &refused) && refused.status == http.StatusConflict {
			return fmt.Errorf("nothing is removed from the bucket, since not every control node has it: %s: %w", peer.Name, err)
		}
	}
	return nil // one that cannot be asked stops the removal alone
}

// looked notes what a list of the bucket has shown, that began at a time: unseen are
// needed, and were not there.
func (b *bucketed) looked(begun time.Time, unseen map[origin.Digest]bool, objects int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for d, at := range b.recent {
		if begun.Sub(at) > bucketHave || unseen[d] && at.Before(begun) {
			delete(b.recent, d)
		}
	}
	// What was found to be wrong stays so until it is sent again.
	maps.DeleteFunc(b.absent, func(d origin.Digest, wrong time.Time) bool { return wrong.IsZero() })
	for d := range unseen {
		if _, written := b.recent[d]; !written {
			b.absent[d] = time.Time{}
		}
	}
	b.objects, b.bytes, b.listed = objects, bytes, begun
}

// sees notes an object that a list of the bucket shows: it may be written anew since it was
// found to be wrong.
func (b *bucketed) sees(d origin.Digest, written time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wrong, ok := b.absent[d]; ok && written.After(wrong) {
		delete(b.absent, d)
	}
}

// leads reports whether this control node removes what nothing needs from the bucket.
func (s *Server) leads(ctx context.Context) bool {
	if s.c.Cluster == nil {
		return true
	}
	name, _, err := s.feed.Log().Leader(ctx)
	return err == nil && name == s.c.Cluster.Name
}

// removeThere removes blobs from the bucket, unless they are on their way there again: at
// this control node or, which is asked, at another.
func (s *Server) removeThere(ctx context.Context, blobs []origin.Blob, swept *origin.Swept) error {
	ctx, cancel := context.WithTimeoutCause(ctx, removeWait, errors.New("removing old blobs from the bucket takes too long: the rest waits for the next time"))
	defer cancel()
	list := make([]origin.Digest, len(blobs))
	for i, b := range blobs {
		list[i] = b.Digest
	}
	keep := map[origin.Digest]bool{}
	for _, d := range s.bucket.doom(list) {
		keep[d] = true
	}
	defer s.bucket.spare(list)
	if s.peers != nil {
		for _, peer := range s.peers.list {
			theirs, err := s.peers.ask(ctx, peer, "/v1/doomed", "", blobs)
			if err != nil {
				return fmt.Errorf("nothing is removed from the bucket while control node %s cannot be asked: %w", peer.Name, err)
			}
			for _, b := range theirs {
				keep[b.Digest] = true
			}
		}
	}
	s.mu.Lock()
	for _, d := range list {
		keep[d] = keep[d] || s.referenced[d] || s.vital[d]
	}
	s.mu.Unlock()
	blobs = slices.DeleteFunc(blobs, func(b origin.Blob) bool { return keep[b.Digest] })
	err := each(ctx, removers, blobs, func(ctx context.Context, b origin.Blob) error { return s.bucket.Delete(ctx, keyOf(b.Digest)) })
	if err != nil {
		return err
	}
	for _, b := range blobs {
		swept.Removed++
		swept.Bytes += b.Size
	}
	return nil
}

// peerDoomed answers another control node that is about to remove blobs from the bucket:
// those that must stay.
func (s *Server) peerDoomed(blobs []origin.Blob) []origin.Blob {
	list := make([]origin.Digest, len(blobs))
	for i, b := range blobs {
		list[i] = b.Digest
	}
	stay := s.bucket.doom(list)
	s.mu.Lock()
	for _, d := range list {
		if s.pinned[d] > 0 {
			stay = append(stay, d)
		}
	}
	s.mu.Unlock()
	return slices.DeleteFunc(blobs, func(b origin.Blob) bool { return !slices.Contains(stay, b.Digest) })
}

// fillBucket brings what is needed and not in the bucket there: from the folder, as after the
// change from one without a bucket, or from another control node's.
func (s *Server) fillBucket(ctx context.Context) error {
	if s.bucket == nil {
		return nil
	}
	s.mu.Lock()
	wanted := maps.Clone(s.referenced)
	maps.DeleteFunc(wanted, func(d origin.Digest, _ bool) bool { return s.vital[d] })
	s.mu.Unlock()
	todo := map[origin.Digest]bool{}
	_, err := s.blobs.Sweep(func(d origin.Digest) bool {
		if wanted[d] {
			todo[d] = true
		}
		return true
	}, time.Time{})
	if err != nil {
		return err
	}
	s.bucket.mu.Lock()
	for d := range s.bucket.absent {
		todo[d] = true
	}
	s.bucket.waiting = len(todo)
	s.bucket.mu.Unlock()
	var lost atomic.Int64
	err = each(ctx, removers, slices.Collect(maps.Keys(todo)), func(ctx context.Context, d origin.Digest) error {
		err := s.fillOne(ctx, d)
		var away *bucket.Error
		if errors.As(err, &away) {
			return err
		}
		if err != nil {
			lost.Add(1)
			s.log.Debug("blob of a sealed release is neither in the bucket nor here", "blob", d.String(), "err", err)
		}
		s.bucket.mu.Lock()
		s.bucket.waiting--
		s.bucket.mu.Unlock()
		return nil
	})
	if err == nil && lost.Load() > 0 {
		err = fmt.Errorf("%d blobs of sealed releases are neither there nor here: push their sites again", lost.Load())
	}
	return err
}

// fillOne brings one blob into the bucket.
func (s *Server) fillOne(ctx context.Context, d origin.Digest) error {
	size, ok := s.blobs.Has(d)
	if !ok {
		if err := s.pullFromPeers(ctx, d); err != nil {
			return err
		}
		if size, ok = s.blobs.Has(d); !ok {
			return fs.ErrNotExist // somebody has brought it there meanwhile
		}
	}
	return s.intoBucket(ctx, origin.Blob{Digest: d, Size: size})
}

// keepBucket looks after the bucket, as long as ctx lasts: whether it is there, and
// what the control node needs from it to go on.
func (s *Server) keepBucket(ctx context.Context) {
	for {
		if err := s.bucket.ready(ctx, true); err == nil && s.peers == nil { // else attend does
			s.gatherBlobs(ctx)
			s.gatherSnapshot(ctx)
		}
		if pause(ctx, bucketTick) != nil {
			return
		}
	}
}

// sizesThere are the sizes of blobs of releases, from their manifests; nil without a bucket.
func (s *Server) sizesThere() map[origin.Digest]int64 {
	if s.bucket == nil {
		return nil
	}
	s.mu.Lock()
	sealed, gone := s.releases(s.now())
	s.mu.Unlock()
	sizes := map[origin.Digest]int64{}
	for _, r := range append(sealed, gone...) {
		m, err := s.manifest(r.release)
		if err != nil {
			continue // it is missing from the list, as one that is lost
		}
		for _, b := range m.Blobs() {
			sizes[b.Digest] = b.Size
		}
	}
	return sizes
}
