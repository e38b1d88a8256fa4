package txtest

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Print writes a DNS message in wire form as text, somewhat as dig does:
//
//	status: NOERROR flags: qr aa rd
//	question: www.example.test. IN A
//	answer: www.example.test. 300 IN A 192.0.2.1
//	opt: version 0 udp 1232
//	ecs 192.0.2.0/24/20
//
// An opcode other than QUERY stands before the status. Of an RRSIG the signature
// itself is left out. Nothing is sorted: the order on the wire is part of what a
// conversation shows.
func Print(wire []byte) (string, error) {
	var m dns.Msg
	if err := m.Unpack(wire); err != nil {
		return "", fmt.Errorf("reply of %d octets does not parse: %w", len(wire), err)
	}
	var b strings.Builder
	if m.Opcode != dns.OpcodeQuery {
		fmt.Fprintf(&b, "opcode: %s ", opcode(m.Opcode))
	}
	fmt.Fprintf(&b, "status: %s flags:%s\n", rcode(m.Rcode), flags(&m))
	for _, q := range m.Question {
		fmt.Fprintf(&b, "question: %s %s %s\n", q.Name, dns.Class(q.Qclass), dns.Type(q.Qtype))
	}
	section(&b, "answer", m.Answer)
	section(&b, "authority", m.Ns)
	section(&b, "additional", m.Extra)
	for _, rr := range m.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			printOPT(&b, opt)
		}
	}
	return b.String(), nil
}

func opcode(n int) string {
	if s, ok := dns.OpcodeToString[n]; ok {
		return s
	}
	return fmt.Sprintf("OPCODE%d", n)
}

func rcode(n int) string {
	if n == dns.RcodeBadVers {
		return "BADVERS" // miekg/dns calls it BADSIG, which shares the number
	}
	if s, ok := dns.RcodeToString[n]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", n)
}

func flags(m *dns.Msg) string {
	var s string
	for _, f := range []struct {
		on   bool
		name string
	}{
		{m.Response, "qr"}, {m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionDesired, "rd"},
		{m.RecursionAvailable, "ra"}, {m.Zero, "z"}, {m.AuthenticatedData, "ad"}, {m.CheckingDisabled, "cd"},
	} {
		if f.on {
			s += " " + f.name
		}
	}
	return s
}

func section(b *strings.Builder, name string, rrs []dns.RR) {
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			text := rr.String()
			if sig, ok := rr.(*dns.RRSIG); ok {
				text = strings.TrimSuffix(text, sig.Signature) + "…"
			}
			fmt.Fprintf(b, "%s: %s\n", name, strings.ReplaceAll(text, "\t", " "))
		}
	}
}

func printOPT(b *strings.Builder, opt *dns.OPT) {
	fmt.Fprintf(b, "opt: version %d udp %d", opt.Version(), opt.UDPSize())
	if opt.Do() {
		b.WriteString(" do")
	}
	b.WriteString("\n")
	for _, o := range opt.Option {
		switch o := o.(type) {
		case *dns.EDNS0_SUBNET:
			a, _ := netip.AddrFromSlice(o.Address)
			switch o.Family {
			case 0:
				fmt.Fprintf(b, "ecs without family /%d/%d\n", o.SourceNetmask, o.SourceScope)
			case 1:
				fmt.Fprintf(b, "ecs %s/%d/%d\n", a.Unmap(), o.SourceNetmask, o.SourceScope)
			default:
				fmt.Fprintf(b, "ecs %s/%d/%d\n", a, o.SourceNetmask, o.SourceScope)
			}
		case *dns.EDNS0_NSID:
			fmt.Fprintf(b, "nsid %s\n", o.Nsid)
		default:
			fmt.Fprintf(b, "option %d: %s\n", o.Option(), o)
		}
	}
}
