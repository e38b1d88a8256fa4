package dnsserver

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

const (
	// maxUDP is the largest reply we send by UDP, and what our OPT says we
	// take: the figure of DNS Flag Day 2020, which crosses every common path
	// unfragmented.
	maxUDP = 1232
	// minUDP is what every client takes (RFC 1035 §4.2.1), also one whose OPT
	// says less (RFC 6891 §6.2.3).
	minUDP = 512
	// maxTCP is what the length prefix can say (RFC 1035 §4.2.2).
	maxTCP = 65535

	optLen = 11 // an OPT without options (RFC 6891 §6.1.2)

	optionNSID      = 3  // RFC 5001
	optionECS       = 8  // RFC 7871
	optionExpire    = 9  // RFC 7314
	optionCookie    = 10 // RFC 7873
	optionKeepalive = 11 // RFC 7828
	optionEDE       = 15 // RFC 8914

	cookieLen    = 4 + clientCookieLen + serverCookieLen
	keepaliveLen = 4 + 2
	expireLen    = 4 + 4
	edeLen       = 4 + 2
	// keepaliveUnit is what a TIMEOUT counts (RFC 7828 §3.1).
	keepaliveUnit = 100 * time.Millisecond
)

// edns is what the OPT of a query says.
type edns struct {
	present bool
	do      bool
	nsid    bool // the client asks for our identity
	version uint8
	size    uint16
	ecs     ecs
	cookie  cookie

	expire        bool // a secondary asks how long the zone holds
	keepalive     bool // the client asks how long it may idle
	keepaliveData bool // and says something itself, which it must not
}

// ecs is a client subnet option (RFC 7871 §6).
type ecs struct {
	present bool
	family  uint16 // 0 only with source 0: dig +subnet=0 sends it
	source  uint8
	addr    [16]byte
}

// read takes an OPT over: fixed is CLASS and TTL, rdata the options. It
// returns rcodeFormErr, rcodeBadVers or rcodeNoError.
func (e *edns) read(fixed, rdata []byte) uint16 {
	*e = edns{
		present: true,
		size:    binary.BigEndian.Uint16(fixed),
		version: fixed[3],
		do:      fixed[4]&0x80 != 0,
	}
	if e.version != 0 {
		return rcodeBadVers // its options may mean anything: RFC 6891 §6.1.3
	}
	for len(rdata) > 0 {
		if len(rdata) < 4 {
			return rcodeFormErr
		}
		code := binary.BigEndian.Uint16(rdata)
		n := int(binary.BigEndian.Uint16(rdata[2:]))
		if 4+n > len(rdata) {
			return rcodeFormErr
		}
		data := rdata[4 : 4+n]
		rdata = rdata[4+n:]
		// Unknown options are ignored (RFC 6891 §6.1.2). To read another: a
		// case here, a field in edns, and the reply's part in appendOPT.
		switch code {
		case optionNSID:
			e.nsid = true
		case optionECS:
			if e.ecs.present || !e.ecs.read(data) {
				e.ecs = ecs{}
				return rcodeFormErr
			}
		case optionExpire:
			e.expire = true
		case optionCookie:
			// Of several the first counts (RFC 7873 §5.2).
			if !e.cookie.present && !e.cookie.read(data) {
				return rcodeFormErr
			}
		case optionKeepalive:
			e.keepalive = true
			e.keepaliveData = e.keepaliveData || len(data) > 0
		}
	}
	return rcodeNoError
}

// read takes the option's data over. It is false for what RFC 7871 §6 and
// §7.2.1 tell a server to answer with FORMERR: a family we do not know, a
// prefix longer than the family's addresses, a SCOPE in a query, more or fewer
// octets than the prefix needs, or bits set beyond it.
func (e *ecs) read(data []byte) bool {
	if len(data) < 4 {
		return false
	}
	family, source, scope := binary.BigEndian.Uint16(data), data[2], data[3]
	addr := data[4:]
	bits := 0
	switch family {
	case 1:
		bits = 32
	case 2:
		bits = 128
	case 0: // no family needs to be named where there is no address
	default:
		return false
	}
	if scope != 0 || int(source) > bits || len(addr) != (int(source)+7)/8 {
		return false
	}
	if spare := source % 8; spare != 0 && addr[len(addr)-1]&(0xFF>>spare) != 0 {
		return false
	}
	*e = ecs{present: true, family: family, source: source}
	if len(addr) == 3 { // a /24, as most are: whole, so that it can be read whole before the cache has it
		binary.BigEndian.PutUint32(e.addr[:], uint32(addr[0])<<24|uint32(addr[1])<<16|uint32(addr[2])<<8)
		return true
	}
	copy(e.addr[:], addr)
	return true
}

