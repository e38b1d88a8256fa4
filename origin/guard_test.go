package origin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// reliability.md 2.2, SSRF: which addresses an origin may have.
func TestGuard(t *testing.T) {
	for _, test := range []struct {
		addr                       string
		byName, localhost, private bool // allowed for a name, for localhost, with AllowPrivate or as a literal
	}{
		{"192.0.2.1", true, true, true},
		{"2001:db8::1", true, true, true},
		{"127.0.0.1", false, true, true},
		{"127.255.255.254", false, true, true},
		{"::1", false, true, true},
		{"::ffff:127.0.0.1", false, true, true},
		{"64:ff9b::7f00:1", false, true, true},
		{"0.0.0.0", false, false, true},
		{"0.1.2.3", false, false, true},
		{"::", false, false, true},
		{"10.0.0.1", false, false, true},
		{"172.16.0.1", false, false, true},
		{"172.32.0.1", true, true, true},
		{"192.168.255.255", false, false, true},
		{"100.64.0.1", false, false, true},
		{"169.254.0.1", false, false, true},
		{"fe80::1%eth0", false, false, true},
		{"fc00::1", false, false, true},
		{"64:ff9b::a00:1", false, false, true},
		{"198.18.0.1", false, false, true},
		{"224.0.0.1", false, false, true},
		{"ff02::1", false, false, true},
		{"169.254.169.254", false, false, false},
		{"::ffff:169.254.169.254", false, false, false},
		{"64:ff9b::a9fe:a9fe", false, false, false},
		{"fd00:ec2::254", false, false, false},
		{"fd00:ec2::254%lo", false, false, false},
		{"100.100.100.200", false, false, false},
	} {
		addr := netip.MustParseAddr(test.addr)
		for name, c := range map[string]struct {
			g    guard
			want bool
		}{
			"name":      {guard{origin: "x"}, test.byName},
			"localhost": {guard{origin: "x", loopback: true}, test.localhost},
			"private":   {guard{origin: "x", private: true}, test.private},
		} {
			err := c.g.check(addr)
			if (err == nil) != c.want {
				t.Errorf("%s as %s: %v, want allowed %v", addr, name, err, c.want)
			}
			var e *AddressError
			if err != nil && (!errors.As(err, &e) || e.Address != addr) {
				t.Errorf("%s as %s: error %v", addr, name, err)
			}
		}
	}
}

// resolverOf answers every A question with the next of addrs, and the last
// from then on: a name server that rebinds.
func resolverOf(t *testing.T, addrs ...string) *net.Resolver {
	next := 0
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			for {
				var size [2]byte // a net.Pipe is no packet conn, so this is DNS over TCP
				if _, err := io.ReadFull(server, size[:]); err != nil {
					return
				}
				query := make([]byte, int(size[0])<<8|int(size[1]))
				if _, err := io.ReadFull(server, query); err != nil {
					return
				}
				var m dnsmessage.Message
				if err := m.Unpack(query); err != nil {
					t.Error(err)
					return
				}
				m.Response, m.Additionals = true, nil
				if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
					addr := netip.MustParseAddr(addrs[min(next, len(addrs)-1)])
					next++
					m.Answers = []dnsmessage.Resource{{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
						Body:   &dnsmessage.AResource{A: addr.As4()},
					}}
				}
				reply, err := m.AppendPack([]byte{0, 0})
				if err != nil {
					t.Error(err)
					return
				}
				reply[0], reply[1] = byte((len(reply)-2)>>8), byte(len(reply)-2)
				if _, err := server.Write(reply); err != nil {
					return
				}
			}
		}()
		return client, nil
	}}
}

// A name that resolves to loopback is refused at dial, on the address that
// would be used, unless AllowPrivate; also when it resolved to another before.
func TestNameAtLoopback(t *testing.T) {
	hits := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		_, _ = io.WriteString(w, "origin for "+r.Host)
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		origin  string
		private bool
		addr    string
		want    bool
	}{
		{"name", "http://origin.example.net:" + port, false, "127.0.0.1", false},
		{"name with permission", "http://origin.example.net:" + port, true, "127.0.0.1", true},
		{"literal", "http://127.0.0.1:" + port, false, "192.0.2.1", true},
		{"metadata with permission", "http://origin.example.net:" + port, true, "169.254.169.254", false},
	} {
		hits = 0
		p, err := NewPool(PoolConfig{Origins: []string{test.origin}, AllowPrivate: test.private, Resolver: resolverOf(t, test.addr)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := send(p, http.MethodGet, "")
		p.Close()
		if !test.want {
			e, ok := errors.AsType[*AddressError](err)
			if !ok || e.Address.String() != test.addr || hits != 0 {
				t.Errorf("%s: %q, %v, %d hits", test.name, got, err, hits)
			}
			if up, ok := errors.AsType[*UpstreamError](err); !ok || up.Phase != PhaseConnect {
				t.Errorf("%s: error %#v", test.name, err)
			}
			continue
		}
		if err != nil || got != "origin for www.example.com" {
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
	}
}

// Rebinding: allowed at first, loopback the second time.
func TestRebinding(t *testing.T) {
	resolver := resolverOf(t, "192.0.2.1", "127.0.0.1")
	if _, err := resolver.LookupNetIP(t.Context(), "ip4", "origin.example.net"); err != nil {
		t.Fatal(err) // who checks here and dials by name later is fooled
	}
	p, err := NewPool(PoolConfig{Origins: []string{"http://origin.example.net:9"}, Resolver: resolver})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := send(p, http.MethodGet, ""); !isAddressError(err) {
		t.Errorf("error %v", err)
	}
}

func isAddressError(err error) bool {
	_, ok := errors.AsType[*AddressError](err)
	return ok
}

// A request's Host and URL cannot lead the pool elsewhere.
func TestHostLeadsNowhere(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		p := newPool(t, f, PoolConfig{Origins: []string{"http://a"}})
		for _, target := range []string{"http://169.254.169.254/", "http://b/", "http://user@b/", "https://[::1]/"} {
			req, err := http.NewRequest(http.MethodGet, target, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "a@127.0.0.1"
			resp, err := p.RoundTrip(req)
			if err != nil {
				if !strings.Contains(err.Error(), "Host") { // net/http refuses to send it
					t.Error(err)
				}
				continue
			}
			resp.Body.Close()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for address := range f.dials {
			if address != "a:80" {
				t.Errorf("%s was dialled", address)
			}
		}
	})
}
