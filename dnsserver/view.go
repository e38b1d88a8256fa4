package dnsserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"perigee.example/policy"
	"perigee.example/zones"
)

// View is everything an answer needs: the table of zones, each a snapshot of
// its own, with the policies and what binds them to names. Immutable, and safe
// for concurrent use. A nil View serves nothing and refuses every query.
type View struct {
	table     *table
	zones     zoneList // in the order of table.origins
	policies  *policy.Set
	unknown   *policy.State // for a Context without State
	endpoints []packedEndpoint
	has4      []bool // which endpoints have IPv4 addresses
	has6      []bool
	nsid      []byte
	chaos     Chaos
	bindings  map[string][]Binding // by origin, lower case with the final dot
	fallback  bool                 // ViewConfig.SignedFallback
}

// zoneChunk is how many zones With copies for one that changed, beside a list
// of chunks: with a few hundred, 20,000 zones cost a few kilobytes.
const zoneChunk = 256

// zoneList is a list in chunks, so that a changed one shares all chunks but its
// own with the old.
type zoneList [][]*servedZone

func newZoneList(n int) zoneList {
	var l zoneList
	for ; n > 0; n -= zoneChunk {
		l = append(l, make([]*servedZone, min(n, zoneChunk)))
	}
	return l
}

func (l zoneList) at(i int) *servedZone { return l[i/zoneChunk][i%zoneChunk] }

// put sets an entry of a list that nobody reads yet.
func (l zoneList) put(i int, s *servedZone) { l[i/zoneChunk][i%zoneChunk] = s }

// with returns a list with another zone at i.
func (l zoneList) with(i int, s *servedZone) zoneList {
	next := slices.Clone(l)
	next[i/zoneChunk] = slices.Clone(next[i/zoneChunk])
	next.put(i, s)
	return next
}

// servedZone is one zone with what steers names in it.
type servedZone struct {
	zone     *zones.Zone
	origin   string
	labels   int // of the origin, the root not counted
	steer    steerTable
	negative negative
	// unsteered is why nothing is, in a zone that is signed elsewhere.
	unsteered []error
}

// ViewConfig is what a View is made from.
type ViewConfig struct {
	Zones     []*zones.Zone
	Policies  *policy.Set // may be nil when Steer is empty
	Steer     []Binding
	Endpoints []Endpoint // one for each endpoint of Policies, in order
	NSID      []byte     // answered when asked (RFC 5001); nil never
	Chaos     Chaos      // answered in class CH; empty refuses
	// SignedFallback has a zone that is signed elsewhere answer with its own
	// RRsets where names are steered in it; Unsteered tells of them. Without it
	// they are an error.
	SignedFallback bool
}

// Binding steers the A and AAAA RRsets, or the CNAME, of one owner name.
type Binding struct {
	Zone   string // origin, presentation form
	Name   string // owner, fully qualified, presentation form; may be a wildcard
	Policy string // a root of Policies
	// Mixed allows endpoints that lack addresses of a family that the name has:
	// what has none of the type asked for is then left out of the choice.
	Mixed bool
}

// Endpoint is what DNS hands out for one endpoint: addresses, for names that
// own A or AAAA in their zone, or a name, for those that own a CNAME.
type Endpoint struct {
	Addresses []netip.Addr
	Target    string // a domain name, fully qualified, or empty
}

const (
	// maxAddresses bounds one endpoint's addresses of one family: eight
	// endpoints of sixteen addresses fill a UDP reply twice over.
	maxAddresses = 16
	// maxNSID bounds the identity: it shares 1232 octets with every answer.
	maxNSID = 128
)

// BindingError is a steered name that cannot be steered.
type BindingError struct {
	Binding Binding
	Text    string
	Hint    string
}

func (e *BindingError) Error() string { return e.Binding.Name + ": " + e.Text }

