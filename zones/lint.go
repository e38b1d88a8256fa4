package zones

import (
	"bytes"
	"fmt"
	"strings"
)

// lint looks for what the rules of the DNS forbid or what will not do what its
// writer means. Errors are what named-checkzone refuses too, since a plain
// secondary must be able to take the zone over; the rest are warnings.
func (c *compiler) lint() {
	if !c.m.at(0).has(typeNS) {
		c.l.fault(c.apexAt(typeSOA), "add: @ NS and the name of a name server", "no NS at the apex %s", c.z.text)
	}
	glue := c.targetsOfNS()
	c.m.nodes(func(n uint32, d node, sets int) {
		o := owner{id: NodeID(n), node: d, first: sets}
		if n == c.m.apex {
			o.id = Apex
		}
		if d.sets() == 0 {
			return
		}
		c.lintAlias(&o)
		if o.id != Apex {
			var low [maxNameBytes]byte
			_, o.over = c.z.occluder(appendLower(low[:0], d.name()))
			c.lintCut(&o, glue)
		}
		if o.over == nil { // what is occluded has been remarked on
			c.lintTargets(&o)
		}
	})
}

// owner is one owner that is looked at.
type owner struct {
	id    NodeID
	node  node
	first int  // RRsets before its own
	over  node // the topmost cut or DNAME owner strictly above; nil: none
}

// each calls f with each RRset and where it stood.
func (c *compiler) each(o *owner, f func(p pos, rrtype uint16, wire []byte, count int)) {
	w := o.node.all()
	for i := o.first; w.left > 0; i++ {
		wire, t, count := w.next()
		f(c.posOf(i), t, wire, count)
	}
}

// where is where an RRset of an owner stood, which exists.
func (c *compiler) where(o *owner, rrtype uint16) (at pos) {
	c.each(o, func(p pos, t uint16, _ []byte, _ int) {
		if t == rrtype {
			at = p
		}
	})
	return at
}

// name is a node's owner for people.
func (c *compiler) name(d node) string {
	return FormatName(append(bytes.Clone(d.name()), c.z.origin...))
}

// eachTarget calls f with each domain name in the records of an RRset, in
// lower case.
func eachTarget(rrtype uint16, wire []byte, f func(target []byte)) {
	var low [maxNameBytes]byte
	for len(wire) > 0 {
		var rdata []byte
		rdata, wire = firstRecord(wire)
		walkRdata(rrtype, rdata, func(at, end int) {
			f(appendLower(low[:0], rdata[at:end]))
		})
	}
}

// targetsOfNS collects the nodes that an NS record of the zone names.
func (c *compiler) targetsOfNS() map[NodeID]bool {
	glue := map[NodeID]bool{}
	c.m.nodes(func(_ uint32, d node, _ int) {
		if wire, _ := d.set(typeNS); wire != nil {
			eachTarget(typeNS, wire, func(target []byte) {
				if n, ok := c.z.Find(target); ok {
					glue[n] = true
				}
			})
		}
	})
	return glue
}

// lintAlias checks what may stand beside CNAME and DNAME (RFC 1034 §3.6.2,
// RFC 2181 §10.1, RFC 4035 §2.5, RFC 6672 §2.4).
func (c *compiler) lintAlias(o *owner) {
	flags := o.node.flags()
	if flags&(flagCNAME|flagDNAME) == 0 {
		return
	}
	c.each(o, func(p pos, rrtype uint16, _ []byte, count int) {
		if (rrtype == typeCNAME || rrtype == typeDNAME) && count > 1 {
			c.l.fault(p, "keep one: an alias has one target", "%s has %d %s records", c.name(o.node), count, typeName(rrtype))
		}
		if flags&flagCNAME == 0 {
			return
		}
		switch rrtype {
		case typeCNAME, typeRRSIG, typeNSEC, typeKEY:
		default:
			c.l.fault(p, "remove the CNAME, or everything else at this name; at the apex write addresses, or steer the name",
				"%s has a CNAME and other data (%s)", c.name(o.node), typeName(rrtype))
		}
	})
	if flags&flagDNAME != 0 && flags&flagCut != 0 {
		c.l.remark(c.where(o, typeDNAME), "keep one of the two", "%s has NS and DNAME: what is below it is delegated, never redirected", c.name(o.node))
	}
}

