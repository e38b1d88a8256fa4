package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"perigee.example/origin"
)

// Collection: releases that their sites no longer keep are forgotten, by an
// entry of the log, and then blobs that nothing needs are removed. A blob is needed
// that is in a sealed release, or in one that was forgotten less than forgottenFor
// ago, or in one that is being pushed, or a snapshot of the log, or that is younger than blobAge. It is
// younger since it was written, and since a push was told that it need not be sent
// (origin.Blobs.Keep, which takes turns with each removal). So between the answer
// that nothing is missing and the seal, which asks again, no blob goes; and from
// the seal on it is in a sealed release.
const (
	// collectEvery is how often that is done, and collectFirst how long after the start.
	collectEvery = time.Hour
	collectFirst = 2 * time.Minute
	// forgottenFor is how long blobs of a forgotten release stay: an edge that is
	// still fetching it, or reads the log from far behind, finds them.
	forgottenFor = 24 * time.Hour
	// blobAge is how long a blob stays that nothing needs: no push takes longer
	// without asking again.
	blobAge = 24 * time.Hour
	// openAge is how long a push is remembered to which nothing was added.
	openAge = 24 * time.Hour
	// lostKeep is how long nothing is forgotten or removed after the log has lost
	// entries: what they needed is not known, and edges may be serving it.
	lostKeep = logHorizon
)

// keepCollecting collects, as long as ctx lasts.
func (s *Server) keepCollecting(ctx context.Context) {
	for wait := collectFirst; pause(ctx, wait) == nil; wait = collectEvery {
		if _, err := s.collect(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("old releases and blobs are not removed", "err", err)
		}
		if err := s.fillBucket(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("blobs are not in the bucket yet", "err", err)
		}
	}
}

// marking is a collection that finds out what is needed.
type marking struct {
	late   []referral // releases that were sealed meanwhile
	forgot time.Time  // when the first was forgotten meanwhile; zero: none
}

// referral is a sealed release of a site with its blobs.
type referral struct {
	site    string
	release origin.Digest
	blobs   []origin.Blob
}

// collect forgets what is due and removes what nothing needs.
func (s *Server) collect(ctx context.Context) (swept origin.Swept, err error) {
	return s.collectAt(ctx, s.now(), s.now().Add(-blobAge))
}

// collectAt does so as of now, and removes blobs older than olderThan: at the
// latest when it begins, since a blob that is called stored meanwhile is young.
func (s *Server) collectAt(ctx context.Context, now, olderThan time.Time) (swept origin.Swept, err error) {
	if !s.collecting.TryLock() {
		return swept, errors.New("a backup begins, or this is being done already: it waits for the next time")
	}
	defer s.collecting.Unlock()
	if err := errors.Join(s.onHold(), s.quorum()); err != nil {
		return swept, err
	}
	s.mu.Lock()
	lost := s.lostAt
	s.mu.Unlock()
	if now.Sub(lost) < lostKeep {
		return swept, fmt.Errorf("the log may have lost entries on %s, so what is needed is not known: until %s later everything stays; push every site again meanwhile, or restore a backup", lost.UTC().Format(time.DateOnly), lostKeep)
	}
	for _, k := range s.known.Load().Sites {
		if !k.Push {
			continue
		}
		out, forgetErr := s.forgetOf(ctx, &k, forgetRequest{}, now)
		if forgetErr != nil { // on a full disk no entry can be written, and blobs can go
			err = fmt.Errorf("releases of site %s are not forgotten: %w", k.Name, forgetErr)
			break
		}
		if out.Seq > 0 {
			s.log.Info("old releases forgotten", "site", k.Name, "releases", len(out.Releases), "seq", out.Seq)
		}
	}
	s.forgetOpen()
	if s.bucket != nil && s.c.Cluster != nil { // what the others need is known up to now
		if readErr := s.readOn(ctx); readErr != nil {
			return swept, errors.Join(err, readErr)
		}
	}
	needed, markErr := s.mark(ctx, now)
	if markErr != nil {
		return swept, errors.Join(err, markErr)
	}
	swept, sweepErr := s.blobs.Sweep(func(d origin.Digest) bool { return needed[d] }, olderThan)
	if sweepErr == nil && s.bucket != nil {
		sweepErr = s.collectBucket(ctx, needed, olderThan.Add(blobAge-bucketAge), &swept)
	}
	if swept.Removed > 0 {
		s.log.Info("old blobs removed", "blobs", swept.Removed, "bytes", swept.Bytes)
	}
	return swept, errors.Join(err, sweepErr, s.blobs.SweepPartials(s.now().Add(-blobAge)), s.forgetProofs())
}

