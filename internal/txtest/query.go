package txtest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// DefaultFrom is the resolver that asks when a query says nothing else.
var DefaultFrom = netip.MustParseAddrPort("198.51.100.53:53053")

// queryID is the message ID when a query says nothing else: any will do, but
// it must be the same each time.
const queryID = 0x2f1d

// Query is a DNS query and what surrounds it.
type Query struct {
	Wire []byte
	From netip.AddrPort // the resolver
	TCP  bool
	At   time.Duration // on the test's clock
}

// draft is a query while its words are read.
type draft struct {
	id                uint16
	opcode            int
	flags             uint16
	name              string
	qtype, class      uint16
	questions         int
	edns              int // version; -1 is no OPT
	opts              int // how many OPT records
	size              uint16
	do                bool
	options, trailing []byte
	raw               []byte
}

// ParseQuery reads a query as one would give it to dig:
//
//	www.example.test [TYPE] [word …]
//
// The type is A when absent. Words: +ecs=PREFIX[/SCOPE], +bufsize=N, +noedns,
// +edns=VERSION, +do, +nsid, +opt=CODE[:HEX] (any EDNS option), +twoopts,
// +tcp, +nord, +ad, +cd, +z, +qr, +tc, +id=N, +opcode=N, +class=CH, +questions=N,
// +trailing=HEX, from=ADDRESS[:PORT], at=DURATION. Without words it has an OPT
// with 1232 octets, RD, and comes from DefaultFrom. "raw HEX" is the message
// itself, with any of the words about its surroundings.
func ParseQuery(text string) (Query, error) {
	q := Query{From: DefaultFrom}
	d := draft{id: queryID, flags: 0x0100, qtype: dns.TypeA, class: dns.ClassINET, questions: 1, opts: 1, size: 1232}
	words := strings.Fields(text)
	if len(words) == 0 {
		return q, fmt.Errorf("empty query")
	}
	d.name, words = words[0], words[1:]
	if d.name == "raw" {
		if len(words) == 0 {
			return q, fmt.Errorf("raw needs the message in hex")
		}
		raw, err := hex.DecodeString(words[0])
		if err != nil {
			return q, fmt.Errorf("raw: %w", err)
		}
		d.raw, words = raw, words[1:]
		if d.raw == nil {
			d.raw = []byte{}
		}
	}
	for _, w := range words {
		var err error
		switch key, value, _ := strings.Cut(w, "="); {
		case strings.HasPrefix(key, "+"):
			err = d.option(&q, key[1:], value)
		case key == "from":
			if q.From, err = netip.ParseAddrPort(value); err != nil {
				var a netip.Addr
				a, err = netip.ParseAddr(value)
				q.From = netip.AddrPortFrom(a, DefaultFrom.Port())
			}
		case key == "at":
			q.At, err = time.ParseDuration(value)
		default:
			d.qtype, err = parseType(w)
		}
		if err != nil {
			return q, fmt.Errorf("%s: %w", w, err)
		}
	}
	wire, err := d.wire()
	q.Wire = wire
	return q, err
}

func parseType(w string) (uint16, error) {
	if t, ok := dns.StringToType[strings.ToUpper(w)]; ok {
		return t, nil
	}
	if n, ok := strings.CutPrefix(strings.ToUpper(w), "TYPE"); ok {
		t, err := strconv.ParseUint(n, 10, 16)
		return uint16(t), err
	}
	return 0, fmt.Errorf("neither a type nor a word that ParseQuery knows")
}

func (d *draft) option(q *Query, key, value string) error {
	var n uint64
	var err error
	switch key { // those with a number
	case "bufsize", "edns", "id", "opcode", "questions":
		if n, err = strconv.ParseUint(value, 10, 16); err != nil {
			return err
		}
	}
	switch key {
	case "tcp":
		q.TCP = true
	case "bufsize":
		d.size = uint16(n)
	case "edns":
		d.edns = int(n)
	case "noedns":
		d.edns = -1
	case "id":
		d.id = uint16(n)
	case "opcode":
		d.opcode = int(n & 15)
	case "questions":
		d.questions = int(n)
	case "twoopts":
		d.opts = 2
	case "do":
		d.do = true
	case "nsid":
		d.addOption(dns.EDNS0NSID, nil)
	case "nord":
		d.flags &^= 0x0100
	case "qr":
		d.flags |= 0x8000
	case "tc":
		d.flags |= 0x0200
	case "z":
		d.flags |= 0x0040
	case "ad":
		d.flags |= 0x0020
	case "cd":
		d.flags |= 0x0010
	case "class":
		c, ok := dns.StringToClass[strings.ToUpper(value)]
		if !ok {
			return fmt.Errorf("no such class")
		}
		d.class = c
	case "ecs":
		return d.addECS(value)
	case "opt":
		return d.addHex(value)
	case "trailing":
		d.trailing, err = hex.DecodeString(value)
		return err
	default:
		return fmt.Errorf("ParseQuery does not know this word")
	}
	return nil
}

// addECS adds a client subnet option (RFC 7871 §6), "PREFIX" or "PREFIX/SCOPE".
func (d *draft) addECS(value string) error {
	var scope uint64
	if strings.Count(value, "/") == 2 {
		i := strings.LastIndexByte(value, '/')
		var err error
		if scope, err = strconv.ParseUint(value[i+1:], 10, 8); err != nil {
			return err
		}
		value = value[:i]
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return err
	}
	family := byte(1)
	if p.Addr().Is6() {
		family = 2
	}
	data := []byte{0, family, byte(p.Bits()), byte(scope)}
	d.addOption(dns.EDNS0SUBNET, append(data, p.Addr().AsSlice()[:(p.Bits()+7)/8]...))
	return nil
}

func (d *draft) addHex(value string) error {
	code, data, _ := strings.Cut(value, ":")
	n, err := strconv.ParseUint(code, 10, 16)
	if err != nil {
		return err
	}
	octets, err := hex.DecodeString(data)
	if err != nil {
		return err
	}
	d.addOption(uint16(n), octets)
	return nil
}

func (d *draft) addOption(code uint16, data []byte) {
	d.options = binary.BigEndian.AppendUint16(d.options, code)
	d.options = binary.BigEndian.AppendUint16(d.options, uint16(len(data)))
	d.options = append(d.options, data...)
}

func (d *draft) wire() ([]byte, error) {
	if d.raw != nil {
		return append(d.raw, d.trailing...), nil
	}
	arcount := 0
	if d.edns >= 0 {
		arcount = d.opts
	}
	b := binary.BigEndian.AppendUint16(nil, d.id)
	b = binary.BigEndian.AppendUint16(b, d.flags|uint16(d.opcode)<<11)
	b = binary.BigEndian.AppendUint16(b, uint16(d.questions))
	b = append(b, 0, 0, 0, 0, 0, byte(arcount))
	for range d.questions {
		name := make([]byte, 256)
		n, err := dns.PackDomainName(dns.Fqdn(d.name), name, 0, nil, false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.name, err)
		}
		b = append(b, name[:n]...)
		b = binary.BigEndian.AppendUint16(b, d.qtype)
		b = binary.BigEndian.AppendUint16(b, d.class)
	}
	for range arcount {
		b = append(b, 0, 0, byte(dns.TypeOPT))
		b = binary.BigEndian.AppendUint16(b, d.size)
		do := byte(0)
		if d.do {
			do = 0x80
		}
		b = append(b, 0, byte(d.edns), do, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(d.options)))
		b = append(b, d.options...)
	}
	return append(b, d.trailing...), nil
}
