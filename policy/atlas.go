package policy

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
)

const (
	// maxBlocks bounds the blocks of one root's Atlas, both families together:
	// 32 MiB. All countries apart make about 500,000 of them.
	maxBlocks = 2 << 20

	// maxRegions bounds the kinds of client that a root tells apart, so that a
	// region's number takes two octets.
	maxRegions = 1<<16 - 1

	// indexBits is the length of the prefixes that the first-level index has
	// an entry for. The search behind it then takes a few steps for IPv4 and a
	// dozen for IPv6, whose networks crowd in few such prefixes.
	indexBits = 16

	// minIndexed is the number of blocks from which on a table has an index.
	minIndexed = 64
)

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
	tables  [2]table
}

// table is the blocks of one family in address order. It holds no pointers but
// those of its slices.
type table struct {
	shift  int // from a unit to its place in index
	index  []uint32
	blocks []block
}

// block is one block, and also the node of the binary trie of blocks whose two
// halves meet where this block begins: the blocks cover the whole space, so
// every inner node's middle is the start of exactly one of them.
type block struct {
	start  uint64 // in units
	region uint16
	mostly uint16 // of the inner node: the region that covers most of it
	length uint8
	deep   uint8 // of the inner node: the length of the longest block in it
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
func newAtlas(sv *survey, r *regions) (atlas, error) {
	a := atlas{deps: r.deps, pos: r.pos}
	if r.deps == 0 {
		a.uniform = true
		return a, nil
	}
	var runs [2][]run[uint16]
	total := 0
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
	for i, f := range families {
		blocks, err := cut(f, runs[i], maxBlocks-total)
		if err != nil {
			return a, err
		}
		total += len(blocks)
		summarize(f, blocks, len(r.ids))
		a.tables[i] = newTable(f, blocks)
	}
	return a, nil
}

var errTooManyBlocks = fmt.Errorf("its maps and latency rankings cut the address space into more than %d blocks", maxBlocks)

// cut makes the fewest CIDR blocks of runs. No block has length 0: a reply of
// scope 0 would be taken for good by clients of the other family too, since
// resolvers keep it where they keep what has no scope.
func cut(f family, runs []run[uint16], limit int) ([]block, error) {
	var blocks []block
	for count := 0; ; count = 0 { // once to count, so that the table has no spare room, and once to fill
		at := uint64(0)
		for _, r := range runs {
			for at < r.end {
				size := min(bits.TrailingZeros64(at|f.units()), bits.Len64(r.end-at)-1, f.maxBits-1)
				if blocks != nil {
					blocks[count] = block{start: at, region: r.value, length: uint8(f.maxBits - size)}
				}
				count++
				at += 1 << size
			}
		}
		switch {
		case blocks != nil:
			return blocks, nil
		case count > limit:
			return nil, errTooManyBlocks
		}
		blocks = make([]block, count)
	}
}

// summarize fills mostly and deep of the inner nodes of the trie of blocks. On
// a tie the region that comes first in address order covers most.
func summarize(f family, blocks []block, regions int) {
	cover := make([]uint64, regions)
	met := make([]uint16, 0, regions) // the regions with cover, in address order
	var node func(blocks []block, start uint64, length int)
	node = func(blocks []block, start uint64, length int) {
		if len(blocks) < 2 {
			return
		}
		middle := start + f.size(length+1)
		split, deep := 0, uint8(0)
		for i := range blocks {
			b := &blocks[i]
			if b.start == middle {
				split = i
			}
			if cover[b.region] == 0 {
				met = append(met, b.region)
			}
			cover[b.region] += 1 << (f.maxBits - int(b.length))
			deep = max(deep, b.length)
		}
		best := met[0]
		for _, region := range met {
			if cover[region] > cover[best] {
				best = region
			}
		}
		for _, region := range met {
			cover[region] = 0
		}
		met = met[:0]
		inner := &blocks[split]
		inner.mostly, inner.deep = best, deep
		node(blocks[:split], start, length+1)
		node(blocks[split:], middle, length+1)
	}
	node(blocks, 0, 0)
}

func newTable(f family, blocks []block) table {
	t := table{blocks: blocks}
	if len(blocks) < minIndexed {
		return t
	}
	t.shift = f.maxBits - indexBits
	t.index = make([]uint32, 1<<indexBits+1) // the last block that begins at or before each prefix
	at := 0
	for i := range t.index {
		for at+1 < len(blocks) && blocks[at+1].start <= uint64(i)<<t.shift {
			at++
		}
		t.index[i] = uint32(at)
	}
	return t
}

// find returns the place of the block that holds unit u.
func (t *table) find(u uint64) int {
	lo, hi := 0, len(t.blocks)
	if t.index != nil {
		lo, hi = int(t.index[u>>t.shift]), int(t.index[u>>t.shift+1])+1
	}
	for lo+1 < hi { // blocks[lo] begins at or before u, blocks[hi] after it
		if middle := int(uint(lo+hi) / 2); t.blocks[middle].start <= u {
			lo = middle
		} else {
			hi = middle
		}
	}
	return lo
}

// locate finds the area of a client, a prefix as normal returns it.
//
// A client that is larger than the block around it takes the region that
// covers most of it, and the scope is the length of the longest block in it:
// longer than the SOURCE, which tells the resolver that its SOURCE was too
// short for a tailored answer and what would do (RFC 7871 §7.2.1).
func (a *atlas) locate(client netip.Prefix) area {
	if a.uniform {
		return area{}
	}
	fam := familyOf(client.Addr())
	f, t := families[fam], &a.tables[fam]
	u := unit(client.Addr())
	b := t.blocks[t.find(u)]
	if client.Bits() >= int(b.length) {
		return area{region: b.region, scope: int(b.length), start: b.start, length: int(b.length)}
	}
	inner := t.blocks[t.find(u+f.size(client.Bits()+1))]
	return area{region: inner.mostly, scope: int(inner.deep), start: u, length: client.Bits()}
}

// normal makes a client comparable with blocks: IPv4 in IPv6 is IPv4, bits
// beyond the length are zero. Who is not known at all is taken for 0.0.0.0,
// of which no geography knows anything.
func normal(client netip.Prefix) netip.Prefix {
	if !client.IsValid() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 32)
	}
	if a := client.Addr(); a.Is4In6() && client.Bits() >= 96 {
		client = netip.PrefixFrom(a.Unmap(), client.Bits()-96)
	}
	return client.Masked()
}

// tooLarge turns an error of newAtlas into what the user can act on.
func tooLarge(root string, err error) error {
	hint := "choose by country or continent instead of city or network, put fewer choices into latency policies, or steer fewer kinds of client from one name"
	if !errors.Is(err, errTooManyBlocks) {
		hint = "put fewer choices into the latency policies that it leads to"
	}
	return &ConfigError{Path: "policy." + tomlKey(root), Text: err.Error(), Hint: hint}
}
