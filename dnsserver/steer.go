package dnsserver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"perigee.example/policy"
	"perigee.example/zones"
)

// steered is a name that a policy answers for.
type steered struct {
	root  policy.Name
	alias bool // an alias name: the zone owns a CNAME there, and every endpoint has a target
	mixed bool // an address name whose endpoints may lack a family that it has
}

// steerTable finds what is steered by node, in open addressing: with a map, one
// that is not cost as much to find out as its name. The zero value is empty.
type steerTable struct {
	bits  uint64 // has the bit of each node in slots: most that are not end there
	shift uint
	slots []steerSlot // by half full; to is nil in a free one
}

type steerSlot struct {
	node zones.NodeID
	to   *steered
}

// newSteerTable makes a table for up to n nodes.
func newSteerTable(n int) steerTable {
	k := bits.Len(uint(2*n - 1))
	return steerTable{shift: uint(32 - k), slots: make([]steerSlot, 1<<k)}
}

// spread is the node's hash.
func (t *steerTable) spread(node zones.NodeID) uint32 { return uint32(node) * (fibonacci >> 32) }

// get is what steers a node, or nil.
func (t *steerTable) get(node zones.NodeID) *steered {
	h := t.spread(node)
	if t.bits>>(h>>26)&1 == 0 {
		return nil
	}
	return t.find(node, h)
}

func (t *steerTable) find(node zones.NodeID, h uint32) *steered {
	for i := int(h >> t.shift); ; i = (i + 1) & (len(t.slots) - 1) {
		if s := &t.slots[i]; s.to == nil || s.node == node {
			return s.to
		}
	}
}

// put enters a node that is not in the table yet.
func (t *steerTable) put(node zones.NodeID, to *steered) {
	h := t.spread(node)
	t.bits |= 1 << (h >> 26)
	i := int(h >> t.shift)
	for t.slots[i].to != nil {
		i = (i + 1) & (len(t.slots) - 1)
	}
	t.slots[i] = steerSlot{node, to}
}

// serve makes the table of steered names of a zone. The errors are of
// type *BindingError.
func (v *View) serve(z *zones.Zone) (*servedZone, []error) {
	s := &servedZone{zone: z, origin: z.Origin(), labels: labels(z.OriginWire()), negative: packNegative(z)}
	bindings := v.bindings[s.origin]
	if len(bindings) == 0 {
		return s, nil
	}
	if z.Signed() && v.fallback {
		for _, b := range bindings {
			e := signedElsewhere(s)
			e.Binding = b
			s.unsteered = append(s.unsteered, e)
		}
		return s, nil
	}
	s.steer = newSteerTable(len(bindings))
	names := make(map[string]Binding, len(bindings)) // by wire name
	var errs []error
	for _, b := range bindings {
		if err := v.bind(s, b, names); err != nil {
			err.Binding = b
			errs = append(errs, err)
		}
	}
	return s, append(errs, nsTargets(z, names)...)
}

func signedElsewhere(s *servedZone) *BindingError {
	return &BindingError{Text: fmt.Sprintf("zone %s is signed elsewhere (it has a DNSKEY): a steered answer would not validate", s.origin),
		Hint: "steer in an unsigned zone, or remove the DNSKEY and the signatures from this one"}
}

// bind checks one binding and enters it.
func (v *View) bind(s *servedZone, b Binding, names map[string]Binding) *BindingError {
	if s.zone.Signed() {
		return signedElsewhere(s)
	}
	name, err := wireName(b.Name)
	if err != nil {
		return &BindingError{Text: fmt.Sprintf("not a domain name: %v", err), Hint: "write it as in www.example.com"}
	}
	if _, twice := names[string(name)]; twice {
		return &BindingError{Text: "is steered twice", Hint: "keep one of the two lines"}
	}
	names[string(name)] = b
	node, e := steerable(s, name)
	if e != nil {
		return e
	}
	if v.policies == nil {
		return &BindingError{Text: "there are no policies", Hint: "give ViewConfig.Policies"}
	}
	root, ok := v.policies.Root(b.Policy)
	if !ok {
		return &BindingError{Text: fmt.Sprintf("no policy, edge or endpoint is called %s", b.Policy), Hint: "name one that the file defines"}
	}
	_, alias := s.zone.RRset(node, typeCNAME)
	for _, i := range v.policies.Reaches(root) {
		if e := v.suits(s, node, alias, b.Mixed, name, i); e != nil {
			return e
		}
	}
	if b.Mixed && !alias {
		if e := v.covers(s, node, root); e != nil {
			return e
		}
	}
	s.steer.put(node, &steered{root: root, alias: alias, mixed: b.Mixed && !alias})
	return nil
}

