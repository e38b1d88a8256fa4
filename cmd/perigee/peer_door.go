package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"perigee.example/feed"
	"perigee.example/origin"
)

// peerDoor knows which certificates of the fleet are good no longer, as the feed
// says, and cuts the connections of edges that come with one.
type peerDoor struct {
	log *slog.Logger

	mu    sync.Mutex
	certs map[string]string // node → hex SHA-256 of its only good one; "": removed
	conns map[net.Conn]peerID
}

// peerID is who is at the other end of a connection.
type peerID struct{ node, cert string }

func newPeerDoor(log *slog.Logger) *peerDoor {
	return &peerDoor{log: log, conns: map[net.Conn]peerID{}}
}

// set takes what the feed says (node.Hooks.Nodes).
func (d *peerDoor) set(certs map[string]string) {
	d.mu.Lock()
	d.certs = certs
	var cut []net.Conn
	for c, id := range d.conns {
		if d.refuses(id) != nil {
			cut = append(cut, c)
			d.log.Warn("the connection of an edge is cut: its certificate is good no longer", "edge", id.node)
		}
	}
	d.mu.Unlock()
	for _, c := range cut {
		_ = c.Close() // it is gone already, or now
	}
}

// refuses says why a peer is refused, or nil. Called with mu held.
func (d *peerDoor) refuses(id peerID) error {
	switch only, told := d.certs[id.node]; {
	case !told || only == id.cert:
		return nil
	case only == "":
		return fmt.Errorf("node %s was removed from the fleet", id.node)
	}
	return fmt.Errorf("node %s has another certificate now", id.node)
}

// removed reports a node that was removed from the fleet.
func (d *peerDoor) removed(node string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	only, told := d.certs[node]
	return told && only == ""
}

// enter lets a peer in, or says why not. conn is closed when that changes.
func (d *peerDoor) enter(conn net.Conn, cs tls.ConnectionState) error {
	cs.HandshakeComplete = true // it is, but for this
	node, cert, err := feed.PeerID(&cs)
	if err != nil {
		return err
	}
	id := peerID{node, sumOf(cert)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refuses(id); err != nil {
		d.log.Warn("edge refused", "from", conn.RemoteAddr().String(), "why", err)
		return err
	}
	d.conns[conn] = id
	return nil
}

func sumOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// listener serves TLS with c to peers that enter.
func (d *peerDoor) listener(ln net.Listener, c *tls.Config) net.Listener {
	outer := c.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		inner := c.Clone()
		inner.VerifyConnection = func(cs tls.ConnectionState) error { return d.enter(hello.Conn, cs) }
		return inner, nil
	}
	return tls.NewListener(&doorListener{ln, d}, outer)
}

// doorListener has the door forget connections that are closed.
type doorListener struct {
	net.Listener
	door *peerDoor
}

func (l *doorListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &doorConn{c, l.door}, nil
}

type doorConn struct {
	net.Conn
	door *peerDoor
}

func (c *doorConn) Close() error {
	c.door.mu.Lock()
	delete(c.door.conns, c)
	c.door.mu.Unlock()
	return c.Conn.Close()
}

// client makes c refuse a peer whose certificate is good no longer.
func (d *peerDoor) client(node string, c *tls.Config) *tls.Config {
	verify := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.refuses(peerID{node, sumOf(cs.PeerCertificates[0])})
	}
	return c
}

// shieldTransport asks a shield, unless it was removed from the fleet: then it
// is asked nothing, by connections that are open neither.
type shieldTransport struct {
	door *peerDoor
	node string
	http.RoundTripper
}

func (t *shieldTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.door.removed(t.node) {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper must
		}
		return nil, &origin.UpstreamError{Upstream: t.node, Phase: origin.PhaseConnect, Err: errors.New("the node was removed from the fleet")}
	}
	return t.RoundTripper.RoundTrip(r)
}
