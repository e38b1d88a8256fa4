package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"runtime"
)

const (
	// maxBlocks bounds the blocks of one root's Atlas, both families together:
	// 12 MiB. All countries apart make about 900,000 of them.
	maxBlocks = 2 << 20

	// maxRegions bounds the kinds of client that a root tells apart, so that a
	// region's number takes two octets.
	maxRegions = 1<<16 - 1
)

// limits bound what one root tells apart.
type limits struct{ blocks, regions int }

// An atlas maps the clients of one root to regions. Each family's whole space
// is cut into the largest CIDR blocks inside which every geo map and latency
// ranking that a client can reach gives the same outcome.
//
// Space of which the geography knows nothing is a region like any other, which
// the default rules decide. It could make larger blocks if it joined its
// neighbours, but then a client there would get the neighbour's answer, and
// one in a network newer than the database would be told a wrong thing firmly.
type atlas struct {
	uniform bool    // one region only: the client does not matter, the scope is 0
	deps    int     // policies that look at the client
	pos     []int32 // by policy: its place among them, or -1
	ranks   []int32 // region × deps: the ranking
	four    table[uint32]
	six     table[uint64]
}

// area is what the atlas has found out about a client.
type area struct {
	region uint16
	scope  int
	// What the client shares with all who get the same draws: the block, or
	// the client's own prefix when that is larger.
	start  uint64
	length int
}

// newAtlas cuts the space by region.
func newAtlas(sv *survey, r *regions, limit int) (atlas, error) {
	a := atlas{deps: r.deps, pos: r.pos}
	if r.deps == 0 {
		a.uniform = true
		return a, nil
	}
	var runs [2][]run[uint16]
	for i := range families {
		runs[i] = make([]run[uint16], 0, len(sv.spans[i]))
		for _, sp := range sv.spans[i] {
			region, err := r.of(sp.class)
			if err != nil {
				return a, err
			}
			runs[i] = extend(runs[i], sp.end, uint16(region))
		}
	}
	a.ranks = r.ranks
	a.uniform = len(r.ids) == 1
	if a.uniform {
		return a, nil
	}
	counts := [2]int{}
	for i, f := range families {
		cut(f, runs[i], func(uint64, int, uint16) { counts[i]++ })
	}
	if counts[0]+counts[1] > limit {
		return a, &tooManyBlocks{limit}
	}
	a.four = newTable[uint32](families[0], runs[0], counts[0], len(r.ids))
	a.six = newTable[uint64](families[1], runs[1], counts[1], len(r.ids))
	return a, nil
}

// tooManyBlocks says that a root tells too much apart.
type tooManyBlocks struct{ limit int }

func (e *tooManyBlocks) Error() string {
	return fmt.Sprintf("its maps and latency rankings cut the address space into more than %d blocks", e.limit)
}

// cut tells the fewest CIDR blocks of runs, in order. No block has length 0: a
// reply of scope 0 would be taken for good by clients of the other family too,
// since resolvers keep it where they keep what has no scope.
func cut(f family, runs []run[uint16], block func(start uint64, length int, region uint16)) {
	at := uint64(0)
	for _, r := range runs {
		for at < r.end {
			size := min(bits.TrailingZeros64(at|f.units()), bits.Len64(r.end-at)-1, f.maxBits-1)
			block(at, f.maxBits-size, r.value)
			at += 1 << size
		}
	}
}

// locate finds the area of a client, a prefix as normal returns it.
//
// A client that is larger than the block around it takes the region that
// covers most of it, and the scope is the length of the longest block in it:
// longer than the SOURCE, which tells the resolver that its SOURCE was too
// short for a tailored answer and what would do (RFC 7871 §7.2.1).
func (a *atlas) locate(client netip.Prefix) (found area) {
	switch addr := client.Addr(); {
	case a.uniform:
	case addr.Is4():
		found = a.four.locate(families[0], unit(addr), client.Bits())
	default:
		found = a.six.locate(families[1], unit(addr), client.Bits())
	}
	runtime.KeepAlive(a) // which owns what was read
	return found
}

// normal makes a client comparable with blocks: IPv4 in IPv6 is IPv4, bits
// beyond the length are zero. Who is not known at all is taken for 0.0.0.0,
// of which no geography knows anything.
func normal(client netip.Prefix) netip.Prefix {
	if !client.IsValid() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 32)
	}
	if client.Addr().Is4() { // of an option that was checked: as it is
		b := client.Addr().As4()
		if binary.BigEndian.Uint32(b[:])<<client.Bits() == 0 {
			return client
		}
	}
	if a := client.Addr(); a.Is4In6() && client.Bits() >= 96 {
		client = netip.PrefixFrom(a.Unmap(), client.Bits()-96)
	}
	return client.Masked()
}

// tooLarge turns an error of newAtlas into what the user can act on.
func tooLarge(root string, err error) error {
	hint := "choose by country or continent instead of city or network, put fewer choices into latency policies, or steer fewer kinds of client from one name"
	if many := (*tooManyBlocks)(nil); !errors.As(err, &many) {
		hint = "put fewer choices into the latency policies that it leads to"
	}
	return &ConfigError{Path: "policy." + tomlKey(root), Text: err.Error(), Hint: hint}
}
