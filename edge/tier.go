package edge

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"perigee.example/origin"
)

const (
	// appliedField tells a shield which feed seq its child had applied when the
	// fetch began, and the name of the log up to there; asOfField tells the child as of
	// which seq the answer is. Both are believed only over ServePeers and a Peer's
	// transport, which prove who speaks: on every other path they are removed.
	appliedField = "Perigee-Applied"
	asOfField    = "Perigee-As-Of"
	// maxApplyWait is how long a shield waits to have applied what its child has.
	// Both hear the same feed: what takes longer is an outage.
	maxApplyWait = 200 * time.Millisecond
	// peerDown is how long a shield that could not be reached is passed over.
	peerDown = 5 * time.Second
	// maxShields bounds the shields of a site: choosing hashes each.
	maxShields = 64
)

// Peer is an edge that stands between the others and a site's origin.
type Peer struct {
	Name string
	// Transport sends to that edge's ServePeers. What it brings is believed, so
	// it must prove who answers. Nil is this edge itself.
	Transport http.RoundTripper

	down *atomic.Int64 // unix nanoseconds until which it is passed over
}

// shieldFor is the edge through which key is fetched: of those that are not
// down, the one whose hash with it is highest, so that all edges agree, and one
// that leaves moves its own keys alone. Nil is this edge.
func (s *Site) shieldFor(key string, now time.Time) *Peer {
	var best *Peer
	var high uint64
	for i := range s.Shields {
		p := &s.Shields[i]
		if p.Transport != nil && p.down.Load() > now.UnixNano() {
			continue
		}
		sum := sha256.Sum256([]byte(p.Name + "\x00" + key))
		if score := binary.BigEndian.Uint64(sum[:8]); best == nil || score > high {
			best, high = p, score
		}
	}
	if best == nil || best.Transport == nil {
		return nil
	}
	return best
}

// via is the shield for a request: none for one that a peer sent, so that no
// request takes more than one step whatever the edges think of each other.
func (x *exchange) via() *Peer {
	if x.peer || len(x.site.Shields) == 0 {
		return nil
	}
	return x.site.shieldFor(x.key, x.e.now())
}

// route keeps fetches through a shield apart from those to the origin: a peer's
// request must never wait for one that waits for that peer.
func (x *exchange) route(key string) string {
	if x.via() != nil {
		return key + "\x00via"
	}
	return key
}

// send sends a fetch through its shield, or to the origin: when it has none, or
// it cannot be reached. asOf is what the response is as of (push-design): the
// lower of what was applied here and there when each fetch began.
func (w *fill) send(ctx context.Context, h http.Header) (resp *http.Response, asOf instant, err error) {
	asOf = w.fl.asOf
	if p := w.shield; p != nil {
		through := h.Clone()
		w.e.tellApplied(through, asOf)
		resp, err = p.Transport.RoundTrip(w.request(ctx, through))
		if err == nil && !refusedByPeer[resp.StatusCode] {
			seq, _ := parseSeq(resp.Header[asOfField]) // none: as of the beginning
			asOf.seq = min(asOf.seq, seq)
			return resp, asOf, nil
		}
		if err != nil && ctx.Err() != nil {
			return nil, asOf, err
		}
		if err == nil { // it is reached, and its other sites have no trouble
			resp.Body.Close()
			w.e.log.Warn("shield refuses what it is configured for here: fetched otherwise", "shield", p.Name, "site", w.site.Name, "status", resp.StatusCode)
		} else {
			w.e.log.Warn("shield cannot be reached: its keys are fetched otherwise", "shield", p.Name, "site", w.site.Name, "for", peerDown, "why", err)
			p.down.Store(w.e.now().Add(peerDown).UnixNano())
		}
	}
	resp, err = w.site.Origin.RoundTrip(w.request(ctx, h))
	return resp, asOf, err
}

// refusedByPeer are what an edge answers that does not have the site, since its
// perigee.toml is an older one, or that sees a loop. They are no answers for
// clients; an origin that answers so is asked directly and says it again.
var refusedByPeer = map[int]bool{http.StatusMisdirectedRequest: true, http.StatusLoopDetected: true}

