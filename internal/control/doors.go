package control

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/bucket"
	"perigee.example/origin"
)

const (
	// headWait bounds the head of a request, idleWait a connection between two.
	headWait = 10 * time.Second
	idleWait = 2 * time.Minute
	// closeWait is how long requests under way may take when the server ends.
	closeWait = 5 * time.Second
	// maxHeadBytes bounds the head of a request.
	maxHeadBytes = 16 << 10
)

// ServeAdmin serves the control API on l over TLS: a bearer token always, also
// from loopback. It returns when the server is closed, with nil, or cannot go on.
func (s *Server) ServeAdmin(l net.Listener) error {
	return s.serve(tls.NewListener(l, http1(s.ca.tlsConfig())), s.AdminHandler())
}

// ServeLocal serves the control API on a unix socket without a token: who may
// open the file (0600) is the administrator. A process with more to serve there
// mounts LocalHandler itself.
func (s *Server) ServeLocal(l net.Listener) error { return s.serve(l, s.LocalHandler()) }

// ServeBlobs serves blobs to nodes on l over TLS, by their certificates alone.
func (s *Server) ServeBlobs(l net.Listener) error {
	return s.serve(tls.NewListener(l, http1(s.ca.nodeTLS())), http.HandlerFunc(s.blob))
}

// http1 offers HTTP/1.1 alone: these doors have few clients, each with a few
// connections, and a flood of HTTP/2 streams is one thing less to bound.
func http1(c *tls.Config) *tls.Config {
	c.NextProtos = []string{"http/1.1"}
	return c
}

func (s *Server) serve(l net.Listener, h http.Handler) error {
	hs := &http.Server{
		Handler: h, ReadHeaderTimeout: headWait, IdleTimeout: idleWait, MaxHeaderBytes: maxHeadBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.serveMu.Lock()
	if s.closed {
		s.serveMu.Unlock()
		return errors.Join(l.Close(), http.ErrServerClosed)
	}
	s.servers = append(s.servers, hs)
	s.serveMu.Unlock()
	if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// blob answers GET /v1/blobs/sha256-HEX for nodes of the fleet: blobs of sealed
// releases and snapshots of the log only, ranges allowed. Whether the node is still of the fleet is
// asked at each request and again while the body runs.
func (s *Server) blob(w http.ResponseWriter, r *http.Request) {
	if s.peers != nil && isControl(r.TLS) {
		s.peerCall(w, r)
		return
	}
	id, cert, err := feed.PeerID(r.TLS)
	if err != nil || !s.nodes.admit(id, cert) {
		s.log.Warn("blob refused", "from", r.RemoteAddr, "node", id, "err", err)
		http.Error(w, "not a node of this fleet", http.StatusForbidden)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	d, ok := blobOf(r)
	if !ok {
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	ok = s.referenced[d] || slices.Contains(s.snapshotBlobs(), d)
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	c, err := s.findContent(r.Context(), d)
	var away *bucket.Error
	if errors.As(err, &away) {
		s.log.Warn("blob not sent to a node: the bucket cannot be used", "blob", d.String(), "node", id, "err", err)
		http.Error(w, "the bucket cannot be used", http.StatusServiceUnavailable)
		return
	}
	if err != nil {
		s.log.Error("blob of a sealed release is not here: push the site again", "blob", d.String(), "err", err)
		http.NotFound(w, r)
		return
	}
	defer c.Close()
	w.Header().Set("Content-Type", origin.DefaultType)
	w.Header().Set("ETag", `"`+d.String()+`"`)
	serveContent(w, r, c, func(r io.ReadSeeker) io.ReadSeeker {
		return &whileAdmitted{r, func() bool { return s.nodes.admit(id, cert) }}
	})
}

// findContent opens a blob, from another control node if it is not here yet.
func (s *Server) findContent(ctx context.Context, d origin.Digest) (*content, error) {
	c, err := s.openContent(ctx, d)
	var away *bucket.Error
	if err == nil || s.peers == nil || errors.As(err, &away) {
		return c, err
	}
	if err := s.pull(ctx, d); err != nil {
		return nil, err
	}
	return s.openContent(ctx, d)
}

// blobOf is the digest that a request for a blob names.
func blobOf(r *http.Request) (d origin.Digest, ok bool) {
	name, ok := strings.CutPrefix(r.URL.Path, "/v1/blobs/")
	if !ok || r.URL.RawPath != "" {
		return d, false
	}
	d, err := origin.ParseDigest(name)
	return d, err == nil
}

// whileAdmitted ends the body when the node is removed.
type whileAdmitted struct {
	io.ReadSeeker
	ok func() bool
}

func (b *whileAdmitted) Read(p []byte) (int, error) {
	if !b.ok() {
		return 0, errors.New("the node was removed")
	}
	return b.ReadSeeker.Read(p)
}
