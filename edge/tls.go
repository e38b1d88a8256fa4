package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// certSettle is how long the files must be quiet before they are read:
	// certificate and key are written one after the other.
	certSettle = 250 * time.Millisecond
	// certPoll is how often they are read without any event, for file systems
	// that give none.
	certPoll = time.Minute
	// maxCertBytes bounds a certificate or key file; chains are some KiB.
	maxCertBytes = 1 << 20
)

// CertPair is the certificate of one site.
type CertPair struct {
	Site     string
	Hosts    []string // as of Site.Hosts; the certificate must cover them all
	CertFile string   // PEM: the certificate, then its intermediates
	KeyFile  string   // PEM
	// Default: it is the one for connections that name no host. One pair may be.
	Default bool
}

// CertStatus tells how a pair stands.
type CertStatus struct {
	Site     string
	CertFile string
	NotAfter time.Time // of the certificate in use
	Err      error     // why the files as they are now are not in use; nil when they are
	Since    time.Time // of Err
}

// Certs gives each TLS connection the certificate of the site it asks for. A
// pair whose files turn bad stays in use as it was, and Status says so until
// it is cured. A client that names no host (RFC 6066 §3) gets the default pair,
// if there is one; Host then says which site it wants, of those that this
// certificate covers. A name that no site has is refused with the alert
// unrecognized_name, and so is none without a default: no client is led to take
// one site's certificate for another's.
type Certs struct {
	log   *slog.Logger
	names atomic.Pointer[certNames]
	kick  chan struct{} // wakes Watch: the pairs are others
	mu    sync.Mutex
	pairs []*certState
}

type certNames struct {
	hosts, wild map[string]*tls.Certificate
	nameless    *tls.Certificate
}

type certState struct {
	CertPair
	cert  *tls.Certificate
	err   error
	since time.Time
}

// OpenCerts loads every pair, or says which one does not load and why.
func OpenCerts(pairs []CertPair, log *slog.Logger) (*Certs, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Certs{log: log, kick: make(chan struct{}, 1)}
	if err := c.SetPairs(pairs); err != nil {
		return nil, err
	}
	return c, nil
}

// SetPairs swaps the set of pairs, or changes nothing and says which one does
// not load. A pair that is there already keeps its last good certificate.
func (c *Certs) SetPairs(pairs []CertPair) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	var next []*certState
	nameless := ""
	for _, p := range pairs {
		st := &certState{CertPair: p}
		if p.Default && nameless != "" {
			errs = append(errs, fmt.Errorf("the certificates of site %s and site %s are both the default", nameless, p.Site))
		} else if p.Default {
			nameless = p.Site
		}
		if st.cert, st.err = p.load(); st.err != nil {
			i := slices.IndexFunc(c.pairs, func(old *certState) bool {
				return old.CertFile == p.CertFile && old.KeyFile == p.KeyFile && slices.Equal(old.Hosts, p.Hosts)
			})
			if i < 0 {
				errs = append(errs, st.err)
			} else {
				*st = *c.pairs[i]
				st.CertPair = p
			}
		}
		next = append(next, st)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.pairs = next
	c.publish()
	select {
	case c.kick <- struct{}{}:
	default:
	}
	return nil
}

