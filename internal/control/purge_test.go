package control

import (
	"fmt"
	"strings"
	"sync/atomic"
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

// TestCallersAreRateLimited: each by itself, with what is left coming back over time.
func TestCallersAreRateLimited(t *testing.T) {
	const rate, burst = 100, 1000
	var c buckets
	now := time.Unix(1_000_000, 0)
	for i := range burst {
		if wait := c.take("a", 1, rate, burst, now); wait != 0 {
			t.Fatalf("call %d must wait %v", i, wait)
		}
	}
	if wait := c.take("a", 1, rate, burst, now); wait <= 0 || wait > time.Second/rate {
		t.Errorf("over the burst: wait %v", wait)
	}
	if wait := c.take("b", 1, rate, burst, now); wait != 0 {
		t.Errorf("another caller waits %v", wait)
	}
	if wait := c.take("a", 1, 0, 0, now); wait != 0 {
		t.Errorf("without a limit: wait %v", wait)
	}
	now = now.Add(time.Second)
	for i := range rate {
		if wait := c.take("a", 1, rate, burst, now); wait != 0 {
			t.Fatalf("a second later call %d must wait %v", i, wait)
		}
	}
	if wait := c.take("a", 1, rate, burst, now); wait <= 0 {
		t.Error("more than the rate in a second")
	}
	for i := range 2 * maxBuckets {
		c.take(fmt.Sprint("caller ", i), 1, rate, burst, now)
	}
	if len(c.m) > maxBuckets+1 {
		t.Errorf("%d callers kept", len(c.m))
	}
	if wait := c.take("a", 1, rate, burst, now); wait <= 0 {
		t.Error("a flood of other names wiped out what a has used")
	}
}

// TestTooManyPurgesAnswer429: and say when to come again.
func TestTooManyPurgesAnswer429(t *testing.T) {
	f := newFleet(t)
	k := known
	k.Limits.Purges = 5
	f.SetKnown(k)
	frozen := time.Now()
	f.now = func() time.Time { return frozen }
	f.purgers.take("admin", 5*purgeBurst, 5, 5*purgeBurst, frozen)
	if got, answer := f.raw(t, "POST", "/v1/purge", `{"url":"http://a.test/"}`, nil); got != 429 || f.head() != 0 {
		t.Errorf("%d %s, head %d", got, answer, f.head())
	}
}

// TestManyPurgesInOneCall: all are checked before the first is written, share an
// entry, and are told apart in the answer.
func TestManyPurgesInOneCall(t *testing.T) {
	f := newFleet(t)
	ps := []Purge{{URL: "HTTP://a.test"}, {Prefix: "http://www.example.com/img"}, {Site: "shop", Tag: "summer", Soft: true}, {Site: "a", All: true}}
	never := func(d time.Duration) { t.Errorf("told to wait %v", d) }
	if out, err := f.client.PurgeMany(bounded(t), ps, true, never); err != nil || out.Seq != 0 || len(out.Purged) != 4 || f.head() != 0 {
		t.Fatalf("dry run: %+v, %v, head %d", out, err, f.head())
	}
	out, err := f.client.PurgeMany(bounded(t), ps, false, never)
	if err != nil || out.Seq != 1 || f.head() != 1 {
		t.Fatalf("%+v, %v, head %d: want one entry", out, err, f.head())
	}
	for e, err := range f.feed.Log().Entries(bounded(t), 1) {
		if err != nil {
			t.Fatal(err)
		}
		command, err := DecodeCommand(e)
		got := PurgesOf(command)
		if err != nil || e.Kind != KindPurges || len(got) != len(ps) {
			t.Fatalf("entry %+v, %v", e, err)
		}
		for i := range got {
			if got[i] != out.Purged[i].Purge || out.Purged[i].Seq != 1 {
				t.Errorf("purge %d: %+v on the log, %+v answered", i, got[i], out.Purged[i])
			}
		}
	}
	for _, c := range []struct {
		body string
		want int
		says string
	}{
		{`{"purges":[{"url":"http://a.test/"},{"url":"http://aa.test/"}]}`, 404, "purge 2: "},
		{`{"purges":[{"url":"http://a.test/"},{"site":"a"}]}`, 400, "purge 2: "},
		{`{"purges":[]}`, 400, "1 to 1000"},
		{`{"purges":[` + strings.Repeat(`{"url":"http://a.test/"},`, maxShared) + `{"url":"http://a.test/"}]}`, 400, "1 to 1000"},
		{`{"purges":[{"url":"http://a.test/` + strings.Repeat("x", maxPurgesBytes) + `"}]}`, 413, "more than"},
		{`{"purge":[]}`, 400, "not what this call takes"},
	} {
		if got, answer := f.raw(t, "POST", "/v1/purges", c.body, nil); got != c.want || !strings.Contains(answer, c.says) || f.head() != 1 {
			t.Errorf("%.60s: %d %.200s, head %d; want %d with %q", c.body, got, answer, f.head(), c.want, c.says)
		}
	}
}

// TestClientWaitsWhenToldTo: ten thousand purges go at once, in calls of a
// thousand; the next is told when to come again, and does.
func TestClientWaitsWhenToldTo(t *testing.T) {
	f := newFleet(t)
	k := known
	k.Limits.Purges = 100
	f.SetKnown(k)
	frozen := time.Now()
	var ahead atomic.Int64
	f.now = func() time.Time { return frozen.Add(time.Duration(ahead.Load())) }
	var ps []Purge
	for i := range 100*purgeBurst + 1 {
		ps = append(ps, urlPurge(i, 0))
	}
	waits := 0
	out, err := f.client.PurgeMany(bounded(t), ps, false, func(d time.Duration) {
		waits++
		ahead.Add(int64(d))
	})
	if err != nil || len(out.Purged) != len(ps) || waits != 1 || out.Seq != f.head() {
		t.Fatalf("%d of %d purged, told to wait %d times, seq %d, head %d, %v", len(out.Purged), len(ps), waits, out.Seq, f.head(), err)
	}
	if f.head() > 30 {
		t.Errorf("%d purges are %d entries of the log", len(ps), f.head())
	}
}
