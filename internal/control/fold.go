package control

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// catchUp folds in what is on the log and not in the state. Called with mu held,
// or before anyone else has the server.
func (s *Server) catchUp(ctx context.Context) error {
	if s.feed.Log().Head().Seq == s.folded.Seq {
		return nil
	}
	if first := s.feed.Log().First(); s.folded.Seq+1 < first {
		if err := s.begin(ctx, first); err != nil {
			return err
		}
	}
	for e, err := range s.feed.Log().Entries(ctx, s.folded.Seq+1) {
		if err != nil {
			return err
		}
		s.fold(e)
	}
	return nil
}

func (s *Server) fold(e feed.Entry) {
	if e.Seq <= s.folded.Seq {
		return
	}
	s.folded = e.Position()
	s.noteEpoch(e)
	command, err := DecodeCommand(e)
	if err != nil {
		s.log.Error("entry of the log left out", "err", err)
		if s.unread == nil {
			s.unread = err
		}
		return
	}
	s.state.apply(e, command)
	switch c := command.(type) {
	case *Release:
		if !s.starting { // then referAll does, when the log has been read
			s.referTo(c.Site, c.Release)
		}
	case *Purge, *Purges:
		for _, p := range PurgesOf(command) {
			s.purged.put(e.Seq, p)
		}
	case *Forget:
		s.forgot(time.UnixMilli(e.At))
	case *SnapshotMade:
		s.took(*c)
	}
}

// noteEpoch notes when entries were lost. Called as catchUp is.
func (s *Server) noteEpoch(e feed.Entry) {
	if at := time.UnixMilli(e.At); e.Kind == feed.KindEpoch && at.After(s.lostAt) {
		s.lostAt = at
	}
}

// referAll notes the blobs of all releases, when the log has been read: not of
// those that it forgets further on.
func (s *Server) referAll() {
	for site, st := range s.state.Sites {
		for i := range st.Releases {
			s.referTo(site, st.Releases[i].Release.Release)
		}
	}
	_, gone := s.releases(s.now())
	for _, r := range gone {
		if m, err := s.manifest(r.release); err == nil {
			r.blobs = m.Blobs()
			r.mark(s.referenced)
		}
	}
}

// referTo notes the blobs of a sealed release whose manifest is to be here.
// Called with mu held.
func (s *Server) referTo(site string, release origin.Digest) {
	m, err := s.manifest(release)
	s.wantBlobs(release)
	if errors.Is(err, os.ErrNotExist) && (s.peers != nil || s.bucket != nil) {
		return // it comes with its blobs, and is referred to then
	}
	if err != nil {
		s.log.Error("manifest of a sealed release cannot be read: nodes cannot fetch it; push it again", "site", site, "release", release.String(), "err", err)
		return
	}
	s.refer(site, release, m.Blobs())
}

// refer notes the blobs of a sealed release: those that nodes may fetch, and
// that its site holds.
func (s *Server) refer(site string, release origin.Digest, blobs []origin.Blob) {
	if s.marking != nil {
		s.marking.late = append(s.marking.late, referral{site, release, blobs})
	}
	s.referenced[release], s.vital[release] = true, true
	for _, b := range blobs {
		s.referenced[b.Digest] = true
	}
	s.unsealed.remove(site, release, blobs)
	addHeld(s.held, site, blobs)
}

// manifest reads a stored manifest.
func (s *Server) manifest(release origin.Digest) (*origin.Manifest, error) {
	f, err := s.blobs.Open(release)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, origin.MaxManifestBytes+1))
	if err != nil {
		return nil, err
	}
	return origin.ParseManifest(b)
}
