package origin

import (
	"strings"
	"testing"
)

// TestPlainText: each octet, at each place, is what RFC 9110 §5.5 says of it.
func TestPlainText(t *testing.T) {
	for n := 1; n < 20; n++ {
		for at := range n {
			for c := range 256 {
				s := []byte(strings.Repeat("\xff", at) + "\x00" + strings.Repeat("x", n-at-1))
				s[at] = byte(c)
				if want := c >= ' ' && c != 0x7f || c == '\t'; plainText(string(s)) != want {
					t.Fatalf("%q", s)
				}
			}
		}
	}
}
