package dnsserver_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"perigee.example/dnsserver"
	"perigee.example/internal/txtest"
	"perigee.example/zones"
)

// inNamespace is set in a test that runs in a network namespace of its own.
const inNamespace = "PERIGEE_TEST_NAMESPACE"

// ready waits, in a setup, until IPv6 addresses are local: the kernel makes their
// routes in a worker, and what comes before is lost.
const ready = `ready() { for a; do until ip -6 route show table local | grep -q "^local $a "; do sleep 0.01; done; done; }; `

// ownNamespace runs the calling test once more, in a network namespace that a
// shell has set up; true is the inner run.
func ownNamespace(t *testing.T, setup string) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: network namespaces")
	}
	txtest.Need(t, "unshare", "ip")
	if out, err := exec.CommandContext(t.Context(), "unshare", "-rn", "true").CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %v %s", err, out)
	}
	script := "set -e; ip link set lo up; " + ready + setup + "\nexec \"$0\" -test.run \"^$1\\$\" -test.v"
	c := exec.CommandContext(t.Context(), "unshare", "-rn", "sh", "-c", script, os.Args[0], t.Name())
	c.Env = append(os.Environ(), inNamespace+"=1")
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in the namespace: %v\n%s", err, out)
	}
	return false
}

// TestRepliesFromTheAddressAskedOfMany has an interface with many addresses of
// both families, of which the kernel would choose the first for a reply.
func TestRepliesFromTheAddressAskedOfMany(t *testing.T) {
	if !ownNamespace(t, `for i in 1 2 3; do ip addr add fd00:db8::$i/64 dev lo nodad; ip addr add 198.51.100.$i/24 dev lo; done; ip addr add fe80::53/64 dev lo nodad
ready fd00:db8::1 fd00:db8::2 fd00:db8::3 fe80::53`) {
		return
	}
	_, at := onSockets(t, "[::]:0")
	for _, c := range []struct{ from, to string }{
		{"fd00:db8::1", "fd00:db8::2"}, {"fd00:db8::1", "fd00:db8::3"}, {"fd00:db8::3", "fd00:db8::1"}, {"::1", "fd00:db8::2"},
		{"198.51.100.1", "198.51.100.2"}, {"198.51.100.3", "198.51.100.1"}, {"127.0.0.1", "198.51.100.3"}, {"fe80::53%lo", "fe80::53%lo"},
	} {
		// The socket is connected: it takes a reply from nowhere else.
		from, to := netip.AddrPortFrom(netip.MustParseAddr(c.from), 0), netip.AddrPortFrom(netip.MustParseAddr(c.to), at.Port())
		if got := ask(t, from.String(), to, "static.example.test"); !strings.Contains(got, "192.0.2.1") {
			t.Errorf("%s asks %s: %s", c.from, c.to, got)
		}
	}
}

// fragments is how many fragments this namespace has made, of both families.
func fragments(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		t.Fatal(err)
	}
	var names, values []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "Ip:") {
			names, values = values, strings.Fields(line)
		}
	}
	n := 0
	for i, name := range names {
		if name == "FragCreates" {
			if n, err = strconv.Atoi(values[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err = os.ReadFile("/proc/net/snmp6")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "Ip6FragCreates" {
			six, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			n += six
		}
	}
	return n
}

// TestNoFragments serves full replies over paths whose MTU is said to be 600,
// which anybody can forge (RFC 9715 §3.1), and over an interface that a full
// one just fits. An ordinary socket makes fragments there, ours none.
func TestNoFragments(t *testing.T) {
	if !ownNamespace(t, `ip addr add fd00:db8::1/128 dev lo nodad; ip link set lo mtu 1280
ip route replace local 127.0.0.0/8 dev lo table local mtu 600; ip route replace local 127.0.0.1 dev lo table local mtu 600
ready fd00:db8::1`) {
		return
	}
	const full = 1232
	q, err := txtest.ParseQuery("full.example.test TXT +bufsize=4096")
	if err != nil {
		t.Fatal(err)
	}
	rdata := full - len(q.Wire) - 12 // header, question and OPT are as in the query
	zone := fmt.Sprintf("@ 300 IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ 300 IN NS ns1\nns1 300 IN A 127.0.0.53\nfull 300 IN TYPE65280 \\# %d %s\nfull 300 IN TXT", rdata, strings.Repeat("00", rdata))
	for n := rdata; n > 0; n -= min(n, 256) {
		zone += " \"" + strings.Repeat("x", min(n, 256)-1) + "\""
	}
	v, err := dnsserver.NewView(dnsserver.ViewConfig{Zones: []*zones.Zone{parseZone(t, "example.test", []byte(zone+"\n"))}})
	if err != nil {
		t.Fatal(err)
	}
	s := dnsserver.NewServer(dnsserver.ServerConfig{})
	s.SetView(v)
	defer s.Shutdown(t.Context())
	for _, listen := range []string{"127.0.0.1:0", "[fd00:db8::1]:0", "[::]:0"} {
		pc, err := net.ListenPacket("udp", listen)
		if err != nil {
			t.Fatal(err)
		}
		go s.ServeUDP(pc)
		port := pc.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		for _, to := range []string{"127.0.0.1", "fd00:db8::1"} {
			if !strings.Contains(listen, "::]") && !strings.Contains(listen, to) {
				continue
			}
			got := ask(t, netip.AddrPortFrom(netip.MustParseAddr(to), 0).String(), netip.AddrPortFrom(netip.MustParseAddr(to), port), "full.example.test TXT +bufsize=4096")
			if !strings.Contains(got, "xxxx") {
				t.Errorf("%s by %s: %s", to, listen, got)
			}
		}
	}
	if n := fragments(t); n != 0 {
		t.Errorf("%d fragments were made", n)
	}
	// The rig itself: without the option there are some.
	c, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(binary.BigEndian.AppendUint16(nil, 0)); err != nil {
		t.Fatal(err)
	}
	c.Write(make([]byte, full)) // EMSGSIZE is an answer too
	c.Write(make([]byte, full))
	if n := fragments(t); n == 0 {
		t.Error("an ordinary socket makes no fragments either: this test shows nothing")
	}
}
