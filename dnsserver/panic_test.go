package dnsserver

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"perigee.example/internal/txtest"
)

// TestPanic serves a View with a hole in it.
func TestPanic(t *testing.T) {
	origin, err := wireName("example.test")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := NewServer(ServerConfig{Log: slog.New(slog.NewTextHandler(&log, nil))})
	s.SetView(&View{table: newTable([][]byte{origin}), zones: zoneList{{{}}}})
	q, err := txtest.ParseQuery("www.example.test")
	if err != nil {
		t.Fatal(err)
	}
	a := s.newAsker()
	for range 3 {
		reply := a.answer([]byte("xx"), q.Wire, q.From, netip.AddrPort{}, UDP)
		got, err := txtest.Print(reply[2:])
		want := "status: SERVFAIL flags: qr rd\nquestion: www.example.test. IN A\n"
		if err != nil || got != want || a.out.Rcode != rcodeServFail {
			t.Errorf("%q, %v, %+v", got, err, a.out)
		}
	}
	if s.Panics() != 3 {
		t.Errorf("%d panics counted, want 3", s.Panics())
	}
	if got := strings.Count(log.String(), "panic while answering"); got != 1 || !strings.Contains(log.String(), "packet=2f1d") {
		t.Errorf("logged %d times:\n%s", got, log.String())
	}
	s.SetView(nil)
	if reply := a.answer(nil, q.Wire, q.From, netip.AddrPort{}, UDP); reply[3]&0xF != rcodeRefused {
		t.Errorf("the next query: %x", reply)
	}
}
