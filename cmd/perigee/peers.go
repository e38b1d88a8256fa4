package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"time"

	"perigee.example/edge"
	"perigee.example/feed"
	"perigee.example/internal/config"
	"perigee.example/origin"
)

// peerConnect bounds the way to another edge: beyond, the origin is nearer.
const peerConnect = time.Second

// shields are the edges through which a site's misses are fetched, each with a
// pool of connections that prove both ends by the fleet's certificates. An edge
// without credentials fetches from the origins.
func (p *edgePart) shields(cfg *config.Config, c *config.Site, pools map[string]*origin.Pool) ([]edge.Peer, error) {
	if len(c.Shield) == 0 || p.cred == nil {
		return nil, nil
	}
	var list []edge.Peer
	for _, name := range c.Shield {
		peer := edge.Peer{Name: name}
		if name != p.name {
			pool, err := origin.NewPool(origin.PoolConfig{
				Origins: []string{"https://" + cfg.Edge(name).Peer.String()}, TLS: p.peers.client(name, p.cred.PeerClient(name)),
				ConnectTimeout: peerConnect, TLSTimeout: peerConnect, BetweenTimeout: c.BetweenTimeout,
				// It may have to connect to the origin first.
				HeaderTimeout: c.ConnectTimeout + origin.DefaultTLSTimeout + c.HeaderTimeout,
			})
			if err != nil {
				return nil, err
			}
			pools[c.Name+" through "+name], peer.Transport = pool, &shieldTransport{p.peers, name, pool}
		}
		list = append(list, peer)
	}
	return list, nil
}

// listenPeers opens the door for other edges.
func (p *edgePart) listenPeers(c *config.Edge, serving *sync.WaitGroup) error {
	if !c.Peer.IsValid() || p.cred == nil {
		return nil
	}
	ln, err := p.s.sockets.Listen(config.Network("tcp", c.Peer), c.Peer.String())
	if err != nil {
		return addressInUse(err, "tcp", c.Peer)
	}
	p.s.log.Info("edge listens for other edges", "edge", p.name, "addr", c.Peer)
	serving.Add(1)
	p.s.tasks.start("edge peers", func(ctx context.Context) error {
		defer serving.Done()
		return p.edge.ServePeers(ctx, p.peers.listener(ln, p.cred.PeerServer()), p.verifyPeer)
	})
	return nil
}

// verifyPeer says which edge has connected: another one of perigee.toml, by its
// certificate.
func (p *edgePart) verifyPeer(cs *tls.ConnectionState) (string, error) {
	name, _, err := feed.PeerID(cs)
	if err == nil && (name == p.name || p.s.cfg.Load().Edge(name) == nil) {
		err = fmt.Errorf("node %s is no other edge of this fleet", name)
	}
	return name, err
}

// peerTroubles says where shields are configured and cannot be used.
func (p *edgePart) peerTroubles() []string {
	if p.cred != nil {
		return nil
	}
	cfg := p.s.cfg.Load()
	var list []string
	for _, s := range cfg.Sites {
		if len(s.Shield) > 0 && !slices.Equal(s.Shield, []string{p.name}) {
			list = append(list, fmt.Sprintf("site %s: this edge has no credentials of a node (%s), so it fetches from the origins instead of through %v", s.Name, nodeFile, s.Shield))
		}
	}
	if e := cfg.Edge(p.name); e != nil && e.Peer.IsValid() {
		list = append(list, fmt.Sprintf("edge %s: it has no credentials of a node (%s), so its peer door is closed", p.name, nodeFile))
	}
	return list
}