// steerable finds the node of a steered name and checks that the zone itself
// answers there.
func steerable(s *servedZone, name []byte) (zones.NodeID, *BindingError) {
	var r zones.Result
	s.zone.Lookup(name, typeA, &r)
	cut := ""
	if r.Kind == zones.Referral || r.Kind == zones.DNAME {
		cut = zones.FormatName(name[r.Suffix:])
	}
	switch r.Kind {
	case zones.NotInZone:
		return 0, &BindingError{Text: "is not in zone " + s.origin, Hint: "write it below that zone, or move it to the zone it belongs to"}
	case zones.Referral:
		return 0, &BindingError{Text: "is at or below the zone cut " + cut + ", so another server answers for it", Hint: "steer it where that zone is served"}
	case zones.DNAME:
		return 0, &BindingError{Text: "is below the DNAME of " + cut + ", so it has no records", Hint: "steer the name that the DNAME leads to"}
	}
	node, ok := s.zone.Find(name)
	if !ok || r.Wildcard {
		return 0, &BindingError{Text: "is not in the zone: steering replaces records and never creates them",
			Hint: "add it to the zone with the A and AAAA records, or the CNAME, to fall back on"}
	}
	for _, t := range []uint16{typeA, typeAAAA, typeCNAME} {
		if _, ok := s.zone.RRset(node, t); ok {
			return node, nil
		}
	}
	return 0, &BindingError{Text: "has no A, AAAA or CNAME record in the zone: steering replaces records and never creates them",
		Hint: "add the A and AAAA records, or the CNAME, to fall back on"}
}

// suits checks that endpoint i can answer for a name.
func (v *View) suits(s *servedZone, node zones.NodeID, alias, mixed bool, name []byte, i int) *BindingError {
	p := &v.endpoints[i]
	label := v.policies.Endpoint(i).Name
	if alias {
		if p.target == nil {
			return &BindingError{Text: fmt.Sprintf("has a CNAME in the zone, and endpoint %s has no target to put there", label),
				Hint: "give the endpoint a target, or the name A and AAAA records instead of the CNAME"}
		}
		if same, err := wireName(zones.FormatName(p.target)); err == nil && bytes.Equal(same, name) {
			return &BindingError{Text: fmt.Sprintf("endpoint %s has this very name as its target", label), Hint: "a CNAME must lead elsewhere"}
		}
		return nil
	}
	if p.v4 == nil && p.v6 == nil {
		return &BindingError{Text: fmt.Sprintf("has addresses in the zone, and endpoint %s has none to put there", label),
			Hint: "give the endpoint addresses, or the name a CNAME instead of its addresses"}
	}
	for _, f := range addressTypes {
		if _, has := s.zone.RRset(node, f.rrtype); has && p.of(f.rrtype) == nil && !mixed {
			return &BindingError{Text: fmt.Sprintf("has %s records in the zone, and endpoint %s has no %s address", f.name, label, f.family),
				Hint: fmt.Sprintf(`give the endpoint an %s address, remove the %s records from the name, or write families = "mixed" in the policy`, f.family, f.name)}
		}
	}
	return nil
}

// addressTypes are the types of an address name.
var addressTypes = [...]struct {
	rrtype       uint16
	name, family string
}{{typeA, "A", "IPv4"}, {typeAAAA, "AAAA", "IPv6"}}

// covers checks that for each family that a name has there is some endpoint.
func (v *View) covers(s *servedZone, node zones.NodeID, root policy.Name) *BindingError {
	for _, f := range addressTypes {
		if _, has := s.zone.RRset(node, f.rrtype); !has {
			continue
		}
		having := v.having(f.rrtype)
		if !slices.ContainsFunc(v.policies.Reaches(root), func(i int) bool { return having[i] }) {
			return &BindingError{Text: fmt.Sprintf("has %s records in the zone, and no endpoint of the policy has an %s address", f.name, f.family),
				Hint: fmt.Sprintf("give one of them an %s address, or remove the %s records from the name", f.family, f.name)}
		}
	}
	return nil
}

// nsTargets finds those of the names that an NS record of the zone leads to:
// the addresses of a name server are glue and must be the same for everybody.
func nsTargets(z *zones.Zone, names map[string]Binding) []error {
	var errs []error
	var low [maxNameLen]byte
	for owner, node := range z.Names() {
		set, ok := z.RRset(node, typeNS)
		if !ok {
			continue
		}
		for rdata := range rdatas(set.Wire) {
			lowerName(&low, rdata)
			if b, steered := names[string(low[:len(rdata)])]; steered {
				errs = append(errs, &BindingError{b, "is a name server of " + zones.FormatName(owner) + ": its addresses must be the same for everybody",
					"steer another name, or give the name server a name of its own"})
			}
		}
	}
	return errs
}

// rdatas yields the RDATA of each record of a packed RRset.
func rdatas(wire []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(wire) >= pointerLen+recordFixed {
			end := pointerLen + recordFixed + int(binary.BigEndian.Uint16(wire[pointerLen+8:]))
			if !yield(wire[pointerLen+recordFixed : end]) {
				return
			}
			wire = wire[end:]
		}
	}
}
