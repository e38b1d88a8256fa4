package zones

import (
	"fmt"
	"strings"
)

// lint looks for what the rules of the DNS forbid or what will not do what its
// writer means. Errors are what named-checkzone refuses too, since a plain
// secondary must be able to take the zone over; the rest are warnings.
func (c *compiler) lint() {
	m := &c.z.img
	if m.set(0, typeNS) == nil {
		c.report(c.at[c.setIndex(0, typeSOA)], false, "add: @ NS and the name of a name server", "no NS at the apex %s", c.z.text)
	}
	c.lintChain()
	glue := c.targetsOfNS()
	for n := range m.nodes {
		nd := &m.nodes[n]
		if nd.nsets == 0 {
			continue
		}
		c.lintAlias(uint32(n))
		if n > 0 {
			c.lintCut(uint32(n), glue)
		}
		if nd.over != noNode {
			continue // what is occluded has been remarked on
		}
		for i := nd.sets; i < nd.sets+uint32(nd.nsets); i++ {
			c.lintTargets(uint32(n), i)
		}
	}
}

// name is the owner of a node for people.
func (c *compiler) name(n uint32) string { return FormatName(c.z.Owner(NodeID(n), nil)) }

// setIndex is the index of an RRset that exists.
func (c *compiler) setIndex(n uint32, rrtype uint16) uint32 {
	m := &c.z.img
	i := m.nodes[n].sets
	for m.sets[i].rrtype != rrtype {
		i++
	}
	return i
}

// eachTarget calls f with each domain name in the RDATA of an RRset, in lower case.
func (c *compiler) eachTarget(i uint32, f func(target []byte)) {
	s := &c.z.img.sets[i]
	wire := c.z.img.view(s).Wire
	for len(wire) > 0 {
		var rdata []byte
		rdata, wire = firstRecord(wire)
		walkRdata(s.rrtype, rdata, func(at, end int) {
			f(appendLower(nil, rdata[at:end]))
		})
	}
}

// targetsOfNS collects the nodes that an NS record of the zone names.
func (c *compiler) targetsOfNS() map[NodeID]bool {
	glue := map[NodeID]bool{}
	for i := range c.z.img.sets {
		if c.z.img.sets[i].rrtype == typeNS {
			c.eachTarget(uint32(i), func(target []byte) {
				if n, ok := c.z.Find(target); ok {
					glue[n] = true
				}
			})
		}
	}
	return glue
}

// lintAlias checks what may stand beside CNAME and DNAME (RFC 1034 §3.6.2,
// RFC 2181 §10.1, RFC 4035 §2.5, RFC 6672 §2.4).
func (c *compiler) lintAlias(n uint32) {
	m := &c.z.img
	nd := &m.nodes[n]
	for i := nd.sets; i < nd.sets+uint32(nd.nsets); i++ {
		s := &m.sets[i]
		if (s.rrtype == typeCNAME || s.rrtype == typeDNAME) && s.count > 1 {
			c.report(c.at[i], false, "keep one: an alias has one target", "%s has %d %s records", c.name(n), s.count, typeName(s.rrtype))
		}
		if nd.flags&flagCNAME == 0 {
			continue
		}
		switch s.rrtype {
		case typeCNAME, typeRRSIG, typeNSEC, typeKEY:
		default:
			c.report(c.at[i], false, "remove the CNAME, or everything else at this name; at the apex write addresses, or steer the name",
				"%s has a CNAME and other data (%s)", c.name(n), typeName(s.rrtype))
		}
	}
	if nd.flags&flagDNAME != 0 && nd.flags&flagCut != 0 {
		c.report(c.at[c.setIndex(n, typeDNAME)], true, "keep one of the two", "%s has NS and DNAME: what is below it is delegated, never redirected", c.name(n))
	}
}