// load reads and checks a pair.
func (p *CertPair) load() (*tls.Certificate, error) {
	certPEM, err := readBounded(p.CertFile)
	if err != nil {
		return nil, fmt.Errorf("site %s: certificate: %w", p.Site, err)
	}
	keyPEM, err := readBounded(p.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("site %s: key: %w", p.Site, err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("site %s: %s and %s are no pair: %w", p.Site, p.CertFile, p.KeyFile, err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("site %s: %s: %w", p.Site, p.CertFile, err)
		}
	}
	for _, h := range p.Hosts {
		// A wildcard of ours stands for any one label.
		if err := cert.Leaf.VerifyHostname(strings.Replace(h, "*", "any-label", 1)); err != nil {
			return nil, fmt.Errorf("site %s: %s does not cover %s: %w", p.Site, p.CertFile, h, err)
		}
	}
	return &cert, nil
}

func readBounded(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxCertBytes {
		return nil, fmt.Errorf("%s has %d bytes: more than %d is no certificate or key", name, info.Size(), maxCertBytes)
	}
	return os.ReadFile(name)
}

// publish makes the table of names from the pairs as they are.
func (c *Certs) publish() {
	n := &certNames{hosts: map[string]*tls.Certificate{}, wild: map[string]*tls.Certificate{}}
	for _, p := range c.pairs {
		if p.Default {
			n.nameless = p.cert
		}
		for _, h := range p.Hosts {
			if rest, ok := strings.CutPrefix(h, "*"); ok {
				n.wild[rest] = p.cert
			} else {
				n.hosts[h] = p.cert
			}
		}
	}
	c.names.Store(n)
}

// Reload reads every pair again. Connections that stand keep what they have.
func (c *Certs) Reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pairs {
		cert, err := p.load()
		if err == nil && time.Now().After(cert.Leaf.NotAfter) && time.Now().Before(p.cert.Leaf.NotAfter) {
			err = fmt.Errorf("site %s: %s ended on %s", p.Site, p.CertFile, cert.Leaf.NotAfter.Format(time.DateOnly))
		}
		switch {
		case err != nil && (p.err == nil || p.err.Error() != err.Error()):
			c.log.Error("certificate not taken, the last good one stays", "site", p.Site, "why", err)
			p.err, p.since = err, time.Now()
		case err == nil && p.err != nil:
			c.log.Info("certificate cured", "site", p.Site, "file", p.CertFile)
			p.err, p.since = nil, time.Time{}
		}
		if err == nil {
			if !cert.Leaf.Equal(p.cert.Leaf) {
				c.log.Info("certificate changed", "site", p.Site, "file", p.CertFile, "until", cert.Leaf.NotAfter)
			}
			p.cert = cert
		}
	}
	c.publish()
}

// Status of every pair, in the order given.
func (c *Certs) Status() []CertStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]CertStatus, 0, len(c.pairs))
	for _, p := range c.pairs {
		out = append(out, CertStatus{Site: p.Site, CertFile: p.CertFile, NotAfter: p.cert.Leaf.NotAfter, Err: p.err, Since: p.since})
	}
	return out
}

// Watch reloads when something happens in the folders of the files (editors
// and ConfigMaps rename and swap links, so the files themselves are not
// watched), until ctx ends.
func (c *Certs) Watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch certificates: %w", err)
	}
	defer w.Close()
	if err := c.watchFolders(w); err != nil {
		return err
	}
	c.Reload() // for what changed before the watch stood
	settle := time.NewTimer(certPoll)
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return nil
			}
			settle.Reset(certSettle)
		case err := <-w.Errors:
			c.log.Warn("watching certificates", "why", err)
		case <-c.kick:
			if err := c.watchFolders(w); err != nil {
				c.log.Warn("watching certificates", "why", err)
			}
		case <-settle.C:
			c.Reload()
			settle.Reset(certPoll)
		}
	}
}

// watchFolders adds the folders of all pairs; one that is there stays.
func (c *Certs) watchFolders(w *fsnotify.Watcher) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pairs {
		for _, name := range []string{p.CertFile, p.KeyFile} {
			if err := w.Add(filepath.Dir(name)); err != nil {
				return fmt.Errorf("watch certificates: %s: %w", filepath.Dir(name), err)
			}
		}
	}
	return nil
}

// Config is for a TLS listener whose connections Serve takes.
func (c *Certs) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		// Without error and without certificate the alert is unrecognized_name.
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return c.find(hello.ServerName), nil },
	}
}

// Listener makes ln a TLS listener for Serve.
func (c *Certs) Listener(ln net.Listener) net.Listener { return tls.NewListener(ln, c.Config()) }

// CoversNameless reports whether a connection that named no host may ask for
// host: whether the default certificate is one for it.
func (c *Certs) CoversNameless(host string) bool {
	cert := c.names.Load().nameless
	return cert != nil && cert.Leaf.VerifyHostname(host) == nil
}

func (c *Certs) find(name string) *tls.Certificate {
	n := c.names.Load()
	if name == "" {
		return n.nameless
	}
	name = strings.TrimSuffix(lower(name), ".")
	if cert := n.hosts[name]; cert != nil {
		return cert
	}
	if i := strings.IndexByte(name, '.'); i > 0 {
		return n.wild[name[i:]]
	}
	return nil
}

// tlsVersion is a version as logs write it.
func tlsVersion(v uint16) string { return strings.TrimPrefix(tls.VersionName(v), "TLS ") }
