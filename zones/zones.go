// Package zones turns RFC 1035 master files into immutable, compiled zones,
// looks names up in them by the algorithm of RFC 1034 §4.3.2, and keeps a set
// of them up to date with their files.
//
//	store, err := zones.NewStore(zones.StoreConfig{
//		Globs:   []string{"zones/*.zone"}, // each file a zone, its name the origin
//		State:   "/var/lib/perigee/dns",   // last good copies, for the next start
//		Changed: func() { … },             // build a new view from store.Zones()
//	})
//	err = store.Reload(ctx)   // what is wrong, with file and line; the rest is served
//	go store.Watch(ctx)
//	…
//	var r zones.Result
//	zone.Lookup(name, qtype, &r)         // allocates nothing
//	set, ok := zone.RRset(r.Node, qtype) // ready to copy into a message
//
// It knows nothing of steering, of sockets, or of EDNS: dnsserver puts its
// results on the wire. It does not chase CNAMEs, sign, or transfer. Of a
// zone that is signed elsewhere it finds the signatures of an RRset and the
// NSEC or NSEC3 RRsets that prove what a Lookup found.
//
// Limits: 20 million records (Options.MaxRecords) and 512 MiB of text a zone,
// $INCLUDE and $GENERATE counted in; 10,000 $INCLUDEs, nested 7 deep, in the
// zone file's folder and below it; 65,536 steps a $GENERATE; an RRset must fit
// into a message by TCP. A loaded zone takes about 45 octets for a name with
// one address.
package zones

// Zone is one compiled zone: immutable, pointer-free inside, safe for
// concurrent use. Names go in and out in uncompressed wire form (RFC 1035
// §3.1), lower case, unless a method says otherwise.
//
// A large zone is memory outside of the Go heap, which goes with the Zone. Who
// holds an RRset, or a name that Names yields, must hold its Zone too, up to
// the last look (runtime.KeepAlive).
type Zone struct {
	base    *image
	overlay *image // owners that differ from base; nil when none do
	text    string // the origin in presentation form
	origin  []byte
	owners  int
	serial  uint32
	soa     RRset
	neg     RRset

	signatures bool // an RRSIG stands somewhere
	denial     Denial
	nsec       []uint32 // the nodes with NSEC, in canonical order; empty when NSEC3 is used
	nsec3Nodes []uint32 // the nodes of the NSEC3 chain, in the order of their hashes
	hashes     []byte   // those hashes, side by side
	nsec3      nsec3Params
	nsec3Apex  NodeID // the owner of the apex's NSEC3
}

// Origin is the apex name in presentation form: lower case, with the final dot.
func (z *Zone) Origin() string { return z.text }

// OriginWire is the apex name in lower-case wire form. Do not modify it.
func (z *Zone) OriginWire() []byte { return z.origin }

// Serial is the serial of the SOA.
func (z *Zone) Serial() uint32 { return z.serial }

// Len is the number of owner names, empty non-terminals not counted.
func (z *Zone) Len() int { return z.owners }

// Signed reports whether the apex has a DNSKEY RRset.
func (z *Zone) Signed() bool { return z.node(Apex).has(typeDNSKEY) }

// SOA returns the SOA RRset.
func (z *Zone) SOA() RRset { return z.soa }

// Negative returns the SOA RRset with its TTL cut to the negative TTL, the
// least of its own TTL and its MINIMUM field (RFC 2308 §3, §5).
func (z *Zone) Negative() RRset { return z.neg }

// NodeID identifies an owner name within one Zone value.
type NodeID uint32

// Apex is the node of every zone's origin.
const Apex NodeID = 0

// Kind is the outcome of a Lookup.
type Kind uint8

// What Lookup can find (RFC 1034 §4.3.2).
const (
	Found     Kind = iota + 1 // Node owns an RRset of the type
	NoData                    // Node exists (perhaps as empty non-terminal) without the type: authority is the SOA
	NXDomain                  // the name does not exist: authority is the SOA
	Referral                  // at or below a zone cut: Node is the cut, its NS RRset is the authority
	CNAME                     // Node owns a CNAME and another type was asked
	DNAME                     // Node owns a DNAME above the name (RFC 6672 §3.2)
	NotInZone                 // the name is not at or below the origin
)

// String is the outcome in one word.
func (k Kind) String() string {
	words := [...]string{Found: "found", NoData: "nodata", NXDomain: "nxdomain", Referral: "referral", CNAME: "cname", DNAME: "dname", NotInZone: "notinzone"}
	if k == 0 || int(k) >= len(words) {
		return "none"
	}
	return words[k]
}

// Result is what Lookup found. Reuse one; Lookup overwrites all of it and
// allocates nothing.
type Result struct {
	Kind     Kind
	Node     NodeID // the owner that answers: the name itself, the wildcard that covers it, the cut, the DNAME owner, or, for NXDomain, the closest encloser
	Wildcard bool   // Node is a wildcard and the answer's owner is the queried name (RFC 4592)
	// Suffix is the offset in the queried name at which the closest encloser,
	// the cut or the DNAME owner begins: the queried name from there on is its
	// name. For Found, NoData and CNAME without Wildcard it is 0.
	Suffix int
}

// RRset is a set of records of one owner and type, ready to copy into a
// message: each record is a compression pointer to offset 12 (two octets,
// 0xC00C), TYPE, CLASS, TTL, RDLENGTH, RDATA, with the names in RDATA
// uncompressed. The writer patches the first two octets of each record when
// the owner stands elsewhere. It is a view into the zone: do not modify.
type RRset struct {
	Wire  []byte
	Count int
	Type  uint16
	TTL   uint32
}

// Finding is one remark of the loader about a master file. Errors keep a zone
// from being served; warnings do not.
type Finding struct {
	File    string
	Line    int // 1-based; 0 when it is about the whole file
	Warning bool
	Text    string // what is wrong
	Hint    string // the cure, or empty
}
