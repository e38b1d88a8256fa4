package seglog

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// A record is a header, a head, the checksums of the body's blocks, and the
// body; it begins and ends at a multiple of align bytes.
//
//	 0  magic     4
//	 4  version   1
//	 5  kind      1
//	 6  zero      2
//	 8  key       8
//	16  variant   8
//	24  id        8  of a value in parts; 0: the body is here
//	32  expires   8  seconds since 1970; 0: never
//	40  head      4  its length
//	44  body      4  its length here
//	48  total     8  the length of the value's body
//	56  part      4  which part this is
//	60  checksum  4  of all before it, the head and the blocks' checksums; xor the
//	                 segment's nonce, so that what another file left is not believed
const (
	recordMagic   = 0x4c535044 // "DPSL"
	recordVersion = 1
	headerBytes   = 64
	align         = 8
	// blockBytes is what has a checksum of its own. A range costs the reading of
	// the blocks that it touches.
	blockBytes = 64 << 10
	// partBytes is the most of a body in one record: a larger one is cut up.
	partBytes = 1 << 20
	// maxHeadBytes bounds the head: what HTTP calls header fields, and what is
	// derived of them. Fields are bounded to 32 KiB where they come from.
	maxHeadBytes   = 512 << 10
	maxRecordBytes = headerBytes + maxHeadBytes + 4*(partBytes/blockBytes) + partBytes + align
)

type kind uint8

const (
	kindValue     kind = 1 + iota // of key and variant, with its head
	kindPart                      // of a value's body
	kindRemove                    // of a value of this key and variant
	kindRemoveKey                 // of every value of this key
	kindNote                      // head is the note
)

// header is the first bytes of a record.
type header struct {
	kind         kind
	key, variant uint64
	id           uint64
	expires      int64
	head, body   uint32
	total        uint64
	part         uint32
	sum          uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (h *header) blocks() int { return int((h.body + blockBytes - 1) / blockBytes) }

// lead is the length of what stands before the body.
func (h *header) lead() int { return headerBytes + int(h.head) + 4*h.blocks() }

// size is the length of the record.
func (h *header) size() int { return roundUp(h.lead() + int(h.body)) }

func roundUp(n int) int { return (n + align - 1) &^ (align - 1) }

func (h *header) appendTo(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, recordMagic)
	dst = append(dst, recordVersion, byte(h.kind), 0, 0)
	dst = le.AppendUint64(dst, h.key)
	dst = le.AppendUint64(dst, h.variant)
	dst = le.AppendUint64(dst, h.id)
	dst = le.AppendUint64(dst, uint64(h.expires))
	dst = le.AppendUint32(dst, h.head)
	dst = le.AppendUint32(dst, h.body)
	dst = le.AppendUint64(dst, h.total)
	dst = le.AppendUint32(dst, h.part)
	return le.AppendUint32(dst, h.sum)
}

// parseHeader reads a header. It checks what can be checked without the rest:
// that its lengths are within bounds, and that it is of a known kind.
func parseHeader(b []byte) (h header, ok bool) {
	le := binary.LittleEndian
	if len(b) < headerBytes || le.Uint32(b) != recordMagic || b[4] != recordVersion || b[6] != 0 || b[7] != 0 {
		return h, false
	}
	h = header{
		kind: kind(b[5]), key: le.Uint64(b[8:]), variant: le.Uint64(b[16:]), id: le.Uint64(b[24:]), expires: int64(le.Uint64(b[32:])),
		head: le.Uint32(b[40:]), body: le.Uint32(b[44:]), total: le.Uint64(b[48:]), part: le.Uint32(b[56:]), sum: le.Uint32(b[60:]),
	}
	return h, h.kind >= kindValue && h.kind <= kindNote && h.head <= maxHeadBytes && h.body <= partBytes
}

// leadSum is the checksum of a record's lead, whose length is that of lead.
func leadSum(lead []byte) uint32 {
	sum := crc32.Update(0, castagnoli, lead[:headerBytes-4])
	return crc32.Update(sum, castagnoli, lead[headerBytes:])
}

// checkLead reads the lead of a record: b must have all of it. It is the one
// place that believes a header.
func checkLead(b []byte, nonce uint32) (h header, ok bool) {
	h, ok = parseHeader(b)
	if !ok || len(b) < h.lead() {
		return h, false
	}
	return h, leadSum(b[:h.lead()])^nonce == h.sum
}

// checkBlock verifies block i of a record with this lead.
func checkBlock(lead []byte, h *header, i int, block []byte) bool {
	at := headerBytes + int(h.head) + 4*i
	return crc32.Checksum(block, castagnoli) == binary.LittleEndian.Uint32(lead[at:])
}

// blockLen is the length of block i of a body.
func (h *header) blockLen(i int) int { return min(blockBytes, int(h.body)-i*blockBytes) }

// encode makes a record of h, whose lengths it sets, a head and pieces of body.
// The nonce is still to be mixed in.
func encode(h header, head []byte, body [][]byte) []byte {
	n := 0
	for _, p := range body {
		n += len(p)
	}
	h.head, h.body = uint32(len(head)), uint32(n)
	lead := h.lead()
	rec := make([]byte, lead, h.size())
	copy(rec[headerBytes:], head)
	for _, p := range body {
		rec = append(rec, p...)
	}
	for i := range h.blocks() {
		block := rec[lead+i*blockBytes:][:h.blockLen(i)]
		binary.LittleEndian.PutUint32(rec[headerBytes+len(head)+4*i:], crc32.Checksum(block, castagnoli))
	}
	h.appendTo(rec[:0])
	binary.LittleEndian.PutUint32(rec[headerBytes-4:], leadSum(rec[:lead]))
	return rec[:h.size()]
}

// mixNonce turns the checksum of rec into that of a segment, or back.
func mixNonce(rec []byte, nonce uint32) {
	b := rec[headerBytes-4 : headerBytes]
	binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)^nonce)
}

// partKey is the key of a part; its variant is the value's id. It spreads like
// the hashes that other keys are.
func partKey(id uint64, part uint32) uint64 {
	hi, lo := bits.Mul64(id+0x9e3779b97f4a7c15*uint64(part+1), 0xd6e8feb86659fd93)
	return hi ^ lo ^ id
}