// sendOn sends a request that is passed through: to the origin, or, when it may
// change something, through the shield of its key, which then knows that what
// it had stored is out of date (RFC 9111 §4.4). Such a request goes elsewhere only
// when the shield was not even reached. asOf becomes what the response is as of.
func (x *exchange) sendOn(req *http.Request, asOf instant) (*http.Response, instant, error) {
	p := x.via()
	if p == nil || x.q.safe() {
		resp, err := x.site.Origin.RoundTrip(req)
		return resp, asOf, err
	}
	through := new(http.Request)
	*through = *req
	if req.Body != http.NoBody {
		through.Body = io.NopCloser(req.Body) // a shield that is not reached has not read it
	}
	resp, err := p.Transport.RoundTrip(through)
	if up, ok := errors.AsType[*origin.UpstreamError](err); ok && up.Phase <= origin.PhaseTLS && req.Context().Err() == nil {
		p.down.Store(x.e.now().Add(peerDown).UnixNano())
		resp, err = x.site.Origin.RoundTrip(req)
		return resp, asOf, err
	}
	if err != nil {
		req.Body.Close()
		return nil, asOf, err
	}
	seq, _ := parseSeq(resp.Header[asOfField])
	asOf.seq = min(asOf.seq, seq)
	return resp, asOf, nil
}

// parseSeq reads one line with a seq in digits.
func parseSeq(lines []string) (uint64, bool) {
	if len(lines) != 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(lines[0], 10, 64)
	return n, err == nil
}

// ServePeers answers other edges of the fleet as Serve answers clients; only
// on its connections are a peer's fields believed. ln must be a TLS listener
// that asks for client certificates; verify gets each connection's state and
// returns the name of the edge at its other end, or an error for any other.
func (e *Edge) ServePeers(ctx context.Context, ln net.Listener, verify func(*tls.ConnectionState) (name string, err error)) error {
	s := newServer(e, ln)
	s.verify = verify
	return s.serve(ctx, ln)
}

// fromPeer makes an exchange one with a peer: the scheme and the client are
// those that the peer had. The host is not held against the TLS name, which is
// the peer's own.
func (x *exchange) fromPeer() {
	x.peer = true
	snap := *x.e.snap.Load()
	snap.tls, snap.peer = x.r.Header.Get("X-Forwarded-Proto") == "https", true
	x.snap = &snap
}

// peerClient is the client's address as a peer tells it.
func peerClient(h http.Header, own string) string {
	if v := h["X-Forwarded-For"]; len(v) == 1 {
		if _, err := netip.ParseAddr(v[0]); err == nil {
			return v[0]
		}
	}
	return own
}

// upToPeer waits until what the peer had applied has been applied here too, and
// reports whether it was the same log. While it has not, or when it was another,
// nothing that is stored here may answer the peer, since it may have been purged.
func (x *exchange) upToPeer() bool {
	seq, log, ok := parseApplied(x.r.Header[appliedField])
	if !ok {
		return false
	}
	timer := time.NewTimer(maxApplyWait)
	defer timer.Stop()
	for {
		more := x.e.appliedMore()
		if x.e.applied.Load() >= seq {
			return x.e.sameLog(seq, log)
		}
		select {
		case <-more:
		case <-timer.C:
			return false
		case <-x.ctx.Done():
			x.abort()
		}
	}
}

// appliedMore returns a channel that is closed when more of the feed has been applied.
func (e *Edge) appliedMore() <-chan struct{} {
	e.applyMu.Lock()
	defer e.applyMu.Unlock()
	if e.more == nil {
		e.more = make(chan struct{})
	}
	return e.more
}

// raiseApplied notes that the feed, whose log is called log up to there, has been
// applied up to seq; applyMu is held.
func (e *Edge) raiseApplied(seq uint64, log string) {
	e.places.add(seq, log)
	if seq <= e.applied.Load() {
		return
	}
	e.applied.Store(seq)
	if e.more != nil {
		close(e.more)
		e.more = nil
	}
}

// tellPeer adds what only a peer is told: as of when the answer is, and the
// fields that no client gets.
func (x *exchange) tellPeer(asOf instant, from http.Header) {
	if !x.peer {
		return
	}
	if asOf.local < x.e.anewAt.Load() { // its number is of another log
		asOf.seq = 0
	}
	h := x.w.Header()
	h[asOfField] = []string{strconv.FormatUint(asOf.seq, 10)}
	for _, name := range tagFields {
		if lines, ok := from[name]; ok {
			h[name] = lines
		}
	}
	if lines, ok := from[vendorControl]; ok {
		h[vendorControl] = lines
	}
}
