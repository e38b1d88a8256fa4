package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

const (
	// maxAsked bounds the blobs of one question to another control node.
	maxAsked = 5000
	// maxAskBytes bounds that question: 110 bytes for each.
	maxAskBytes = 1 << 20
	// peerHeadWait bounds the wait for the head of another control node's answer:
	// it syncs a blob before it answers.
	peerHeadWait = 30 * time.Second
	// askWait bounds one question.
	askWait = 30 * time.Second
)

// peers are the other control nodes' blob doors.
type peers struct {
	list []ClusterPeer
	http *http.Client
	next atomic.Uint32 // who is asked first
}

func newPeers(c *Cluster, config *tls.Config) *peers {
	if c == nil || len(c.Peers) == 0 {
		return nil
	}
	return &peers{list: c.Peers, http: &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: dialWait}).DialContext, TLSClientConfig: config, TLSHandshakeTimeout: dialWait, ResponseHeaderTimeout: peerHeadWait,
			MaxIdleConnsPerHost: uploaders, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// order is every peer, the one first that answered last.
func (p *peers) order() []ClusterPeer {
	n := int(p.next.Load()) % len(p.list)
	return slices.Concat(p.list[n:], p.list[:n])
}

// prefer has a peer asked first from now on.
func (p *peers) prefer(peer ClusterPeer) {
	for i := range p.list {
		if p.list[i] == peer {
			p.next.Store(uint32(i))
		}
	}
}

func (p *peers) do(ctx context.Context, method, url, site string, body io.Reader, size int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	if body != nil && size == 0 {
		req.Body = http.NoBody
	}
	if site != "" {
		req.Header.Set(siteField, site)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		resp.Body.Close()
		return nil, &peerError{resp.StatusCode, fmt.Sprintf("%s: %s", resp.Status, bytes.TrimSpace(b))}
	}
	return resp, nil
}

// peerError is another control node's refusal.
type peerError struct {
	status  int
	message string
}

func (e *peerError) Error() string { return e.message }

// lacks asks a peer which of the blobs that a site has sent it has not.
func (p *peers) lacks(ctx context.Context, peer ClusterPeer, site string, blobs []origin.Blob) (missing []origin.Blob, err error) {
	return p.ask(ctx, peer, "/v1/missing", site, blobs)
}

// ask asks a peer about blobs; it answers some of them.
func (p *peers) ask(ctx context.Context, peer ClusterPeer, path, site string, blobs []origin.Blob) (answer []origin.Blob, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	for part := range slices.Chunk(blobs, maxAsked) {
		some, err := p.askPart(ctx, peer, path, site, part)
		if err != nil {
			return nil, err
		}
		answer = append(answer, some...)
	}
	return answer, nil
}

