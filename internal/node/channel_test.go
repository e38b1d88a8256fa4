package node

import (
	"errors"
	"strings"
	"testing"

	"perigee.example/internal/control"
	"perigee.example/origin"
)

func (r *rig) wantPlace(place string, want origin.Digest) {
	r.t.Helper()
	s := r.releases.Site(place)
	if want.IsZero() != (s == nil) || s != nil && s.Active != want {
		r.t.Fatalf("%s: %+v, want release %s", place, s, want)
	}
}

// settled waits for a watermark at seq with nothing pending.
func (r *rig) settled(seq uint64) {
	r.t.Helper()
	for {
		if m := r.await("mark "); strings.Contains(m, mark(seq)) && !strings.Contains(m, "pending") {
			return
		}
	}
}

func TestPreviewsComeAndGo(t *testing.T) {
	r := newRig(t)
	one, _ := r.release("one")
	draft, _ := r.release("draft")
	never, neverPage := r.release("never arrives")
	r.setGate(func(d origin.Digest) error {
		if d == neverPage {
			return errors.New("not here")
		}
		return nil
	})
	r.start()
	r.append(control.KindActivate, control.Activate{Site: "www", Release: one})
	r.append(control.KindChannel, control.Channel{Site: "www", Channel: "preview-x", Release: draft})
	r.append(control.KindChannel, control.Channel{Site: "www", Channel: "preview-y", Release: draft})
	r.settled(3)
	r.wantPlace("www@preview-x", draft)
	r.append(control.KindChannel, control.Channel{Site: "www", Channel: "preview-x", Release: never})
	for !strings.Contains(r.await("mark "), `"pending":[{"site":"www","channel":"preview-x","since":4,`) {
	}
	// Its end ends the wait for its blobs, too.
	r.append(control.KindChannel, control.Channel{Site: "www", Channel: "preview-x"})
	r.settled(5)
	check := func() {
		t.Helper()
		r.wantPlace("www", one)
		r.wantPlace("www@preview-x", origin.Digest{})
		r.wantPlace("www@preview-y", draft)
	}
	check()
	r.stop()
	r.srv().Close()
	r.start() // with control gone
	r.await("drains")
	check()
}

// What ended while the node was away is gone once it has read the log, also when
// its own place is not on the log any more.
func TestPreviewThatTheLogDoesNotKnowEnds(t *testing.T) {
	r := newRig(t)
	one, _ := r.release("one")
	r.start()
	r.append(control.KindActivate, control.Activate{Site: "www", Release: one})
	r.append(control.KindChannel, control.Channel{Site: "www", Channel: "preview-x", Release: one})
	r.append(control.KindChannel, control.Channel{Site: "www", Channel: "preview-y", Release: one})
	r.settled(3)
	r.stop()
	r.append(control.KindChannel, control.Channel{Site: "www", Channel: "preview-x"})
	r.start()
	r.wantPlace("www@preview-x", one)
	r.settled(4)
	r.wantPlace("www@preview-x", origin.Digest{})
	r.stop()
	r.srv().Close()
	r.openFeed("another") // a log without previews
	for range 5 {
		r.append(control.KindActivate, control.Activate{Site: "www", Release: one})
	}
	r.start()
	r.await("revalidate")
	r.await("behind false")
	r.settled(5)
	r.wantPlace("www@preview-y", origin.Digest{})
	r.wantPlace("www", one)
}
