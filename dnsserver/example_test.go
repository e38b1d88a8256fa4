package dnsserver_test

import (
	"context"
	"fmt"
	"net"

	"github.com/miekg/dns"

	"perigee.example/dnsserver"
	"perigee.example/zones"
)

// A DNS server in another program: a zone, a View, a socket.
func Example() {
	zone, findings := zones.Parse("example.test.zone", []byte(`
$TTL 300
@   IN SOA ns1 hostmaster 1 3600 900 604800 60
@   IN NS  ns1
ns1 IN A   127.0.0.1
www IN A   192.0.2.1
`), zones.Options{Origin: "example.test"})
	if zone == nil {
		fmt.Println(findings)
		return
	}
	view, err := dnsserver.NewView(dnsserver.ViewConfig{Zones: []*zones.Zone{zone}})
	if err != nil {
		fmt.Println(err)
		return
	}
	server := dnsserver.NewServer(dnsserver.ServerConfig{})
	server.SetView(view)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go server.ServeUDP(conn)
	defer server.Shutdown(context.Background())

	question := new(dns.Msg).SetQuestion("www.example.test.", dns.TypeA)
	reply, err := dns.Exchange(question, conn.LocalAddr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(reply.Answer[0].(*dns.A).A)
	// Output: 192.0.2.1
}
