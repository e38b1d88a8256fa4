package control

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"perigee.example/internal/bucket"
	"perigee.example/internal/fakes3"
	"perigee.example/origin"
)

// age lets time pass, here and in the bucket.
func (f *bucketShelf) age(d time.Duration) {
	f.ahead += d
	f.s3.Age(d)
}

// sweep collects, and returns how many blobs went.
func (f *bucketShelf) sweep(t *testing.T) int {
	t.Helper()
	swept, err := f.collect(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	return swept.Removed
}

// post posts a manifest of one page, and sends it, but does not seal: what is missing.
func (f *bucketShelf) post(t *testing.T, text string) (missing bool) {
	t.Helper()
	m := f.manifest1(t, text)
	status, body := f.raw(t, http.MethodPost, "/v1/sites/www/releases", string(m), nil)
	if status != http.StatusOK {
		t.Fatalf("post: %d %s", status, body)
	}
	return strings.Contains(body, origin.DigestOf([]byte(text)).String())
}

func (f *bucketShelf) put(t *testing.T, text string) {
	t.Helper()
	d := origin.DigestOf([]byte(text))
	status, body := f.raw(t, http.MethodPut, "/v1/sites/www/blobs/"+d.String(), text, func(r *http.Request) { r.Header.Set("Content-Digest", ContentDigest(d)) })
	if status != http.StatusOK {
		t.Fatalf("put: %d %s", status, body)
	}
}

func (f *bucketShelf) sealIt(t *testing.T, text string) (int, string) {
	t.Helper()
	return f.raw(t, http.MethodPost, "/v1/sites/www/releases/"+origin.DigestOf(f.manifest1(t, text)).String()+"/seal", "", nil)
}

// A blob goes from the bucket when nothing needs it and it is old, and not before: not a day after its
// release was forgotten, nor what is being pushed, nor what is not ours.
func TestCollectBucket(t *testing.T) {
	f := newBucketShelf(t)
	f.retain(Retain{Releases: 0, For: MinRetain})
	f.push(t, PushOptions{}, map[string]string{"index.html": "one", "shared.txt": "shared"})
	f.push(t, PushOptions{}, map[string]string{"index.html": "two", "shared.txt": "shared"})
	f.s3.Fill(t, "p/blobs/readme", 1)
	f.s3.Fill(t, "elsewhere/", 1)
	f.age(2 * bucketAge)
	if out, err := f.client.Forget(bounded(t), "www", nil, false); err != nil || out.Seq == 0 { // at the real time
		t.Fatalf("%+v, %v", out, err)
	}
	if !f.post(t, "pushed") {
		t.Fatal("a new page is not missing")
	}
	f.put(t, "pushed")
	f.ahead = forgottenFor - time.Hour
	if n := f.sweep(t); n != 0 || !f.there(t, "one") {
		t.Fatalf("%d blobs went a day too early", n)
	}
	f.ahead = forgottenFor + bucketAge + time.Minute
	f.s3.Age(bucketAge)
	f.post(t, "pushed") // goes on
	if n := f.sweep(t); n == 0 || f.there(t, "one") || !f.there(t, "two") || !f.there(t, "shared") || !f.there(t, "pushed") {
		t.Fatalf("%d went: one %v, two %v, shared %v, pushed %v", n, f.there(t, "one"), f.there(t, "two"), f.there(t, "shared"), f.there(t, "pushed"))
	}
	if o := f.s3.Objects(t); o["p/blobs/readme000000"] == 0 || o["elsewhere/000000"] == 0 || o["p/"+bucketClaim] == 0 {
		t.Errorf("what is not ours is gone: %v", o)
	}
	st := f.Status().Bucket
	if st.Listed == nil || st.Objects == 0 || st.Bytes == 0 || st.Missing != 0 {
		t.Errorf("status: %+v", st)
	}
	if again := f.push(t, PushOptions{}, map[string]string{"index.html": "one", "shared.txt": "shared"}); !f.there(t, "one") {
		t.Errorf("pushed again, %s has no page", again)
	}
}

// What another control node may remove soon is not called stored: who has sent it, and seals it
// two days later, sends it again.
func TestOldUploadsAreSentAgain(t *testing.T) {
	for _, restart := range []bool{false, true} { // what is remembered, and what the bucket says
		f := newBucketShelf(t)
		f.post(t, "page")
		f.put(t, "page")
		if restart {
			f.restart(t)
			f.clock()
		}
		if f.age(bucketHave - time.Hour); f.post(t, "page") {
			t.Errorf("restart %v: a young blob is to be sent again", restart)
		}
		if f.age(2 * time.Hour); !f.post(t, "page") {
			t.Errorf("restart %v: an old blob is called stored", restart)
		}
		if status, body := f.sealIt(t, "page"); status != http.StatusConflict {
			t.Errorf("restart %v: sealed with it: %d %s", restart, status, body)
		}
		f.put(t, "page")
		if status, body := f.sealIt(t, "page"); status != http.StatusOK {
			t.Errorf("restart %v: not sealed: %d %s", restart, status, body)
		}
	}
}

// What a forgotten release held does not count as sealed for longer than heldFor, even when no
// collection finds out.
func TestForgottenBlobsDoNotCount(t *testing.T) {
	f := newBucketShelf(t)
	first := f.push(t, PushOptions{}, map[string]string{"index.html": "page", "a.txt": "a"})
	f.push(t, PushOptions{}, map[string]string{"index.html": "other"})
	f.age(bucketAge)
	if _, err := f.client.Forget(bounded(t), "www", []string{first.String()}, false); err != nil {
		t.Fatal(err)
	}
	f.ahead = heldFor - time.Minute // after the entry, whose time is the real one
	if f.post(t, "page") {
		t.Error("what was forgotten a moment ago is to be sent again")
	}
	f.ahead = heldFor + time.Minute
	f.Server.bucket.mu.Lock()
	clear(f.Server.bucket.recent)
	f.Server.bucket.mu.Unlock()
	f.s3.Age(-heldFor) // it was written bucketAge before
	f.ahead = bucketHave + heldFor
	if !f.post(t, "page") {
		t.Error("what was forgotten long ago is called stored")
	}
}

// A blob that was lost behind our back is missed by the next collection; the push that follows heals it.
func TestBucketLosesBlobs(t *testing.T) {
	f := newBucketShelf(t)
	files := map[string]string{"index.html": "one", "a.txt": "a"}
	f.push(t, PushOptions{}, files)
	f.s3.Remove(t, "p/"+keyOf(origin.DigestOf([]byte("one"))))
	f.age(time.Hour)
	f.sweep(t)
	if n := f.Status().Bucket.Missing; n != 1 {
		t.Errorf("%d missing, want 1", n)
	}
	if err := f.fillBucket(bounded(t)); err == nil || !strings.Contains(err.Error(), "1 blobs of sealed releases are neither there nor here") {
		t.Errorf("fill: %v", err)
	}
	f.push(t, PushOptions{}, files)
	if !f.there(t, "one") || f.Status().Bucket.Missing != 0 {
		t.Errorf("not healed: %+v", f.Status().Bucket)
	}
}

// Whoever removes blobs and whoever sends them again take turns, also at two control nodes: none is
// removed that is on its way, or has just come, and none is sent while it is removed.
func TestRemovalAndUploadTakeTurns(t *testing.T) {
	b := &bucketed{sending: map[origin.Digest]int{}, doomed: map[origin.Digest]time.Time{}, recent: map[origin.Digest]time.Time{}, absent: map[origin.Digest]time.Time{}}
	sent, recent, old := origin.DigestOf([]byte("sent")), origin.DigestOf([]byte("recent")), origin.DigestOf([]byte("old"))
	if err := b.begin(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	b.note(recent, time.Now())
	stay := b.doom([]origin.Digest{sent, recent, old})
	if len(stay) != 2 || stay[0] != sent || stay[1] != recent || !b.isDoomed(old) || b.isDoomed(sent) {
		t.Fatalf("stay %v; old %v, sent %v", stay, b.isDoomed(old), b.isDoomed(sent))
	}
	waiting, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.begin(waiting, old); err == nil {
		t.Fatal("it is sent while it is removed")
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.begin(t.Context(), old); err != nil {
			t.Error(err)
		}
	})
	b.spare([]origin.Digest{old})
	wg.Wait()
	if stay := b.doom([]origin.Digest{old}); len(stay) != 1 {
		t.Error("it is doomed while it is sent")
	}
	b.end(sent)
	if stay := b.doom([]origin.Digest{sent}); len(stay) != 0 {
		t.Error("it stays though it was not sent")
	}
}

// Three control nodes share a bucket: a blob goes there once, each of them has the manifest and gives the
// blobs, the one that leads removes what is old, and not what another is sending.
func TestClusterSharesBucket(t *testing.T) {
	s3 := fakes3.Start(t, "127.0.0.1")
	shared := bucketAt(t, s3)
	f := newTrioOver(t, func(int) *bucket.Config { return shared })
	pushed, err := f.push(t, 0, "one")
	if err != nil {
		t.Fatal(err)
	}
	if n := s3.Puts("p/blobs/"); n != 2 { // the manifest and the page; whose the bucket is, several may say at once
		t.Errorf("%d blobs were sent", n)
	}
	f.everywhere(t, "the manifest", func(s *Server) bool { _, ok := s.blobs.Has(pushed.Release); return ok })
	d := origin.DigestOf([]byte("one"))
	f.everywhere(t, "the release", func(s *Server) bool { return s.proved("www", d) }) // else the page is sent again
	for i, s := range f.servers {
		r, _, err := s.FetchBlob(patient(t), d)
		if err != nil {
			t.Fatalf("ctl%d: %v", i+1, err)
		}
		var got bytes.Buffer
		if _, err := got.ReadFrom(r); err != nil || got.String() != "one" {
			t.Errorf("ctl%d: %q, %v", i+1, &got, err)
		}
		r.Close()
		if _, here := s.blobs.Has(d); here {
			t.Errorf("ctl%d has the page in its folder", i+1)
		}
	}
	if _, err := f.push(t, 1, "one"); err != nil || s3.Puts("p/blobs/") != 2+1 { // the manifest alone
		t.Errorf("pushed again at another: %d blobs in all, %v", s3.Puts("p/blobs/"), err)
	}
	s3.Fill(t, "p/blobs/sha256-"+strings.Repeat("0", 58), 2) // two old blobs of nobody
	s3.Age(-bucketAge)
	first, second := origin.Digest{}, origin.Digest{}
	second[31] = 1
	leader := f.leader(t)
	for i, s := range f.servers {
		if i != leader {
			if err := s.bucket.begin(t.Context(), second); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	for i, s := range f.servers {
		swept, err := s.collectAt(patient(t), time.Now(), time.Now().Add(2*bucketAge))
		if want := map[bool]int{true: 1}[i == leader]; err != nil || swept.Removed != want {
			t.Errorf("ctl%d removed %+v, %v; want %d", i+1, swept, err, want)
		}
	}
	o := s3.Objects(t)
	if o["p/"+keyOf(first)] != 0 || o["p/"+keyOf(second)] == 0 || o["p/"+keyOf(d)] == 0 {
		t.Errorf("there are %v", o)
	}
}

// leader is which of the three leads the log.
func (f *trio) leader(t *testing.T) int {
	t.Helper()
	ctx := patient(t)
	for {
		name, _, err := f.servers[0].feed.Log().Leader(ctx)
		if err == nil {
			for i, s := range f.servers {
				if s.c.Cluster.Name == name {
					return i
				}
			}
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			t.Fatalf("no leader: %q, %v", name, err)
		}
	}
}