// forgetOpen forgets pushes that were given up, and what they left that is gone.
func (s *Server) forgetOpen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.openOrder[:0]
	for _, k := range s.openOrder {
		if s.now().Sub(s.open[k].touched) > openAge {
			delete(s.open, k)
			continue
		}
		kept = append(kept, k)
	}
	s.openOrder = kept
	for site := range s.unsealed {
		s.unsealed.expire(site, s.now().Add(-s.unsealedFor()))
	}
}

// forgetProofs forgets what sites have sent that is in their sealed releases now, or
// that no push has asked for in openAge.
func (s *Server) forgetProofs() error {
	for _, k := range s.known.Load().Sites {
		err := s.proofs.compact(k.Name, s.now().Add(-openAge), func(d origin.Digest) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			h := s.held[k.Name]
			if h == nil {
				return false
			}
			_, there := h.blobs[d]
			return there
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mark finds out what is needed, and brings what nodes may fetch and what each site
// holds to that. It reads manifests without mu; releases that are sealed
// meanwhile are added at the end, and their blobs are young.
func (s *Server) mark(ctx context.Context, now time.Time) (needed map[origin.Digest]bool, err error) {
	s.mu.Lock()
	s.marking = &marking{}
	sealed, gone := s.releases(now)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.marking = nil
		s.mu.Unlock()
	}()
	needed, holds := map[origin.Digest]bool{}, map[string]*held{}
	for _, r := range sealed {
		m, err := s.manifestOrPull(ctx, r.release)
		if err != nil {
			return nil, fmt.Errorf("site %s: what release %s needs is not known: push it again, or `perigee forget %s %s`: %w", r.site, r.release, r.site, r.release, err)
		}
		r.blobs = m.Blobs()
		r.mark(needed)
		addHeld(holds, r.site, r.blobs)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	for _, r := range gone {
		m, err := s.manifest(r.release)
		if s.bucket != nil { // what it needed is shared with control nodes that had it
			m, err = s.manifestOrPull(ctx, r.release)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // a control node that was away never had it
		}
		if err != nil {
			return nil, fmt.Errorf("forgotten release %s: %w", r.release, err)
		}
		r.blobs = m.Blobs()
		r.mark(needed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.marking.late {
		r.mark(needed)
		addHeld(holds, r.site, r.blobs)
	}
	s.held, s.forgotSince = holds, s.marking.forgot
	s.markVital(sealed, gone)
	maps.DeleteFunc(s.referenced, func(d origin.Digest, _ bool) bool { return !needed[d] })
	for _, d := range s.snapshotBlobs() {
		needed[d] = true
	}
	for d := range s.pinned {
		needed[d] = true
	}
	for k, o := range s.open {
		needed[k.release] = true
		for d := range o.sizes {
			needed[d] = true
		}
	}
	return needed, nil
}

// manifestOrPull is manifest for a release that may have been sealed at another control
// node a moment ago, and has not come here yet.
func (s *Server) manifestOrPull(ctx context.Context, release origin.Digest) (*origin.Manifest, error) {
	m, err := s.manifest(release)
	if !errors.Is(err, fs.ErrNotExist) || s.peers == nil && s.bucket == nil {
		return m, err
	}
	if err := s.pull(ctx, release); err != nil {
		return nil, err
	}
	return s.manifest(release)
}

func (r *referral) mark(needed map[origin.Digest]bool) {
	needed[r.release] = true
	for _, b := range r.blobs {
		needed[b.Digest] = true
	}
}

// releases are those that may be activated, and those that were forgotten a short
// time ago. Called with mu held.
func (s *Server) releases(now time.Time) (sealed, gone []referral) {
	for site, st := range s.state.Sites {
		for i := range st.Releases {
			sealed = append(sealed, referral{site: site, release: st.Releases[i].Release.Release})
		}
		for _, d := range st.activeUnsealed() {
			sealed = append(sealed, referral{site: site, release: d})
		}
		for _, f := range st.Forgotten {
			if now.Sub(f.At) < forgottenFor {
				gone = append(gone, referral{site: site, release: f.Release})
			}
		}
	}
	return sealed, gone
}
