package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"perigee.example/bench/pinned"
)

// script makes wrk print one line for a program.
//
//go:embed wrk.lua
var script []byte

// tlsHost is what wrk names by SNI and in Host: it asks for no name but the one
// that it connects to.
const tlsHost = "localhost"

// makeCertificate makes a certificate (P-256) for tlsHost, and a client that trusts
// it and looks names up nowhere.
func makeCertificate(dir string) (*http.Client, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tlsHost}, DNSNames: []string{tlsHost, host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for name, text := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM, "both.pem": append(certPEM, keyPEM...), "wrk.lua": script} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}}, nil
}

// loadTLS runs wrk, which counts only statuses and lengths: the octets are
// compared before and after.
func loadTLS(c *config, s *server, m *mix) (l loaded, err error) {
	q := m.requests[0]
	path := strings.Fields(q.head)[1]
	if err := checkTLS(c, s, path, q); err != nil {
		return l, err
	}
	l, err = runLoad(pinned.Load("wrk", "-t1", fmt.Sprintf("-c%d", m.conns), fmt.Sprintf("-d%.0fs", max(1, c.seconds)), "-s", filepath.Join(c.dir, "wrk.lua"),
		fmt.Sprintf("https://%s:%d%s", tlsHost, s.tls, path)))
	if err != nil {
		return l, err
	}
	return l, checkTLS(c, s, path, q)
}

// checkTLS asks once and compares everything.
func checkTLS(c *config, s *server, path string, q request) error {
	res, err := c.tls.Get(fmt.Sprintf("https://%s:%d%s", tlsHost, s.tls, path))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	pool, err := os.ReadFile(c.pool())
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || res.TLS.Version != tls.VersionTLS13 || !bytes.Equal(got, pool[q.from:q.from+q.size]) {
		return fmt.Errorf("%s by %s is not what was asked for: %d octets of %d", res.Status, tls.VersionName(res.TLS.Version), len(got), q.size)
	}
	return nil
}
