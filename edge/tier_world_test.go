package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/internal/memnet"
	"perigee.example/origin"
)

// testLog is the name of a log that is the same at every place.
const testLog = "log"

// fleet is some edges that fetch through each other, each with a client door
// (HTTP) and a peer door (TLS of both sides), before one origin.
type fleet struct {
	t       *testing.T
	network *memnet.Network
	ca      *x509.Certificate
	caKey   *ecdsa.PrivateKey
	edges   map[string]*Edge
	hits    atomic.Int64 // requests to the origin
	answer  func(w http.ResponseWriter, r *http.Request)
	seen    chan http.Header // the last request's fields
}

func certificate(t *testing.T, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), time.Unix(0, 0), time.Unix(1<<33, 0)
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// peerTLS is both sides' configuration of one edge.
func (f *fleet) peerTLS(name string) *tls.Config {
	key := newKey(f.t)
	cert := certificate(f.t, &x509.Certificate{DNSNames: []string{name}}, f.ca, key, f.caKey)
	roots := x509.NewCertPool()
	roots.AddCert(f.ca)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		RootCAs: roots, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
}

func verifyPeer(s *tls.ConnectionState) (string, error) {
	if len(s.VerifiedChains) == 0 {
		return "", errors.New("no certificate")
	}
	return s.VerifiedChains[0][0].DNSNames[0], nil
}

// tiered runs a test of edges of which those named in shields are the site's.
func tiered(t *testing.T, names, shields []string, test func(t *testing.T, f *fleet)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, network: memnet.New(), edges: map[string]*Edge{}, caKey: newKey(t), seen: make(chan http.Header, 1000)}
		self := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, Subject: pkix.Name{CommonName: "fleet"}}
		f.ca = certificate(t, self, self, f.caKey, f.caKey)
		ctx, cancel := context.WithCancel(context.Background())
		var serving sync.WaitGroup
		var pools []*origin.Pool
		for i, name := range names {
			site := Site{Name: "shop", Hosts: []string{"shop.test"}, Origin: HandlerTransport(http.HandlerFunc(f.origin))}
			config := f.peerTLS(name)
			for j, peer := range names {
				if !slices.Contains(shields, peer) {
					continue
				}
				p := Peer{Name: peer}
				if i != j {
					client := config.Clone()
					client.ServerName = peer
					pool, err := origin.NewPool(origin.PoolConfig{Origins: []string{"https://" + peerAddr(j)}, TLS: client, DialContext: f.network.DialContext, Seed: 1})
					if err != nil {
						t.Fatal(err)
					}
					pools = append(pools, pool)
					p.Transport = pool
				}
				site.Shields = append(site.Shields, p)
			}
			e, err := New(Config{Name: name, Sites: []Site{site}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
			if err != nil {
				t.Fatal(err)
			}
			f.edges[name] = e
			public, err := f.network.Listen("tcp", fmt.Sprintf("192.0.2.%d:80", i+1))
			if err != nil {
				t.Fatal(err)
			}
			private, err := f.network.Listen("tcp", peerAddr(i))
			if err != nil {
				t.Fatal(err)
			}
			serving.Go(func() { e.Serve(ctx, public) })
			serving.Go(func() { e.ServePeers(ctx, tls.NewListener(private, config), verifyPeer) })
		}
		test(t, f)
		for _, p := range pools {
			p.Close()
		}
		cancel()
		serving.Wait()
		for _, e := range f.edges {
			e.Close()
		}
	})
}

func peerAddr(i int) string { return fmt.Sprintf("192.0.2.%d:7444", i+1) }

func (f *fleet) origin(w http.ResponseWriter, r *http.Request) {
	n := f.hits.Add(1)
	select {
	case f.seen <- r.Header.Clone():
	default:
	}
	if f.answer != nil {
		f.answer(w, r)
		return
	}
	w.Header().Set("Cache-Control", "max-age=60")
	fmt.Fprintf(w, "%d", n)
}

// ask sends one request to an edge's client door.
func (f *fleet) ask(edge int, path string, fields ...string) (*http.Response, string) {
	f.t.Helper()
	c, err := f.network.DialFrom(f.t.Context(), clientAddr, netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:80", edge+1)))
	if err != nil {
		f.t.Fatal(err)
	}
	tr := &http.Transport{DisableCompression: true, DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	r := mustGet("http://shop.test" + path)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		f.t.Error(err)
	}
	synctest.Wait()
	return resp, string(b)
}

func (f *fleet) stored(edge, path string) *stored {
	o, _ := f.edges[edge].store.get([]byte("http://shop.test"+path), headerFields{})
	return o
}

// askNow is ask for another goroutine than the test's.
func (f *fleet) askNow(edge int, path string) (int, string) {
	c, err := f.network.DialFrom(context.Background(), clientAddr, netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:80", edge+1)))
	if err != nil {
		return 0, err.Error()
	}
	tr := &http.Transport{DisableCompression: true, DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	resp, err := tr.RoundTrip(mustGet("http://shop.test" + path))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}
