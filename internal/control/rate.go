package control

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Limits is what one caller may ask for, from the configuration; 0 is no limit.
type Limits struct {
	Calls    int // a second, uploads of files aside
	Purges   int // a second
	Failures int // a minute, of one address: tokens that are none
}

const (
	// callBurst and failureBurst are how many times the rate may come at once.
	callBurst    = 10
	failureBurst = 2
	// maxBuckets bounds the callers and addresses whose rates are kept.
	maxBuckets = 10_000
	// forgetEvery is how often room is made among them at most.
	forgetEvery = time.Second
)

// buckets bounds the rate of each caller: rate a second, burst at once.
type buckets struct {
	mu sync.Mutex
	m  map[string]tokenBucket
	// forgotAt is when room was looked for last: a walk over all of them, so not for each
	// of a flood of new ones.
	forgotAt time.Time
}

type tokenBucket struct {
	left float64
	at   time.Time
}

// take uses n of who's up, or returns how long to wait for them. A rate of 0 is
// no limit.
func (c *buckets) take(who string, n int, rate, burst float64, now time.Time) time.Duration {
	if rate <= 0 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, there := c.m[who]
	if !there && len(c.m) >= maxBuckets {
		if now.Sub(c.forgotAt) >= forgetEvery {
			c.forget(rate, burst, now)
		}
		if len(c.m) >= maxBuckets {
			who = "" // all who come now share one
			b, there = c.m[who]
		}
	}
	if !there {
		b = tokenBucket{burst, now}
	}
	b.left = min(burst, b.left+now.Sub(b.at).Seconds()*rate)
	b.at = now
	wait := waitFor(b.left, float64(n), rate)
	if wait == 0 {
		b.left -= float64(n)
	}
	if c.m == nil {
		c.m = map[string]tokenBucket{}
	}
	c.m[who] = b
	return wait
}

// wait returns how long who has to wait for the next, and uses nothing up.
func (c *buckets) wait(who string, rate, burst float64, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, there := c.m[who]
	if !there || rate <= 0 {
		return 0
	}
	return waitFor(min(burst, b.left+now.Sub(b.at).Seconds()*rate), 1, rate)
}

func waitFor(left, n, rate float64) time.Duration {
	if left >= n {
		return 0
	}
	return max(1, time.Duration((n-left)/rate*float64(time.Second)))
}

// forget drops those who have waited long enough to begin anew.
func (c *buckets) forget(rate, burst float64, now time.Time) {
	c.forgotAt = now
	for k, b := range c.m {
		if b.left+now.Sub(b.at).Seconds()*rate >= burst {
			delete(c.m, k)
		}
	}
}

// tooMany is the refusal of a caller over its rate.
func tooMany(w http.ResponseWriter, wait time.Duration, hint, format string, args ...any) error {
	w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	return refuse(http.StatusTooManyRequests, hint, format, args...)
}

// addressOf is whom failures are counted for: an IPv4 address, an IPv6 /64.
func addressOf(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	a := at.Addr().Unmap()
	if a.Is6() {
		p, err := a.WithZone("").Prefix(64)
		if err == nil {
			return p.String()
		}
	}
	return a.String()
}