// lintCut checks delegations, and what stands below cuts and DNAMEs and is
// never answered with authority. Node n is not the apex.
func (c *compiler) lintCut(n uint32, glue map[NodeID]bool) {
	m := &c.z.img
	nd := &m.nodes[n]
	cut := nd.flags&flagCut != 0
	if own := m.names[nd.name:]; cut && own[0] == 1 && own[1] == '*' {
		c.report(c.at[c.setIndex(n, typeNS)], false, "delegate each name that needs it", "%s is a wildcard with NS, which name servers refuse (RFC 4592 §4.2)", c.name(n))
	}
	if s := m.set(n, typeDS); s != nil && !cut {
		c.report(c.at[c.setIndex(n, typeDS)], true, "add the NS records of the delegation, or remove the DS", "%s has DS but no NS: it is no delegation", c.name(n))
	}
	if !cut && nd.over == noNode {
		return
	}
	for i := nd.sets; i < nd.sets+uint32(nd.nsets); i++ {
		rrtype := m.sets[i].rrtype
		address := rrtype == typeA || rrtype == typeAAAA
		switch {
		case rrtype == typeRRSIG || rrtype == typeNSEC || rrtype == typeNSEC3:
		case nd.over == noNode && (rrtype == typeNS || rrtype == typeDS || rrtype == typeDNAME):
		case address && glue[NodeID(n)]:
		case nd.over != noNode && m.nodes[nd.over].flags&flagCut == 0:
			c.report(c.at[i], true, "remove it, or the DNAME; other name servers refuse such a zone (RFC 6672 §2.4)",
				"%s %s is below the DNAME at %s and is never answered", c.name(n), typeName(rrtype), c.name(nd.over))
		default:
			at := n
			if nd.over != noNode {
				at = nd.over
			}
			c.report(c.at[i], true, "it belongs into the delegated zone; here only the NS, the DS and the addresses of name servers count",
				"%s %s is occluded by the delegation of %s and is never answered", c.name(n), typeName(rrtype), c.name(at))
		}
	}
}

// lintTargets checks that the names which NS, MX and SRV point at in this zone
// have addresses and are no aliases (RFC 2181 §10.3, RFC 2782).
func (c *compiler) lintTargets(n, i uint32) {
	s := &c.z.img.sets[i]
	if s.rrtype != typeNS && s.rrtype != typeMX && s.rrtype != typeSRV {
		return
	}
	if s.rrtype != typeNS && c.z.img.nodes[n].flags&flagCut != 0 {
		return
	}
	// Without an address of its own name server nobody finds the zone.
	fatal := s.rrtype == typeNS && n == 0
	what := c.name(n) + " " + typeName(s.rrtype)
	c.eachTarget(i, func(target []byte) {
		if len(target) == 1 {
			return // "." says that there is none (RFC 7505, RFC 2782)
		}
		var r Result
		c.z.Lookup(target, typeA, &r)
		to := FormatName(target)
		switch r.Kind {
		case CNAME, DNAME:
			c.report(c.at[i], !fatal, "point it at the name that has the addresses", "%s points at %s, which is an alias", what, to)
		case NXDomain, NoData, Found:
			if !c.hasAddress(r.Node) || r.Kind == NXDomain {
				c.report(c.at[i], !fatal, "add an A or AAAA record for "+to+", or correct the name: is its final dot missing?", "%s points at %s, which has no address", what, to)
			}
		case Referral:
			// Only the addresses of its own name servers are needed to enter a
			// delegated zone (RFC 9471).
			if s.rrtype == typeNS && uint32(r.Node) == n {
				if g, ok := c.z.Find(target); !ok || !c.hasAddress(g) {
					c.report(c.at[i], true, "add the addresses of "+to+" here as glue", "%s points at %s below the cut, which has no glue: resolvers cannot reach it", what, to)
				}
			}
		}
	})
}

func (c *compiler) hasAddress(n NodeID) bool {
	return c.z.img.set(uint32(n), typeA) != nil || c.z.img.set(uint32(n), typeAAAA) != nil
}

// syntaxHint has the cure for what the parser commonly says.
func syntaxHint(text string) string {
	for _, h := range []struct{ part, hint string }{
		{"owner name", fmt.Sprintf("a label has 1 to %d octets, a name at most %d", maxLabelBytes, maxNameBytes)},
		{"missing TTL", "put $TTL and a number of seconds at the top of the file"},
		{"not a TTL", "this word is no TTL, class or type: is one misspelt, or does the line continue the one before without parentheses?"},
		{"$INCLUDE directive not allowed", "this text has no folder to include from"},
		{"failed to open", "$INCLUDE reads files in the zone file's folder and below it, and no links that lead out of it"},
		{"unknown RR type", "is the type misspelt? Types without a name are written TYPE65400 \\# 2 ab12 (RFC 3597)"},
		{"RR type, TTL or class", "is the type misspelt? Types without a name are written TYPE65400 \\# 2 ab12 (RFC 3597)"},
		{"brace", "parentheses do not match"},
		{"more than", ""},
	} {
		if strings.Contains(text, h.part) {
			return h.hint
		}
	}
	return "compare the record with its form in RFC 1035 §5.1; the fault may be on the line before"
}
