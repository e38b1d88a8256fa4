package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
)

// Feed is [feed]: the operator's NATS cluster that holds the log, if there is one.
type Feed struct {
	Servers []*url.URL // tls://HOST:PORT; nats:// on loopback alone; empty: control nodes hold the log
	// Credentials, CA, Certificate and Key are paths, or empty.
	Credentials, CA, Certificate, Key string

	Replicas   int        // servers that hold the log
	Monitoring []*url.URL // of NATS servers
}

const (
	defaultReplicas = 3
	// natsPort is that of NATS clients.
	natsPort   = "4222"
	maxServers = 16
)

func (c *Config) readFeed(t *table) {
	const example = "tls://nats1.example.net:4222"
	f := &c.Feed
	f.Servers = t.urls("servers", example, "tls", "nats")
	for _, u := range f.Servers {
		item := t.n.child("servers")
		if one := item.find(u.String()); one != nil { // as it is written
			item = one
		}
		switch ip, err := netip.ParseAddr(u.Hostname()); {
		case u.Scheme == "nats" && (err != nil || !ip.IsLoopback()):
			t.wrong(item, "servers", "the log does not leave this machine in the clear", "write "+strconv.Quote("tls://"+u.Host)+", and give the NATS servers certificates")
		case u.Scheme != f.Servers[0].Scheme:
			t.wrong(item, "servers", "the servers before this one are "+f.Servers[0].Scheme+"://", "write the same for all")
		}
	}
	for _, u := range f.Servers {
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), natsPort)
		}
	}
	if len(f.Servers) > maxServers {
		t.wrong(t.n.child("servers"), "servers", "at most "+strconv.Itoa(maxServers)+" may stand here", "")
	}
	f.Credentials = t.file("credentials", "/etc/perigee/feed.nk")
	f.CA = t.file("ca", "/etc/perigee/nats-ca.pem")
	f.Certificate, f.Key = t.file("certificate", "/etc/perigee/nats.pem"), t.file("key", "/etc/perigee/nats.key")
	f.Replicas = t.int("replicas", defaultReplicas, 1, 5)
	f.Monitoring = t.urls("monitoring", "http://nats1.example.net:8222", "http", "https")
	if f.Replicas%2 == 0 {
		t.wrong(t.n.child("replicas"), "replicas", "of an even number no half is the larger", "write 1, 3 or 5")
	}
	switch {
	case (f.Certificate == "") != (f.Key == ""):
		one := map[bool]string{true: "key", false: "certificate"}[f.Certificate == ""]
		other := map[string]string{"key": "certificate", "certificate": "key"}[one]
		t.wrong(t.n.child(one), one, "a certificate and its key go together", "write "+other+", too")
	case len(f.Servers) > 0 && f.Credentials == "" && f.Certificate == "":
		t.missing("NATS has to know who comes", `write credentials = "feed.nk", which `+"`perigee feed account --key-file feed.nk` makes, or certificate and key")
	}
	if t.n != nil && t.emptyOrAbsent("servers") {
		t.useless("servers", "credentials", "ca", "certificate", "key", "monitoring")
	}
	t.done()
}

// useless reports values that mean nothing without another one.
func (t *table) useless(without string, keys ...string) {
	for _, n := range t.n.list {
		if slices.Contains(keys, n.key) && (n.text != "" || len(n.list) > 0) {
			t.fail(n.keyAt, join(t.path, n.key), n.key+" is for a NATS cluster of yours, and there is none", "write "+without+` = ["tls://nats1.example.net:4222"], or take this line out`)
			return
		}
	}
}
