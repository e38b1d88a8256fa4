package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"perigee.example/origin"
)

// TestQuotas: what is too much is refused before a file of it is sent, with the
// cure; the old release stays, and what fits is taken. Files that a site holds
// already count once.
func TestQuotas(t *testing.T) {
	f := newFleet(t)
	ctx := bounded(t)
	limit := func(q Quota) {
		k := known
		k.Sites = append([]KnownSite(nil), known.Sites...)
		k.Sites[0].Quota = q
		f.SetKnown(k)
	}
	limit(Quota{Files: 3, Stored: 1000})
	dir := t.TempDir()
	// Random-looking bytes, which no variant makes smaller.
	bytes := func(n, seed int) string {
		var b strings.Builder
		for i := 0; b.Len() < n; i++ {
			d := origin.DigestOf([]byte(fmt.Sprint(seed, i)))
			b.Write(d[:])
		}
		return b.String()[:n]
	}
	push := func(files map[string]string) (Pushed, error) {
		dir = t.TempDir()
		writeSite(t, dir, files)
		return f.client.Push(ctx, PushOptions{Site: "www", Dir: dir})
	}
	first, err := push(map[string]string{"a.bin": bytes(600, 1)})
	if err != nil {
		t.Fatal(err)
	}
	blobs, head := len(stored(t, f.dir)), f.head()
	_, err = push(map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"})
	wantStatus(t, err, 413, "raise max_files of [site.www]")
	_, err = push(map[string]string{"a.bin": bytes(1001, 2)})
	wantStatus(t, err, 413, "raise max_stored of [site.www]")
	_, err = push(map[string]string{"b.bin": bytes(500, 3)})
	wantStatus(t, err, 507, "www would hold 1100 bytes, and it may hold 1000")
	if n := len(stored(t, f.dir)); n != blobs || f.head() != head {
		t.Errorf("%d files are kept, %d before; head %d, %d before", n, blobs, f.head(), head)
	}
	if st, err := f.client.Status(ctx); err != nil || st.Sites["www"].Active != first.Release {
		t.Errorf("active: %v, %v", st.Sites["www"], err)
	}
	if _, err := push(map[string]string{"a.bin": bytes(600, 1), "b.bin": bytes(400, 4)}); err != nil {
		t.Errorf("exactly what it may hold, most of it known: %v", err)
	}
	if _, _, err := f.client.Rollback(ctx, "www", ""); err != nil {
		t.Errorf("a rollback needs no room: %v", err)
	}
	f.restart(t) // what is held is known again
	limit(Quota{Files: 3, Stored: 1000})
	_, err = push(map[string]string{"c.bin": bytes(1, 5)})
	wantStatus(t, err, 507, "www would hold 1001 bytes")
	if _, err := push(map[string]string{"a.bin": bytes(600, 1)}); err != nil {
		t.Errorf("what it holds already: %v", err)
	}
}

// TestPushesOfOneSitePushOutNoOthers: the oldest of its own is forgotten.
func TestPushesOfOneSitePushOutNoOthers(t *testing.T) {
	s := &Server{open: map[openKey]*openRelease{}, vital: map[origin.Digest]bool{}, now: time.Now}
	other := openKey{"a", origin.DigestOf([]byte("a"))}
	s.setOpen(other, nil)
	for i := range 2 * maxOpen {
		s.setOpen(openKey{"www", origin.DigestOf([]byte{byte(i)})}, nil)
	}
	_, oldest := s.open[openKey{"www", origin.DigestOf([]byte{2*maxOpen - maxOpenOfSite})}]
	if s.open[other] == nil || !oldest || len(s.open) != maxOpenOfSite+1 || len(s.openOrder) != maxOpenOfSite+1 {
		t.Errorf("%d are open, in order %d; the other site's: %v, the oldest: %v", len(s.open), len(s.openOrder), s.open[other] != nil, oldest)
	}
}

// TestWhatIsNotSealedCounts: a site does not get beyond what it may hold by sending the
// files of one release after the other and sealing none, with its older pushes forgotten;
// not by files that it sends in part, or manifests alone. What is removed counts no more.
func TestWhatIsNotSealedCounts(t *testing.T) {
	now := time.Now()
	s := &Server{open: map[openKey]*openRelease{}, vital: map[origin.Digest]bool{}, held: map[string]*held{}, unsealed: unsealed{}, now: func() time.Time { return now }}
	s.known.Store(&Known{Sites: []KnownSite{{Name: "www", Push: true, Quota: Quota{Stored: 1000}}}})
	blob := func(name string, size int64) origin.Blob {
		return origin.Blob{Digest: origin.DigestOf([]byte(name)), Size: size}
	}
	post := func(name string, size int64) error {
		b := blob(name, size)
		id := origin.DigestOf([]byte("release of " + name))
		if err := s.fits("www", id, 1, []origin.Blob{b}); err != nil {
			return err
		}
		s.setOpen(openKey{"www", id}, []origin.Blob{b})
		return nil
	}
	if err := post("large", 900); err != nil {
		t.Fatal(err)
	}
	s.arrived("www", blob("large", 900))
	for i := range maxOpenOfSite {
		if err := post(fmt.Sprint(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, still := s.open[openKey{"www", origin.DigestOf([]byte("release of large"))}]; still {
		t.Fatal("the first push is still open")
	}
	wantStatus(t, post("second", 900), 507, "what was sent and became no release counts for 24h")
	if err := post("large", 900); err != nil { // the same again costs no more
		t.Errorf("the push that was forgotten begins again: %v", err)
	}
	now = now.Add(blobAge + time.Second)
	s.forgetOpen()
	if err := post("second", 900); err != nil {
		t.Errorf("after it was removed: %v", err)
	}
	s.arrived("www", blob("release of third", 200)) // a manifest
	wantStatus(t, post("third of another", 100), 507, "would hold 1200 bytes")
}

// TestPagesMakeRoom: pages of lists that were given up do not pile up until their time
// is over; those of the list that is being sent stay.
func TestPagesMakeRoom(t *testing.T) {
	p := &pageStores{dir: t.TempDir(), of: map[string]*pageStore{}}
	t.Cleanup(p.close)
	s, err := p.open("www", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	old, new := []byte("a page of a list before"), []byte("a page of this one")
	for _, page := range [][]byte{old, new} {
		if err := s.Put(origin.DigestOf(page), int64(len(page)), strings.NewReader(string(page))); err != nil {
			t.Fatal(err)
		}
	}
	p.want(s, map[origin.Digest]int64{origin.DigestOf(new): int64(len(new))})
	for _, size := range []int64{maxPagesBytes, 1} {
		if _, ok := s.Has(origin.DigestOf(old)); !ok {
			t.Fatal("there was room for the old page")
		}
		if err := p.add(s, size, time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	_, oldThere := s.Has(origin.DigestOf(old))
	_, newThere := s.Has(origin.DigestOf(new))
	if oldThere || !newThere {
		t.Errorf("the old page is there: %v; the new one: %v", oldThere, newThere)
	}
}
