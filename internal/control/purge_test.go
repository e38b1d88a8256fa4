package control

import (
	"strings"
	"testing"
	"time"
)

// TestPurgeByPrefixAndTag: what comes back is the form that edges compare, and
// a dry run leaves nothing on the log.
func TestPurgeByPrefixAndTag(t *testing.T) {
	f := newFleet(t)
	for _, c := range []struct {
		in   Purge
		want string // site, then what is covered
	}{
		{Purge{Prefix: "HTTP://WWW.example.com"}, "www: http://www.example.com/ and all below it"},
		{Purge{Prefix: "https://www.example.com:443/img"}, "www: https://www.example.com/img/ and all below it"},
		{Purge{Prefix: "https://x.www.example.com/img/", Site: "www"}, "www: https://x.www.example.com/img/ and all below it"},
		{Purge{Site: "a", Tag: "summer sale", Soft: true}, `a: tag "summer sale" of site a`},
		{Purge{Site: "a", All: true}, "a: all of site a"},
	} {
		before := f.head()
		out, err := f.client.Purge(bounded(t), c.in, true)
		if got := out.Site + ": " + out.String(); err != nil || got != c.want || out.Seq != 0 || f.head() != before {
			t.Errorf("dry run of %+v: %s, seq %d, %v; want %s", c.in, got, out.Seq, err, c.want)
		}
		out, err = f.client.Purge(bounded(t), c.in, false)
		if got := out.Site + ": " + out.String(); err != nil || got != c.want || out.Seq != before+1 || out.Soft != c.in.Soft {
			t.Errorf("%+v: %s, seq %d, %v; want %s", c.in, got, out.Seq, err, c.want)
		}
	}
}

// TestPurgeStaysOnItsHost: a prefix is of the site that has exactly its host,
// and nothing spelled otherwise reaches another's.
func TestPurgeStaysOnItsHost(t *testing.T) {
	f := newFleet(t)
	for _, c := range []struct {
		body string
		want int
	}{
		{`{"prefix":"http://aa.test/"}`, 404},
		{`{"prefix":"http://test/"}`, 404},
		{`{"prefix":"http://a.test.evil/"}`, 404},
		{`{"prefix":"http://*.www.example.com/"}`, 400},
		{`{"prefix":"http://x.y.www.example.com/"}`, 404},
		{`{"prefix":"http://a.test@aa.test/"}`, 400},
		{`{"prefix":"http://a.test:80@aa.test/"}`, 400},
		{`{"prefix":"http://a.test%2f.www.example.com/"}`, 400},
		{`{"prefix":"http://a.test\\.www.example.com/"}`, 400},
		{`{"prefix":"http://a!.www.example.com/"}`, 400},
		{`{"prefix":"http://a.test/a/../b"}`, 400},
		{`{"prefix":"http://a.test/a/%2e%2e/b"}`, 400},
		{`{"prefix":"http://a.test/a/..%2fb"}`, 400},
		{`{"prefix":"http://a.test/a/..;x/b"}`, 400},
		{`{"prefix":"http://a.test/?a"}`, 400},
		{`{"prefix":"http://a.test` + strings.Repeat("/a", maxPrefixSegments+1) + `"}`, 400},
		{`{"prefix":"http://www.example.com/","site":"a"}`, 409},
		{`{"prefix":"http://a.test/","all":true,"site":"a"}`, 400},
		{`{"prefix":"http://a.test/","tag":"x","site":"a"}`, 400},
		{`{"url":"http://a.test/a/../b"}`, 400},
		{`{"url":"http://a.test/%00"}`, 400},
		{`{"url":"http://a.test:080/"}`, 400},
		{`{"tag":"x"}`, 404},
		{`{"tag":"x","site":"aa"}`, 404},
		{`{"tag":" x","site":"a"}`, 400},
		{`{"tag":"a\nb","site":"a"}`, 400},
		{`{"tag":"` + strings.Repeat("x", maxTagBytes+1) + `","site":"a"}`, 400},
		{`{"site":"a"}`, 400},
		{`{"site":"a","tag":"","dry_run":true}`, 400},
	} {
		if got, answer := f.raw(t, "POST", "/v1/purge", c.body, nil); got != c.want || !strings.Contains(answer, `"error":`) {
			t.Errorf("%.100s: %d %s, want %d", c.body, got, answer, c.want)
		}
	}
	if f.head() != 0 {
		t.Fatalf("the log has %d entries", f.head())
	}
}

// TestPurgesAreRateLimited: by caller, with what is left coming back over time.
func TestPurgesAreRateLimited(t *testing.T) {
	var c callers
	now := time.Unix(1_000_000, 0)
	for i := range purgeBurst {
		if wait := c.take("a", now); wait != 0 {
			t.Fatalf("purge %d must wait %v", i, wait)
		}
	}
	if wait := c.take("a", now); wait <= 0 || wait > time.Second/purgeRate {
		t.Errorf("over the burst: wait %v", wait)
	}
	if wait := c.take("b", now); wait != 0 {
		t.Errorf("another caller waits %v", wait)
	}
	now = now.Add(time.Second)
	for i := range purgeRate {
		if wait := c.take("a", now); wait != 0 {
			t.Fatalf("a second later purge %d must wait %v", i, wait)
		}
	}
	if wait := c.take("a", now); wait <= 0 {
		t.Error("more than the rate in a second")
	}
	for i := range 2 * maxCallers {
		c.take(strings.Repeat("x", i), now)
	}
	if len(c.m) > maxCallers {
		t.Errorf("%d callers kept", len(c.m))
	}
}

// TestTooManyPurgesAnswer429: and say when to come again.
func TestTooManyPurgesAnswer429(t *testing.T) {
	f := newFleet(t)
	frozen := time.Now()
	f.now = func() time.Time { return frozen }
	for range purgeBurst {
		f.purgers.take("admin", frozen)
	}
	if got, answer := f.raw(t, "POST", "/v1/purge", `{"url":"http://a.test/"}`, nil); got != 429 || f.head() != 0 {
		t.Errorf("%d %s, head %d", got, answer, f.head())
	}
}
