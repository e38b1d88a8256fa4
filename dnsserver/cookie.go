package dnsserver

import (
	"encoding/binary"
	"net/netip"
	"time"

	"perigee.example/internal/siphash"
)

const (
	clientCookieLen = 8  // RFC 7873 §4.1
	serverCookieLen = 16 // of ours: version, three reserved octets, time, hash (RFC 9018 §4)
	minServerCookie = 8  // of anybody's (RFC 7873 §4.2)
	maxServerCookie = 32

	cookieVersion = 1

	// A server cookie holds for an hour, is made anew after half of it, and may
	// come from a clock of our own fleet that is five minutes ahead (RFC 9018 §4.3).
	cookieLife  = time.Hour
	cookieRenew = 30 * time.Minute
	cookieAhead = 5 * time.Minute
)

// CookieSecrets make and check server cookies. Treat them as immutable, and
// swap them whole: nodes that answer at one address need the same ones.
//
// A rollover in a fleet gives the new secret to every node as Accept, then as
// Make with the old one as Accept, and after an hour forgets the old one
// (RFC 9018 §5). A single node can begin with the second step.
type CookieSecrets struct {
	Make   [16]byte // new cookies are made with it
	Accept [16]byte // cookies made with it are good too; zero is none
}

// cookie is the COOKIE option of a query (RFC 7873 §4).
type cookie struct {
	present bool
	client  [clientCookieLen]byte
	server  [maxServerCookie]byte
	size    uint8 // octets of server; 0 when the client has none yet
}

// read takes the option's data over. It is false for a length that no cookie
// has (RFC 7873 §5.2.2).
func (k *cookie) read(data []byte) bool {
	server := len(data) - clientCookieLen
	if server != 0 && (server < minServerCookie || server > maxServerCookie) {
		return false
	}
	k.present, k.size = true, uint8(server)
	copy(k.client[:], data)
	copy(k.server[:], data[clientCookieLen:])
	return true
}

// hash is the last part of a server cookie: over the client's cookie, the first
// eight octets of the server's, and the client's address (RFC 9018 §4.4).
func (k *cookie) hash(secret [16]byte, head [8]byte, client netip.Addr) (sum [8]byte) {
	var b [clientCookieLen + 8 + 16]byte
	copy(b[:], k.client[:])
	copy(b[clientCookieLen:], head[:])
	n := clientCookieLen + 8
	if client.Is4() {
		a := client.As4()
		n += copy(b[n:], a[:])
	} else {
		a := client.As16()
		n += copy(b[n:], a[:])
	}
	binary.LittleEndian.PutUint64(sum[:], siphash.Sum64(secret, b[:n]))
	return sum
}

// check reports whether the client's server cookie is one of ours that still
// holds, and if so the one to send back: the same, or a new one when it is half
// spent or of a secret that goes. What does not hold gets a new one.
func (k *cookie) check(s *CookieSecrets, client netip.Addr, now time.Duration) (valid bool, reply [serverCookieLen]byte) {
	client = client.Unmap().WithZone("")
	seconds := uint32(now / time.Second)
	if k.size == serverCookieLen {
		head, mac := [8]byte(k.server[:8]), [8]byte(k.server[8:serverCookieLen])
		// Serial arithmetic, so that it goes on after the year 2106 (RFC 1982).
		age := time.Duration(int32(seconds-binary.BigEndian.Uint32(head[4:]))) * time.Second
		if head[0] == cookieVersion && age <= cookieLife && age >= -cookieAhead {
			made := same(k.hash(s.Make, head, client), mac)
			valid = made || s.Accept != [16]byte{} && same(k.hash(s.Accept, head, client), mac)
			if made && age < cookieRenew {
				return true, [serverCookieLen]byte(k.server[:serverCookieLen])
			}
		}
	}
	head := [8]byte{cookieVersion}
	binary.BigEndian.PutUint32(head[4:], seconds)
	mac := k.hash(s.Make, head, client)
	copy(reply[:], head[:])
	copy(reply[8:], mac[:])
	return valid, reply
}

// same compares without telling by its time how much is the same.
func same(a, b [8]byte) bool {
	diff := byte(0)
	for i := range a {
		diff |= a[i] ^ b[i]
	}
	return diff == 0
}
