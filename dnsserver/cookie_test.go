package dnsserver

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCookieVectors has the examples of RFC 9018, appendix A.
func TestCookieVectors(t *testing.T) {
	first := [16]byte(unhex(t, "e5e973e5a6b2a43f48e7dc849e37bfcf"))
	old := [16]byte(unhex(t, "dd3bdf9344b678b185a6f5cb60fca715"))
	next := [16]byte(unhex(t, "445536bcd2513298075a5d379663c962"))
	for _, c := range []struct {
		name, client, cookie string
		secrets              CookieSecrets
		at                   uint32
		valid                bool
		want                 string
	}{
		{"A.1 learning", "198.51.100.100", "2464c4abcf10c957", CookieSecrets{Make: first}, 1559731985,
			false, "010000005cf79f111f8130c3eee29480"},
		{"A.2 renewed after 40 minutes", "198.51.100.100", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", CookieSecrets{Make: first}, 1559734385,
			true, "010000005cf7a871d4a564a1442aca77"},
		{"A.3 another client", "203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", CookieSecrets{Make: first}, 1559734700,
			false, "010000005cf7a9acf73a7810aca2381e"}, // its server cookie is almost two hours old
		{"A.3 in time, reserved octets set", "203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", CookieSecrets{Make: first}, 1559727985,
			true, "01abcdef5cf78f71a314227b6679ebf5"},
		{"A.4 rolled over", "2001:db8:220:1:59de:d0f4:8769:82b8", "22681ab97d52c298010000005cf7c57926556bd0934c72f8", CookieSecrets{Make: next, Accept: old}, 1559741961,
			true, "010000005cf7c609a6bb79d16625507a"},
	} {
		var k cookie
		if !k.read(unhex(t, c.cookie)) {
			t.Fatalf("%s: not read", c.name)
		}
		valid, reply := k.check(&c.secrets, netip.MustParseAddr(c.client), time.Duration(c.at)*time.Second)
		if valid != c.valid || hex.EncodeToString(reply[:]) != c.want {
			t.Errorf("%s: %v %x, want %v %s", c.name, valid, reply, c.valid, c.want)
		}
	}
}

// TestCookieLife walks a cookie's age past every bound, over the wrap of its
// 32-bit clock too.
func TestCookieLife(t *testing.T) {
	const seed1, seed2 = 9018, 7873
	rnd := rand.New(rand.NewPCG(seed1, seed2))
	secrets := &CookieSecrets{Make: [16]byte{1}}
	at := netip.MustParseAddr("192.0.2.7")
	for _, made := range []time.Duration{time.Hour * 24 * 365 * 56, (1 << 32) * time.Second, (1<<32 + 60) * time.Second} {
		k := cookie{client: [8]byte(unhex(t, "0102030405060708")), present: true}
		_, server := k.check(secrets, at, made)
		k.size = uint8(copy(k.server[:], server[:]))
		for _, c := range []struct {
			age         time.Duration
			valid, same bool
		}{
			{-5*time.Minute - time.Second, false, false}, {-5 * time.Minute, true, true}, {0, true, true}, {30*time.Minute - time.Second, true, true},
			{30 * time.Minute, true, false}, {time.Hour, true, false}, {time.Hour + time.Second, false, false},
		} {
			valid, reply := k.check(secrets, at, made+c.age)
			if valid != c.valid || (reply == server) != c.same {
				t.Errorf("made at %v, %v old: valid %v, same %v", made, c.age, valid, reply == server)
			}
		}
		if valid, _ := k.check(secrets, netip.MustParseAddr("192.0.2.8"), made); valid {
			t.Error("good at another address")
		}
		if valid, _ := k.check(secrets, netip.MustParseAddr("::ffff:192.0.2.7"), made); !valid {
			t.Error("not good at the same address in IPv6 form")
		}
		if valid, _ := k.check(&CookieSecrets{Make: [16]byte{2}}, at, made); valid {
			t.Error("good under another secret")
		}
		for range 1000 { // no bit may be turned, but in the three octets that are reserved it is no forgery either
			bad := k
			bit := rnd.IntN(8 * serverCookieLen)
			bad.server[bit/8] ^= 1 << (bit % 8)
			if valid, _ := bad.check(secrets, at, made); valid {
				t.Fatalf("good with bit %d turned", bit)
			}
		}
	}
	zero := cookie{present: true}
	var forged CookieSecrets // a key of zeros must not be accepted for want of a second secret
	_, server := zero.check(&forged, at, time.Hour)
	zero.size = uint8(copy(zero.server[:], server[:]))
	if valid, _ := zero.check(secrets, at, time.Hour); valid {
		t.Error("a cookie of the zero secret is good")
	}
}

func TestCookieLengths(t *testing.T) {
	for n := range 64 {
		var k cookie
		want := n == 8 || n >= 16 && n <= 40
		if got := k.read(make([]byte, n)); got != want || k.present != want {
			t.Errorf("%d octets: %v, want %v", n, got, want)
		}
	}
}
