package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"perigee.example/feed"
	"perigee.example/internal/config"
	"perigee.example/internal/control"
)

// memberNames lists the control nodes of a cluster; empty: there is none.
func memberNames(cfg *config.Config) string {
	var names []string
	for _, m := range cfg.Control.Cluster {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}

// memberOf finds which of several control nodes this process is; nil: there is one.
func memberOf(file string, cfg *config.Config, name []string) (*config.ControlMember, error) {
	names := memberNames(cfg)
	switch {
	case names == "" && len(name) > 0:
		return nil, usagef("%s has no control node called %q: it has one, without a name (see cluster in [control])", filepath.Base(file), name[0])
	case names == "":
		return nil, nil
	case len(name) == 0:
		return nil, usagef("%s has several control nodes (%s): say which this is, such as: perigee serve control %s", filepath.Base(file), names, cfg.Control.Cluster[0].Name)
	}
	m := cfg.Control.Member(name[0])
	if m == nil {
		return nil, usagef("%s has no control node called %q; it has: %s", filepath.Base(file), name[0], names)
	}
	return m, nil
}

// joinCluster makes c the configuration of one member: its doors, and for new
// nodes those of all.
func joinCluster(cfg *config.Config, self *config.ControlMember, c *control.Config) {
	cluster := &control.Cluster{Name: self.Name, Listen: self.Addr.String(), First: cfg.Control.Cluster[0].Name}
	var feeds, blobs []string
	for _, m := range cfg.Control.Cluster {
		feeds = append(feeds, m.At(cfg.Control.FeedListen).String())
		blobs = append(blobs, m.At(cfg.Control.BlobListen).String())
		if m.Name != self.Name {
			cluster.Peers = append(cluster.Peers, control.ClusterPeer{Name: m.Name, Cluster: m.Addr.String(), Blobs: blobs[len(blobs)-1]})
		}
	}
	c.Cluster = cluster
	c.FeedListen = self.At(cfg.Control.FeedListen).String()
	c.FeedAddress, c.BlobAddress = strings.Join(feeds, " "), strings.Join(blobs, " ")
}

// joinNATS has the log of c in the NATS cluster of [feed], if there is one.
func joinNATS(cfg *config.Config, c *control.Config) error {
	f := &cfg.Feed
	if len(f.Servers) == 0 {
		return nil
	}
	n := &control.NATS{External: feed.External{Credentials: f.Credentials, Replicas: f.Replicas}}
	for _, u := range f.Servers {
		n.Servers = append(n.Servers, u.String())
	}
	for _, u := range f.Monitoring {
		n.Monitoring = append(n.Monitoring, u.String())
	}
	n.TLS = &tls.Config{}
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return err
		}
		n.TLS.RootCAs = x509.NewCertPool()
		if !n.TLS.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s (feed.ca): it holds no certificate", f.CA)
		}
	}
	if f.Certificate != "" {
		load := func() (*tls.Certificate, error) { // at each connection: it is renewed now and then
			cert, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
			return &cert, err
		}
		if _, err := load(); err != nil {
			return fmt.Errorf("%s and %s (feed.certificate, feed.key): %w", f.Certificate, f.Key, err)
		}
		n.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	if c.Cluster == nil {
		c.Cluster = &control.Cluster{Name: aloneName, First: aloneName}
	}
	c.Cluster.NATS = n
	return nil
}

// aloneName is the name of a control node that has no others.
const aloneName = "control"
