package dnsserver

// Extended errors that we give (RFC 8914 §4). They are for people who look at a
// reply; 0, which stands for "other", is none.
const (
	edeStale            = 3  // the fleet is as it was last known
	edeNotReady         = 14 // nothing is loaded yet
	edeProhibited       = 18 // this server does not do that for you
	edeNotAuthoritative = 20 // the name is in no zone of ours
	edeNotSupported     = 21 // this server does not do that at all
)

// gate says what is said before any zone is asked. It is false when that is
// all: the query is faulty, is about something that zones do not hold, or is
// over a limit.
func (a *answer) gate() bool {
	q := &a.q
	switch {
	case a.rcode == rcodeNotImp:
		a.ede = edeNotSupported
		return false
	case a.rcode != rcodeNoError:
		return false
	case a.c.Transport == TCP && q.edns.keepaliveData:
		a.rcode = rcodeFormErr // a client has no time-out to tell: RFC 7828 §3.2.1
		return false
	case q.question == 0:
		a.rcode = a.cookieOnly()
		return false
	}
	chaos := q.qclass == classCH && a.v.text(q) != ""
	if !chaos {
		a.rcode = a.refuse()
	}
	switch {
	case a.rcode != rcodeNoError:
		return false
	case a.c.Limited:
		// Whoever really sits at the address comes back with the cookie, or by
		// TCP; the reply is no longer than the query to speak of.
		if a.opt.cookie && !a.out.ValidCookie {
			a.rcode = rcodeBadCookie
		} else {
			a.flags |= flagTC
		}
		return false
	case chaos:
		a.chaos()
		return false
	}
	return true
}

// restrain makes answers to ANY and RRSIG short for who may not sit at the
// address that the query came from. Nobody needs them, and forged queries for
// them are the classic way to get the largest answers there are; what is longer
// goes to who has a cookie or comes by TCP.
func (a *answer) restrain() {
	q := &a.q
	if (q.qtype == typeANY || q.qtype == typeRRSIG) && a.c.Transport != TCP && !a.out.ValidCookie {
		a.m.limit = min(a.m.limit, a.m.base+minUDP-q.edns.replyLen(&a.opt, a.rcode))
	}
}

// cookieOnly is the RCODE for a query without a question, which asks for a
// cookie or whether one still holds (RFC 7873 §5.4).
func (a *answer) cookieOnly() uint16 {
	switch {
	case !a.opt.cookie:
		return rcodeFormErr
	case a.q.edns.cookie.size > 0 && !a.out.ValidCookie:
		return rcodeBadCookie
	}
	return rcodeNoError
}

// refuse is the RCODE for well-formed queries that no zone is asked for.
func (a *answer) refuse() uint16 {
	q := &a.q
	if q.qclass != classIN {
		a.ede = edeProhibited
		return rcodeRefused // ANY too: we serve the Internet class
	}
	switch q.qtype {
	case 0, typeOPT, typeTKEY, typeTSIG, typeNXNAME:
		// None is a type to ask for: RFC 6895 §3.1, RFC 9824 §3.5.
		return rcodeFormErr
	case typeMAILA, typeMAILB:
		a.ede = edeNotSupported
		return rcodeNotImp // obsolete (RFC 1035 §3.2.3)
	case typeAXFR:
		if a.c.Transport != TCP {
			return rcodeFormErr // RFC 5936 §4.2: there is no AXFR by UDP
		}
		a.ede = edeProhibited
		return rcodeRefused // nobody is allowed a transfer
	case typeIXFR:
		a.ede = edeProhibited
		return rcodeRefused
	}
	return rcodeNoError
}