// askPart is one question.
func (p *peers) askPart(ctx context.Context, peer ClusterPeer, path, site string, blobs []origin.Blob) (answer []origin.Blob, err error) {
	b, err := json.Marshal(blobs)
	if err != nil {
		return nil, err
	}
	resp, err := p.do(ctx, http.MethodPost, "https://"+peer.Blobs+path, site, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	err = decodeStrict(io.LimitReader(resp.Body, maxAskBytes), &answer)
	return answer, err
}

// sent notes that a site has sent blobs, which are here, and sees to the second copy.
func (s *Server) sent(ctx context.Context, site string, blobs ...origin.Blob) error {
	s.arrived(site, blobs...)
	if err := s.proofs.add(site, blobs...); err != nil {
		return err
	}
	return s.secondCopy(ctx, site, blobs...)
}

// secondCopy returns when another control node has synced all of the blobs,
// which are here, and knows whose they are; or when the bucket has them. Alone, and
// without a bucket, it has nothing to do.
func (s *Server) secondCopy(ctx context.Context, site string, blobs ...origin.Blob) error {
	if s.bucket != nil {
		return s.intoBucket(ctx, blobs...)
	}
	if s.peers == nil {
		return nil
	}
	var errs []error
	for _, peer := range s.peers.order() {
		err := s.copyTo(ctx, peer, site, blobs)
		if err == nil {
			s.peers.prefer(peer)
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", peer.Name, err))
	}
	return s.noQuorum("no other control node takes a copy, so it does not count as stored: " + errors.Join(errs...).Error())
}

func (s *Server) copyTo(ctx context.Context, peer ClusterPeer, site string, blobs []origin.Blob) error {
	missing, err := s.peers.lacks(ctx, peer, site, blobs)
	if err != nil {
		return err
	}
	return each(ctx, uploaders, missing, func(ctx context.Context, b origin.Blob) error {
		f, err := s.blobs.Open(b.Digest)
		if err != nil {
			return err
		}
		defer f.Close()
		resp, err := s.peers.do(ctx, http.MethodPut, "https://"+peer.Blobs+"/v1/blobs/"+b.Digest.String(), site, f, b.Size)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}

// pull gets a blob from the bucket, or else from whichever other control node has it: once
// for all who ask for it meanwhile.
func (s *Server) pull(ctx context.Context, d origin.Digest) error {
	return s.pulls.do(ctx, d, func(ctx context.Context) error { return s.pullOnce(ctx, d) })
}

func (s *Server) pullOnce(ctx context.Context, d origin.Digest) error {
	var errs []error
	if s.bucket != nil {
		err := s.fromBucket(ctx, d)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if err := s.pullFromPeers(ctx, d); err != nil {
		return errors.Join(append(errs, err)...)
	}
	return nil
}

// pullFromPeers gets a blob from whichever other control node has it.
func (s *Server) pullFromPeers(ctx context.Context, d origin.Digest) error {
	if s.peers == nil {
		return fmt.Errorf("blob %s: %w", d, fs.ErrNotExist)
	}
	var errs []error
	for _, peer := range s.peers.order() {
		err := s.pullFrom(ctx, peer, d)
		if err == nil {
			s.peers.prefer(peer)
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", peer.Name, err))
	}
	return fmt.Errorf("blob %s: %w", d, errors.Join(errs...))
}

// pullFrom gets a blob from one, which may not stand still for peerHeadWait.
func (s *Server) pullFrom(ctx context.Context, peer ClusterPeer, d origin.Digest) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(peerHeadWait, func() { cancel(errStalled) })
	defer timer.Stop()
	resp, err := s.peers.do(ctx, http.MethodGet, "https://"+peer.Blobs+"/v1/blobs/"+d.String(), "", nil, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.ContentLength < 0 || resp.ContentLength > MaxBlobBytes {
		return errors.New("it does not say how large the blob is")
	}
	return s.blobs.Put(d, resp.ContentLength, &watchedBody{resp.Body, func() { timer.Reset(peerHeadWait) }})
}

// openBlob opens a blob of the folder, into which it comes from the bucket or another
// control node if it is not here yet.
func (s *Server) openBlob(ctx context.Context, d origin.Digest) (io.ReadSeekCloser, error) {
	f, err := s.blobs.Open(d)
	if err == nil || s.peers == nil && s.bucket == nil {
		return f, err
	}
	if err := s.pull(ctx, d); err != nil {
		return nil, err
	}
	return s.blobs.Open(d)
}

// gatherBlobs gets the blobs of releases that were sealed at other control
// nodes. What cannot be had now is tried again.
func (s *Server) gatherBlobs(ctx context.Context) {
	s.mu.Lock()
	list := s.fetching
	s.fetching = nil
	s.mu.Unlock()
	for _, release := range list {
		if !s.sealed(release) {
			continue // forgotten since
		}
		err := s.gatherRelease(ctx, release)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		s.log.Debug("blobs of a release not here yet", "release", release.String(), "err", err)
		s.mu.Lock() // one that nobody has any more must not hold up the others
		s.fetching = append(s.fetching, release)
		s.mu.Unlock()
	}
}

// sealed reports whether some site may activate a release.
func (s *Server) sealed(release origin.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.state.Sites {
		if st.find(release) != nil {
			return true
		}
	}
	return false
}

func (s *Server) gatherRelease(ctx context.Context, release origin.Digest) error {
	f, err := s.openBlob(ctx, release)
	if err != nil {
		return err
	}
	f.Close()
	m, err := s.manifest(release)
	if err != nil {
		return err
	}
	blobs := m.Blobs()
	s.mu.Lock()
	for site, st := range s.state.Sites {
		if st.find(release) != nil {
			s.refer(site, release, blobs)
		}
	}
	s.mu.Unlock()
	if s.bucket != nil {
		return nil // the others are there, or a collection finds out that they are not
	}
	missing := s.blobs.Missing(m) // the others are young now, and spared by a collection that runs
	return each(ctx, uploaders, missing, func(ctx context.Context, b origin.Blob) error { return s.pull(ctx, b.Digest) })
}

// isControl reports whether the other end proved to be a control node of the
// fleet: its certificate has the control node's name and is a server's, which no
// node's is.
func isControl(cs *tls.ConnectionState) bool {
	if cs == nil || !cs.HandshakeComplete || len(cs.VerifiedChains) == 0 || len(cs.VerifiedChains[0]) == 0 {
		return false
	}
	cert := cs.VerifiedChains[0][0]
	return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && cert.VerifyHostname(feed.ServerName) == nil
}

// sentElsewhere notes that a site has sent blobs to the control node that calls, so
// that a push which goes on here need not send them again.
func (s *Server) sentElsewhere(r *http.Request, blobs ...origin.Blob) error {
	site := r.Header.Get(siteField)
	if k, err := s.site(site); err != nil || !k.Push {
		return nil // an older control node says none; or it is not in perigee.toml here
	}
	s.arrived(site, blobs...)
	return s.proofs.add(site, blobs...)
}

// peerQuestion answers what another control node asks about many blobs: which of them
// are not here; which of them must stay in the bucket, where it removes the others.
func (s *Server) peerQuestion(w http.ResponseWriter, r *http.Request) (answer any, ok bool, err error) {
	missing, doomed := r.URL.Path == "/v1/missing", r.URL.Path == "/v1/doomed"
	if r.Method != http.MethodPost || !missing && !doomed {
		return nil, false, nil
	}
	var blobs []origin.Blob
	if err := decodeStrict(http.MaxBytesReader(w, r.Body, maxAskBytes), &blobs); err != nil || len(blobs) > maxAsked {
		return nil, true, refuse(http.StatusBadRequest, "", "%d blobs: %v", len(blobs), err)
	}
	if doomed && s.bucket == nil {
		return nil, true, refuse(http.StatusConflict, "", "it has no bucket: write the same [control.bucket] into its perigee.toml")
	}
	if doomed {
		return s.peerDoomed(blobs), true, nil
	}
	lacking, here := []origin.Blob{}, []origin.Blob{}
	for _, b := range blobs {
		if s.blobs.Keep(b.Digest, b.Size) {
			here = append(here, b)
		} else {
			lacking = append(lacking, b)
		}
	}
	return lacking, true, s.sentElsewhere(r, here...)
}

// peerCall answers another control node at the blob door: GET of any blob, PUT of
// one that it has, its questions, and what is noted here alone.
func (s *Server) peerCall(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, err error) {
		s.log.Warn("call of another control node failed", "call", r.Method+" "+r.URL.Path, "err", err)
		http.Error(w, err.Error(), status)
	}
	answer, ok, err := s.peerQuestion(w, r)
	if !ok {
		answer, ok, err = s.noted(r)
	}
	if ok {
		if err != nil {
			fail(asError(err).Status, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			s.log.Debug("answer not written", "err", err)
		}
		return
	}
	d, ok := blobOf(r)
	switch {
	case !ok:
		http.NotFound(w, r)
	case r.Method == http.MethodPut:
		if r.ContentLength < 0 || r.ContentLength > MaxBlobBytes {
			fail(http.StatusBadRequest, errors.New("the size is not announced, or too much"))
			return
		}
		if err := s.blobs.Put(d, r.ContentLength, s.body(w, r, r.ContentLength+1)); err != nil {
			fail(asError(err).Status, err)
			return
		}
		if err := s.sentElsewhere(r, origin.Blob{Digest: d, Size: r.ContentLength}); err != nil {
			fail(http.StatusInternalServerError, err)
		}
	case r.Method == http.MethodGet:
		c, err := s.openContent(r.Context(), d)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer c.Close()
		serveContent(w, r, c, func(r io.ReadSeeker) io.ReadSeeker { return r })
	default:
		http.Error(w, "only GET, PUT and POST", http.StatusMethodNotAllowed)
	}
}
