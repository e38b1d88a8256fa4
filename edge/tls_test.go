package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writePair writes a self-signed certificate and returns it.
func writePair(t *testing.T, dir, name string, notAfter time.Time, hosts ...string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// As an ACME client does: each file by rename, the certificate first.
	for _, f := range []struct{ ext, kind, der string }{{"crt", "CERTIFICATE", string(der)}, {"key", "PRIVATE KEY", string(keyDER)}} {
		file := filepath.Join(dir, name+"."+f.ext)
		if err := os.WriteFile(file+".new", pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: []byte(f.der)}), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func pair(dir, name string, hosts ...string) CertPair {
	return CertPair{Site: name, Hosts: hosts, CertFile: filepath.Join(dir, name+".crt"), KeyFile: filepath.Join(dir, name+".key")}
}

// tlsGet asks over TLS, for host inside a connection for sni.
func tlsGet(t *testing.T, addr string, roots *x509.CertPool, sni, host string) (status int, cert *x509.Certificate, err error) {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{ServerName: sni, RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if p := c.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("ALPN chose %q", p)
	}
	io.WriteString(c, "GET /a HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	got, err := io.ReadAll(c)
	if err != nil || len(got) < 12 {
		t.Fatalf("got %q, %v", got, err)
	}
	for i := range 3 {
		status = status*10 + int(got[9+i]-'0')
	}
	return status, c.ConnectionState().PeerCertificates[0], nil
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	until := time.Now().Add(time.Hour)
	roots := x509.NewCertPool()
	a := writePair(t, dir, "a", until, "a.test", "*.a.test")
	b := writePair(t, dir, "b", until, "b.test")
	roots.AddCert(a)
	roots.AddCert(b)
	certs, err := OpenCerts([]CertPair{pair(dir, "a", "a.test", "*.a.test"), pair(dir, "b", "b.test")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-Proto"))
	})
	e, err := New(Config{Sites: []Site{
		{Name: "a", Hosts: []string{"a.test", "*.a.test"}, Origin: HandlerTransport(app)},
		{Name: "b", Hosts: []string{"b.test"}, Origin: HandlerTransport(app)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, certs.Listener(ln)) }()
	defer func() { stop(); <-served }()
	addr := ln.Addr().String()
	for _, c := range []struct {
		sni, host string
		want      int
	}{{"a.test", "a.test", 200}, {"x.a.test", "x.a.test", 200}, {"b.test", "B.test:443", 200},
		{"a.test", "b.test", 421}, {"a.test", "x.a.test", 421}, {"a.test", "c.test", 421}} {
		if status, _, err := tlsGet(t, addr, roots, c.sni, c.host); err != nil || status != c.want {
			t.Errorf("%s inside %s: %d, %v, want %d", c.host, c.sni, status, err, c.want)
		}
	}
	_, _, err = tlsGet(t, addr, roots, "c.test", "c.test")
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") { // the alert of RFC 6066 §3
		t.Errorf("an unknown name: %v", err)
	}
	if _, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "a.test", RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

func TestCertsKeepTheLastGoodPair(t *testing.T) {
	dir := t.TempDir()
	until := time.Now().Add(time.Hour)
	first := writePair(t, dir, "a", until, "a.test")
	certs, err := OpenCerts([]CertPair{pair(dir, "a", "a.test")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	uses := func(want *x509.Certificate, wantErr string) {
		t.Helper()
		certs.Reload()
		st := certs.Status()[0]
		if got := certs.find("A.test."); got == nil || !got.Leaf.Equal(want) || !st.NotAfter.Equal(want.NotAfter) {
			t.Error("another certificate is in use")
		}
		if wantErr == "" && st.Err != nil || wantErr != "" && (st.Err == nil || !strings.Contains(st.Err.Error(), wantErr)) {
			t.Errorf("status says %v, want %q", st.Err, wantErr)
		}
	}
	uses(first, "")
	// A key that is not the certificate's: half of a renewal.
	key, err := os.ReadFile(filepath.Join(dir, "a.key"))
	if err != nil {
		t.Fatal(err)
	}
	second := writePair(t, dir, "a", until, "a.test")
	good, err := os.ReadFile(filepath.Join(dir, "a.key"))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "a.key"), key, 0o600)
	uses(first, "no pair")
	os.WriteFile(filepath.Join(dir, "a.key"), good[:20], 0o600)
	uses(first, "no pair")
	os.Remove(filepath.Join(dir, "a.key"))
	uses(first, "a.key")
	os.WriteFile(filepath.Join(dir, "a.key"), good, 0o600)
	uses(second, "")
	writePair(t, dir, "a", until, "b.test")
	uses(second, "does not cover a.test")
	writePair(t, dir, "a", time.Now().Add(-time.Minute), "a.test")
	uses(second, "ended on")
	if _, err := OpenCerts([]CertPair{pair(dir, "missing", "a.test")}, nil); err == nil || !strings.Contains(err.Error(), "missing.crt") {
		t.Errorf("opening what is not there: %v", err)
	}
}

func TestSetPairs(t *testing.T) {
	dir := t.TempDir()
	until := time.Now().Add(time.Hour)
	a := writePair(t, dir, "a", until, "a.test")
	certs, err := OpenCerts([]CertPair{pair(dir, "a", "a.test")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	both := []CertPair{pair(dir, "a", "a.test"), pair(dir, "b", "b.test")}
	if err := certs.SetPairs(both); err == nil || certs.find("a.test") == nil {
		t.Errorf("a pair that is not there: %v", err)
	}
	b := writePair(t, dir, "b", until, "b.test")
	os.Remove(filepath.Join(dir, "a.key")) // the last good one stays
	if err := certs.SetPairs(both); err != nil || !certs.find("a.test").Leaf.Equal(a) || !certs.find("b.test").Leaf.Equal(b) {
		t.Errorf("two pairs: %v", err)
	}
	if err := certs.SetPairs(both[1:]); err != nil || certs.find("a.test") != nil || len(certs.Status()) != 1 {
		t.Errorf("one pair again: %v, %d", err, len(certs.Status()))
	}
}

// TestCertsWatch: a renewal is taken without a signal, soon.
func TestCertsWatch(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "a", time.Now().Add(time.Hour), "a.test")
	certs, err := OpenCerts([]CertPair{pair(dir, "a", "a.test")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- certs.Watch(ctx) }()
	next := writePair(t, dir, "a", time.Now().Add(2*time.Hour), "a.test")
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !certs.find("a.test").Leaf.Equal(next) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the renewal was not taken within 20 s")
		}
	}
	stop()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}