// prefix returns the client's network, or false when the option names none:
// then the resolver's own address counts (RFC 7871 §7.1.2).
func (e *ecs) prefix() (netip.Prefix, bool) {
	switch {
	case !e.present || e.source == 0:
		return netip.Prefix{}, false
	case e.family == 1:
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(e.addr[:4])), int(e.source)), true
	default:
		return netip.PrefixFrom(netip.AddrFrom16(e.addr), int(e.source)), true
	}
}

// scope is a block's length in the family that the option counts in: that of
// an IPv4 client inside IPv6 (RFC 4291 §2.5.5.2) is one of 128 bits.
func (e *ecs) scope(length int) int {
	const mapped = 128 - 32
	if e.family == 1 {
		return length
	}
	if client, _ := e.prefix(); length > 0 && client.Addr().Is4In6() && client.Bits() >= mapped {
		return mapped + length
	}
	return length
}

// len is the length of the option in a reply.
func (e *ecs) len() int {
	if !e.present {
		return 0
	}
	return 4 + 4 + (int(e.source)+7)/8
}

// limit is the largest reply to send. What is not known to be a stream is
// treated as UDP.
func (e *edns) limit(t Transport) int {
	switch {
	case t == TCP:
		return maxTCP
	case !e.present:
		return minUDP
	}
	return min(max(int(e.size), minUDP), maxUDP)
}

// optReply is what the reply's OPT says of our own.
type optReply struct {
	nsid      []byte // nil: nothing
	cookie    bool   // with the client's cookie and server
	server    [serverCookieLen]byte
	keepalive bool
	timeout   uint16 // in keepaliveUnits
	expire    bool
	expiry    uint32 // seconds; 0 is not known, and then the option is left out
}

// options fills in what the reply's OPT will say, as far as it does not depend
// on the answer.
func (a *answer) options() {
	e, c := &a.q.edns, a.c
	if e.nsid && a.v != nil {
		a.opt.nsid = a.v.nsid
	}
	if e.cookie.present && c.Cookies != nil && a.rcode != rcodeFormErr {
		a.opt.cookie = true
		a.out.ValidCookie, a.opt.server = e.cookie.check(c.Cookies, c.From.Addr(), c.Now)
	}
	a.opt.expire = e.expire && a.q.qtype == typeSOA // RFC 7314 §3.1
	if e.keepalive && c.Transport == TCP {          // by UDP it is ignored: RFC 7828 §3.3.1
		a.opt.keepalive = true
		a.opt.timeout = uint16(min(max(c.Idle, 0)/keepaliveUnit, math.MaxUint16))
	}
}

// replyLen is the length of the OPT that appendOPT will write, without EDE.
func (e *edns) replyLen(o *optReply, rcode uint16) int {
	if !e.present {
		return 0
	}
	if rcode == rcodeBadVers {
		return optLen
	}
	n := optLen + e.ecs.len()
	if o.nsid != nil {
		n += 4 + len(o.nsid)
	}
	if o.cookie {
		n += cookieLen
	}
	if o.keepalive {
		n += keepaliveLen
	}
	if o.expire {
		n += expireLen
	}
	return n
}

// appendOPT appends the reply's OPT: our size and version, DO as it came
// (RFC 3225 §3), every other flag clear, and of the options those that were
// asked for, with the extended error ede if it is not 0. BADVERS carries none.
func (e *edns) appendOPT(b []byte, o *optReply, rcode uint16, scope uint8, ede uint16) []byte {
	rdlen := e.replyLen(o, rcode) - optLen
	if rcode == rcodeBadVers {
		ede = 0
	}
	if ede != 0 {
		rdlen += edeLen
	}
	flags := byte(0)
	if e.do {
		flags = 0x80
	}
	b = append(b, 0, 0, typeOPT, maxUDP>>8, maxUDP&0xFF, byte(rcode>>4), 0, flags, 0, byte(rdlen>>8), byte(rdlen))
	if rcode == rcodeBadVers {
		return b
	}
	if o.nsid != nil {
		b = append(b, 0, optionNSID, byte(len(o.nsid)>>8), byte(len(o.nsid)))
		b = append(b, o.nsid...)
	}
	if e.ecs.present {
		n := (int(e.ecs.source) + 7) / 8
		b = append(b, 0, optionECS, 0, byte(4+n), byte(e.ecs.family>>8), byte(e.ecs.family), e.ecs.source, scope)
		b = append(b, e.ecs.addr[:n]...)
	}
	if o.cookie {
		b = append(b, 0, optionCookie, 0, clientCookieLen+serverCookieLen)
		b = append(b, e.cookie.client[:]...)
		b = append(b, o.server[:]...)
	}
	if o.keepalive {
		b = append(b, 0, optionKeepalive, 0, 2, byte(o.timeout>>8), byte(o.timeout))
	}
	if o.expire {
		b = append(b, 0, optionExpire, 0, 4)
		b = binary.BigEndian.AppendUint32(b, o.expiry)
	}
	if ede != 0 {
		b = append(b, 0, optionEDE, 0, 2, byte(ede>>8), byte(ede))
	}
	return b
}
