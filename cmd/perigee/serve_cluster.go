package main

import (
	"path/filepath"
	"strings"

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
