package control

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/durable"
)

const (
	// caLife is how long a fleet's CA lives. It is pinned by every node and
	// command, and cannot be replaced without touching each.
	caLife = 20 * 365 * 24 * time.Hour
	// serverLife is how long the control node's own certificate lives: it makes
	// a new one by itself when a third is left.
	serverLife = 30 * 24 * time.Hour
	// nodeLife is how long a node's certificate lives. Removal from the fleet
	// does not wait for it: the list of nodes is asked at each connection.
	nodeLife = 3 * 365 * 24 * time.Hour
	// backdate covers clocks that differ.
	backdate = time.Hour

	caCertName = "ca.pem"
	caKeyName  = "ca.key"
)

// ca is the fleet's private certificate authority.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	now  func() time.Time

	mu     sync.Mutex
	server *tls.Certificate
	names  []string // hosts and addresses of the server certificate
}

// openCA reads the fleet's CA from dir, or makes it at the first start. The key
// is written before the certificate, so that a crash in between is seen as "no
// certificate" and the key is used again.
func openCA(dir string, now func() time.Time) (*ca, error) {
	c := &ca{now: now}
	certPath, keyPath := filepath.Join(dir, caCertName), filepath.Join(dir, caKeyName)
	certPEM, err := os.ReadFile(certPath)
	if errors.Is(err, fs.ErrNotExist) {
		return c, c.make(certPath, keyPath)
	}
	if err != nil {
		return nil, err
	}
	if c.key, err = readKey(keyPath); err != nil {
		return nil, fmt.Errorf("%w: without it no node can be added; restore the file from a backup", err)
	}
	block, rest := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" || len(rest) != 0 {
		return nil, fmt.Errorf("%s: not one PEM certificate: restore the file from a backup", certPath)
	}
	if c.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("%s: %w", certPath, err)
	}
	if !c.key.PublicKey.Equal(c.cert.PublicKey) {
		return nil, fmt.Errorf("%s does not belong to %s: restore both from one backup", keyPath, certPath)
	}
	if now().After(c.cert.NotAfter) {
		return nil, fmt.Errorf("%s: the fleet's CA ended on %s: check this machine's clock", certPath, c.cert.NotAfter.Format(time.DateOnly))
	}
	c.pem = certPEM
	return c, nil
}

func (c *ca) make(certPath, keyPath string) (err error) {
	c.key, err = readKey(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			err = writeKey(keyPath, c.key)
		}
	}
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Perigee fleet CA"},
		NotBefore:             c.now().Add(-backdate),
		NotAfter:              c.now().Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, c.key.Public(), c.key)
	if err != nil {
		return err
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	c.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return durable.WriteFile(certPath, c.pem, 0o600)
}

func newSerial() (*big.Int, error) {
	// 127 random bits: positive and unique (RFC 5280 §4.1.2.2).
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("%s: not one PEM private key", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not an ECDSA key", path)
	}
	return ec, nil
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	b, err := keyPEM(key)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, b, 0o600)
}

// pool returns the CA as a set of roots.
func (c *ca) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// issue signs tmpl for a new key.
func (c *ca) issue(tmpl *x509.Certificate, life time.Duration) (der []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	if tmpl.SerialNumber, err = newSerial(); err != nil {
		return nil, nil, err
	}
	tmpl.NotBefore = c.now().Add(-backdate)
	tmpl.NotAfter = c.now().Add(life)
	if tmpl.NotAfter.After(c.cert.NotAfter) {
		tmpl.NotAfter = c.cert.NotAfter
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	der, err = x509.CreateCertificate(rand.Reader, tmpl, c.cert, key.Public(), c.key)
	return der, key, err
}

// issueNode makes a node's key and certificate, whose only name is its URI.
func (c *ca) issueNode(name string) (der []byte, key *ecdsa.PrivateKey, err error) {
	uri, err := feed.NodeURI(name)
	if err != nil {
		return nil, nil, err
	}
	return c.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name}, // for people; identity is the URI alone
		URIs:        []*url.URL{uri},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, nodeLife)
}

// serverCert returns the control node's certificate, made anew when a third of
// its life is left. It is kept in memory only.
func (c *ca) serverCert(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil && c.now().Before(c.server.Leaf.NotAfter.Add(-serverLife/3)) {
		return c.server, nil
	}
	tmpl := &x509.Certificate{
		Subject:  pkix.Name{CommonName: feed.ServerName},
		DNSNames: []string{feed.ServerName},
		// It is shown to other control nodes as well. It names no node, so as a
		// client it opens nothing else.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range c.names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else if n != "" {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, key, err := c.issue(tmpl, serverLife)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c.server = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return c.server, nil
}

// tlsConfig is that of the admin door: no client certificates are asked for.
func (c *ca) tlsConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: c.serverCert}
}

// nodeTLS is that of the node doors: a certificate of this CA, or nothing.
func (c *ca) nodeTLS() *tls.Config {
	cfg := c.tlsConfig()
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	cfg.ClientCAs = c.pool()
	return cfg
}
