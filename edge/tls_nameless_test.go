package edge

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// namelessGet asks for host over a TLS connection that names none.
func namelessGet(t *testing.T, addr, host string) (status string, err error) {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // no name is sent for an address
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	for range 2 { // by the general path, and as a hit
		io.WriteString(c, "GET /a HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		var b []byte
		for !strings.Contains(string(b), "\r\n\r\n") {
			b = append(b, 0)
			if _, err := io.ReadFull(c, b[len(b)-1:]); err != nil {
				t.Fatalf("%s: %q, %v", host, b, err)
			}
		}
		if status != "" && status != string(b[9:12]) {
			t.Errorf("%s: %s, then %s", host, status, b[9:12])
		}
		if status = string(b[9:12]); status != "200" {
			return status, nil
		}
	}
	return status, nil
}

// A client that names no host (RFC 6066 §3) is given the default certificate;
// its Host says which site it wants, of those that the certificate is for.
func TestNamelessClients(t *testing.T) {
	dir := t.TempDir()
	until := time.Now().Add(time.Hour)
	writePair(t, dir, "a", until, "a.test", "*.a.test", "b.test")
	writePair(t, dir, "c", until, "c.test")
	a, c := pair(dir, "a", "a.test", "*.a.test"), pair(dir, "c", "c.test")
	certs, err := OpenCerts([]CertPair{a, c}, nil)
	if err != nil {
		t.Fatal(err)
	}
	app := HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", "0")
	}))
	e, err := New(Config{Nameless: certs.CoversNameless, Sites: []Site{
		{Name: "a", Hosts: []string{"a.test", "*.a.test"}, Origin: app}, {Name: "b", Hosts: []string{"b.test"}, Origin: app}, {Name: "c", Hosts: []string{"c.test"}, Origin: app}}})
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
	if _, err := namelessGet(t, addr, "a.test"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("without a default: %v", err)
	}
	a.Default = true
	if err := certs.SetPairs([]CertPair{a, c}); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"a.test": "200", "X.a.test:443": "200", "b.test": "200", "c.test": "421", "x.y.a.test": "421", "127.0.0.1": "421"} {
		if got, err := namelessGet(t, addr, host); got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", host, got, err, want)
		}
	}
	if _, _, err := tlsGet(t, addr, nil, "d.test", "a.test"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a name that no site has: %v", err)
	}
	c.Default = true
	if err := certs.SetPairs([]CertPair{a, c}); err == nil || !strings.Contains(err.Error(), "both the default") {
		t.Errorf("two defaults: %v", err)
	}
}
