package origin

import (
	"encoding/binary"
	"strings"
	"unsafe"
)

// plainText reports that s has no control byte but tab (RFC 9110 §5.5). It looks at
// eight bytes at a time.
func plainText(s string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		del := w ^ ones*0x7f
		// The top bit of a byte below 0x20, or of DEL's, is set by the subtraction and
		// was not before. A borrow, and a tab, flag good bytes too.
		if ((w-ones*' ')&^w|(del-ones)&^del)&tops != 0 && !plainBytes(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return plainBytes(b)
}

func plainBytes(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// tokenBytes are those of a token (RFC 9110 §5.6.2).
var tokenBytes = func() (t [256]bool) {
	for c := '!'; c <= '~'; c++ {
		t[c] = c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	}
	return t
}()

// isToken reports a token.
func isToken(s string) bool {
	for i := range len(s) {
		if !tokenBytes[s[i]] {
			return false
		}
	}
	return s != ""
}