// NewView checks the bindings against the zones and precomputes what answers
// need. The error is a list (errors.Join) of *BindingError for what is wrong
// with a binding, and of plain errors for the rest.
//
// Steering replaces an RRset and never creates one: the name must be in the
// zone with A or AAAA, and then every endpoint that its policy can lead to
// needs addresses of the families it has (but see Binding.Mixed); or with a CNAME, and then every one
// needs a target. It may be a wildcard owner. It may not be the target of an
// NS record of the zone, stand below a zone cut or a DNAME, or be in a zone
// that is signed elsewhere (but see SignedFallback).
func NewView(c ViewConfig) (*View, error) {
	v := &View{policies: c.Policies, chaos: c.Chaos, fallback: c.SignedFallback, bindings: map[string][]Binding{}}
	var errs []error
	if len(c.NSID) > maxNSID {
		errs = append(errs, fmt.Errorf("NSID has %d octets: at most %d fit beside every answer", len(c.NSID), maxNSID))
	} else if c.NSID != nil {
		v.nsid = append([]byte{}, c.NSID...)
	}
	if err := c.Chaos.check(); err != nil {
		errs = append(errs, err)
	}
	if c.Policies != nil {
		v.unknown = c.Policies.NewState()
		c.Policies.Prepare(v.unknown)
		if have := len(v.unknown.Endpoints); have != len(c.Endpoints) {
			return nil, fmt.Errorf("%d endpoints for policies that have %d: give one for each, in order", len(c.Endpoints), have)
		}
	}
	for i := range c.Endpoints {
		p, err := packEndpoint(&c.Endpoints[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoint %d: %w", i, err))
		}
		v.endpoints = append(v.endpoints, p)
		v.has4, v.has6 = append(v.has4, p.v4 != nil), append(v.has6, p.v6 != nil)
	}
	served := map[string]bool{}
	for _, z := range c.Zones {
		served[z.Origin()] = true
	}
	for _, b := range c.Steer {
		origin, err := canonical(b.Zone)
		switch {
		case err != nil:
			errs = append(errs, &BindingError{b, fmt.Sprintf("zone %q is not a domain name: %v", b.Zone, err), "write it as in example.com"})
		case !served[origin]:
			errs = append(errs, &BindingError{b, fmt.Sprintf("zone %s is not served", origin), "load its file, or remove what steers names in it"})
		default:
			v.bindings[origin] = append(v.bindings[origin], b)
		}
	}
	errs = append(errs, v.build(c.Zones, nil)...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return v, nil
}

// canonical is a name in presentation form, lower case, with the final dot.
func canonical(text string) (string, error) {
	wire, err := wireName(text)
	return zones.FormatName(wire), err
}

// wireName is a name in lower-case wire form.
func wireName(text string) ([]byte, error) {
	wire, err := zones.ParseName(text)
	if err != nil {
		return []byte{0}, err
	}
	var low [maxNameLen]byte
	if !lowerName(&low, wire) {
		return []byte{0}, errors.New("not a domain name")
	}
	return append([]byte(nil), low[:len(wire)]...), nil
}

// build fills in the zones; those that old serves as the same snapshot are
// taken from there.
func (v *View) build(list []*zones.Zone, old *View) []error {
	var errs []error
	origins := make([][]byte, len(list))
	v.zones = newZoneList(len(list))
	for i, z := range list {
		origins[i] = z.OriginWire()
		if at := old.exact(z.OriginWire()); at >= 0 && old.zones.at(at).zone == z {
			v.zones.put(i, old.zones.at(at))
			continue
		}
		s, wrong := v.serve(z)
		errs = append(errs, wrong...)
		v.zones.put(i, s)
	}
	v.table = newTable(origins)
	for i, origin := range origins {
		if v.exact(origin) != i {
			errs = append(errs, fmt.Errorf("zone %s is given twice", list[i].Origin()))
		}
	}
	return errs
}

// exact returns the index of the zone with this origin, or -1.
func (v *View) exact(origin []byte) int {
	if v == nil || v.table == nil {
		return -1
	}
	return v.table.get(hashName(origin), origin)
}

// With returns a View that serves the changed zones in place of those of the
// same origin, or beside the others. All else is shared with v, so that one
// changed zone of many costs little. The error is as of NewView, and v stands
// as it is.
func (v *View) With(changed ...*zones.Zone) (*View, error) {
	w := *v
	var errs []error
	var added []*zones.Zone
	for _, z := range changed {
		at := v.exact(z.OriginWire())
		if at < 0 {
			added = append(added, z)
			continue
		}
		s, wrong := v.serve(z)
		errs = append(errs, wrong...)
		w.zones = w.zones.with(at, s)
	}
	if len(added) > 0 {
		had := w
		errs = append(errs, w.build(append(had.list(nil), added...), &had)...)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &w, nil
}

// Without returns a View that no longer serves the zones with these origins,
// in presentation form. Names that are steered in one of them are an error.
func (v *View) Without(origins ...string) (*View, error) {
	gone := map[string]bool{}
	var errs []error
	for _, o := range origins {
		origin, err := canonical(o)
		if err != nil {
			errs = append(errs, fmt.Errorf("zone %q: %w", o, err))
		}
		gone[origin] = true
		for _, b := range v.bindings[origin] {
			errs = append(errs, &BindingError{b, fmt.Sprintf("zone %s would not be served any more", origin), "remove what steers names in it first"})
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	w := *v
	if errs := w.build(v.list(gone), v); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &w, nil
}

// list returns the zones but those that are gone.
func (v *View) list(gone map[string]bool) []*zones.Zone {
	var list []*zones.Zone
	for _, chunk := range v.zones {
		for _, s := range chunk {
			if !gone[s.origin] {
				list = append(list, s.zone)
			}
		}
	}
	return list
}

// Zone returns the zone with this origin, in presentation form, or nil.
func (v *View) Zone(origin string) *zones.Zone {
	if s := v.served(origin); s != nil {
		return s.zone
	}
	return nil
}

func (v *View) served(origin string) *servedZone {
	wire, err := wireName(origin)
	if err != nil {
		return nil
	}
	if at := v.exact(wire); at >= 0 {
		return v.zones.at(at)
	}
	return nil
}

// Unsteered tells, with SignedFallback, of the names that are not steered
// because their zone is signed elsewhere. Each is a *BindingError.
func (v *View) Unsteered() []error {
	var list []error
	for _, origin := range slices.Sorted(maps.Keys(v.bindings)) {
		if z := v.served(origin); z != nil {
			list = append(list, z.unsteered...)
		}
	}
	return list
}

// find returns the zone to answer name and qtype from, or nil. The DS RRset of
// a zone is its parent's, when that is ours too (RFC 4035 §3.1.4.1).
func (v *View) find(name []byte, qtype uint16) *servedZone {
	if v == nil || v.table == nil {
		return nil
	}
	at := v.table.find(name, 0)
	if at < 0 {
		return nil
	}
	if qtype == typeDS && len(name) > 1 && len(v.table.origins[at]) == len(name) {
		if parent := v.table.find(name, 1); parent >= 0 {
			at = parent
		}
	}
	return v.zones.at(at)
}

// packedEndpoint is an Endpoint as records ready to copy, TTL left open.
type packedEndpoint struct {
	v4, v6 []byte // as zones.RRset.Wire
	target []byte // wire form, as written; nil when it has none
}

func packEndpoint(e *Endpoint) (packedEndpoint, error) {
	var p packedEndpoint
	seen := map[netip.Addr]bool{}
	for _, a := range e.Addresses {
		a = a.Unmap().WithZone("")
		switch {
		case !a.IsValid():
			return p, errors.New("an address is the zero netip.Addr")
		case seen[a]:
			continue // duplicate records collapse (RFC 2181 §5)
		case a.Is4():
			p.v4 = appendAddress(p.v4, typeA, a.AsSlice())
		default:
			p.v6 = appendAddress(p.v6, typeAAAA, a.AsSlice())
		}
		seen[a] = true
	}
	if n := max(len(p.v4)/addressLen(typeA), len(p.v6)/addressLen(typeAAAA)); n > maxAddresses {
		return p, fmt.Errorf("%d addresses of one family: at most %d", n, maxAddresses)
	}
	if strings.TrimSpace(e.Target) != "" {
		wire, err := zones.ParseName(e.Target)
		if err != nil {
			return p, fmt.Errorf("target %q: %w", e.Target, err)
		}
		p.target = wire
	}
	return p, nil
}

// addressLen is the length of a packed A or AAAA record.
func addressLen(rrtype uint16) int {
	if rrtype == typeA {
		return pointerLen + recordFixed + 4
	}
	return pointerLen + recordFixed + 16
}

func appendAddress(b []byte, rrtype uint16, addr []byte) []byte {
	b = append(b, 0xC0, headerLen)
	b = binary.BigEndian.AppendUint16(b, rrtype)
	b = append(b, 0, classIN, 0, 0, 0, 0, 0, byte(len(addr)))
	return append(b, addr...)
}

// having says which endpoints have addresses of a type.
func (v *View) having(rrtype uint16) []bool {
	if rrtype == typeA {
		return v.has4
	}
	return v.has6
}

// of returns the packed records of an address type.
func (p *packedEndpoint) of(rrtype uint16) []byte {
	if rrtype == typeA {
		return p.v4
	}
	return p.v6
}