// lintCut checks delegations, and what stands below cuts and DNAMEs and is
// never answered with authority. The owner is not the apex.
func (c *compiler) lintCut(o *owner, glue map[NodeID]bool) {
	cut := o.node.flags()&flagCut != 0
	if own := o.node.name(); cut && own[0] == 1 && own[1] == '*' {
		c.l.fault(c.where(o, typeNS), "delegate each name that needs it", "%s is a wildcard with NS, which name servers refuse (RFC 4592 §4.2)", c.name(o.node))
	}
	if !cut && o.node.has(typeDS) {
		c.l.remark(c.where(o, typeDS), "add the NS records of the delegation, or remove the DS", "%s has DS but no NS: it is no delegation", c.name(o.node))
	}
	if !cut && o.over == nil {
		return
	}
	c.each(o, func(p pos, rrtype uint16, _ []byte, _ int) {
		address := rrtype == typeA || rrtype == typeAAAA
		switch {
		case rrtype == typeRRSIG || rrtype == typeNSEC || rrtype == typeNSEC3:
		case o.over == nil && (rrtype == typeNS || rrtype == typeDS || rrtype == typeDNAME):
		case address && glue[o.id]:
		case o.over != nil && o.over.flags()&flagCut == 0:
			c.l.remark(p, "remove it, or the DNAME; other name servers refuse such a zone (RFC 6672 §2.4)",
				"%s %s is below the DNAME at %s and is never answered", c.name(o.node), typeName(rrtype), c.name(o.over))
		default:
			at := o.node
			if o.over != nil {
				at = o.over
			}
			c.l.remark(p, "it belongs into the delegated zone; here only the NS, the DS and the addresses of name servers count",
				"%s %s is occluded by the delegation of %s and is never answered", c.name(o.node), typeName(rrtype), c.name(at))
		}
	})
}

// lintTargets checks that the names which NS, MX and SRV point at in this zone
// have addresses and are no aliases (RFC 2181 §10.3, RFC 2782).
func (c *compiler) lintTargets(o *owner) {
	c.each(o, func(p pos, rrtype uint16, wire []byte, _ int) {
		if rrtype != typeNS && (rrtype != typeMX && rrtype != typeSRV || o.node.flags()&flagCut != 0) {
			return
		}
		eachTarget(rrtype, wire, func(target []byte) { c.lintTarget(o, p, rrtype, target) })
	})
}

func (c *compiler) lintTarget(o *owner, p pos, rrtype uint16, target []byte) {
	if len(target) == 1 {
		return // "." says that there is none (RFC 7505, RFC 2782)
	}
	// Without an address of its own name server nobody finds the zone.
	report := c.l.remark
	if rrtype == typeNS && o.id == Apex {
		report = c.l.fault
	}
	what := func() string { return c.name(o.node) + " " + typeName(rrtype) }
	var r Result
	c.z.Lookup(target, typeA, &r)
	switch r.Kind {
	case CNAME, DNAME:
		report(p, "point it at the name that has the addresses", "%s points at %s, which is an alias", what(), FormatName(target))
	case NXDomain, NoData, Found:
		if !c.hasAddress(r.Node) || r.Kind == NXDomain {
			to := FormatName(target)
			report(p, "add an A or AAAA record for "+to+", or correct the name: is its final dot missing?", "%s points at %s, which has no address", what(), to)
		}
	case Referral:
		// Only the addresses of its own name servers are needed to enter a
		// delegated zone (RFC 9471).
		if rrtype == typeNS && r.Node == o.id {
			if g, ok := c.z.Find(target); !ok || !c.hasAddress(g) {
				to := FormatName(target)
				c.l.remark(p, "add the addresses of "+to+" here as glue", "%s points at %s below the cut, which has no glue: resolvers cannot reach it", what(), to)
			}
		}
	}
}

func (c *compiler) hasAddress(n NodeID) bool {
	return c.z.node(n).has(typeA) || c.z.node(n).has(typeAAAA)
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
