package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"perigee.example/feed"
	"perigee.example/origin"
)

func TestPreviewHasItsOwnReleaseAndGeneration(t *testing.T) {
	f := newFleet(t)
	ctx, dir := bounded(t), t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "one"})
	first, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	writeSite(t, dir, map[string]string{"index.html": "draft"})
	zero := uint64(0)
	draft, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir, Channel: "preview-x", IfGeneration: &zero})
	if err != nil || !slices.Equal(draft.Hosts, []string{"preview-x.www.example.com"}) {
		t.Fatalf("%+v, %v", draft, err)
	}
	// The channel is at the draft's generation, prod at its own.
	_, err = f.client.Activate(ctx, "www", "preview-x", first.Release, &zero)
	wantStatus(t, err, 409, "channel preview-x of site www is at generation")
	_, err = f.client.DeleteChannel(ctx, "www", "preview-x", &first.Generation)
	wantStatus(t, err, 409, "generation")
	list, err := f.client.Releases(ctx, "www")
	if err != nil || list.Generation != first.Generation || list.Releases[0].Active || !slices.Equal(list.Releases[0].Previews, []string{"preview-x"}) || !list.Releases[1].Active {
		t.Fatalf("releases %+v, %v", list, err)
	}
	f.restart(t)
	channels, err := f.client.Channels(ctx, "www")
	if err != nil || len(channels.Channels) != 2 {
		t.Fatalf("channels %+v, %v", channels, err)
	}
	if prod, p := channels.Channels[0], channels.Channels[1]; prod.Channel != "prod" || prod.Release != first.Release || prod.Generation != first.Generation ||
		p.Channel != "preview-x" || p.Release != draft.Release || p.Generation != draft.Generation {
		t.Fatalf("channels %+v", channels)
	}

	release, out, err := f.client.Promote(ctx, "www", "preview-x")
	if err != nil || release != draft.Release || out.Generation <= draft.Generation {
		t.Fatalf("promoted %s %+v: %v", release, out, err)
	}
	if _, _, err := f.client.Promote(ctx, "www", "preview-x"); err == nil {
		t.Error("promoted twice")
	}
	if _, _, err := f.client.Promote(ctx, "www", "preview-none"); err == nil {
		t.Error("promoted what is not there")
	}
	if _, err := f.client.DeleteChannel(ctx, "www", "preview-x", &draft.Generation); err != nil {
		t.Fatal(err)
	}
	_, err = f.client.DeleteChannel(ctx, "www", "preview-x", nil)
	wantStatus(t, err, 404, "no channel preview-x")
	if active, _ := f.state.Sites["www"].channel("prod"); active != draft.Release || len(f.state.Sites["www"].Previews) != 0 {
		t.Fatalf("state %+v", f.state.Sites["www"])
	}
}

func TestPreviewsThatAreRefused(t *testing.T) {
	f := newFleet(t)
	ctx, dir := bounded(t), t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "one"})
	first, err := f.client.Push(ctx, PushOptions{Site: "www", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	head := f.head()
	// Said before anything is sent.
	_, err = f.client.Push(ctx, PushOptions{Site: "a", Dir: dir, Channel: "preview-x"})
	wantStatus(t, err, 409, "site a has no previews")
	_, err = f.client.Push(ctx, PushOptions{Site: "www", Dir: dir, Channel: "staging"})
	wantStatus(t, err, 400, "preview-NAME")
	_, err = f.client.Activate(ctx, "www", "preview-../prod", first.Release, nil)
	wantStatus(t, err, 400, "preview-NAME")
	var out any
	err = f.client.do(ctx, http.MethodDelete, "/v1/sites/www/channels/prod", nil, &out)
	wantStatus(t, err, 409, "never deleted")
	err = f.client.do(ctx, http.MethodDelete, "/v1/sites/www/channels/preview-x?if_generation=x", nil, &out)
	wantStatus(t, err, 400, "no number")
	if f.head() != head {
		t.Fatal("a refused call is on the log")
	}
	for i := range maxPreviews {
		if _, err := f.client.Activate(ctx, "www", fmt.Sprintf("preview-%d", i), first.Release, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, err = f.client.Activate(ctx, "www", "preview-more", first.Release, nil)
	wantStatus(t, err, 409, "100 previews")
	if _, err := f.client.Activate(ctx, "www", "preview-7", first.Release, nil); err != nil {
		t.Fatalf("one that is there: %v", err)
	}
}

// The entry's form is fixed from its first version on: an older node skips the
// kind, and all others read what is written here.
func TestChannelEntryHasOneForm(t *testing.T) {
	d := origin.DigestOf([]byte("x"))
	for want, c := range map[string]Channel{
		`{"site":"www","channel":"preview-x","release":"` + d.String() + `"}`: {"www", "preview-x", d},
		`{"site":"www","channel":"preview-x"}`:                                {"www", "preview-x", origin.Digest{}},
	} {
		b, err := json.Marshal(c)
		if err != nil || string(b) != want {
			t.Errorf("%s, %v; want %s", b, err, want)
		}
		got, err := DecodeCommand(feed.Entry{Kind: KindChannel, Seq: 1, Body: b})
		if err != nil || *got.(*Channel) != c {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for _, bad := range []string{`{"site":"www","channel":"prod"}`, `{"site":"www","channel":""}`, `{"site":"","channel":"preview-x"}`, `{"site":"www","channel":"preview-x","more":1}`} {
		if _, err := DecodeCommand(feed.Entry{Kind: KindChannel, Seq: 1, Body: []byte(bad)}); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// A release that a preview shows is not forgotten, however old it is.
func TestTrimSparesPreviews(t *testing.T) {
	var st State
	seq := uint64(0)
	apply := func(kind string, body any) {
		t.Helper()
		seq++
		b, err := json.Marshal(body)
		if err == nil {
			err = st.Apply(feed.Entry{Kind: kind, Seq: seq, Body: b})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	id := func(i int) origin.Digest { return origin.DigestOf(fmt.Append(nil, i)) }
	for i := range maxReleases {
		apply(KindRelease, Release{Site: "www", Release: id(i)})
	}
	apply(KindActivate, Activate{"www", id(1)})
	apply(KindChannel, Channel{"www", "preview-x", id(0)})
	apply(KindRelease, Release{Site: "www", Release: id(maxReleases)})
	apply(KindRelease, Release{Site: "www", Release: id(maxReleases + 1)})
	s := st.Sites["www"]
	if s.find(id(0)) == nil || s.find(id(1)) == nil || s.find(id(2)) != nil || s.find(id(3)) != nil || len(s.Releases) != maxReleases {
		t.Fatalf("%d releases; previewed %v, active %v, old %v", len(s.Releases), s.find(id(0)) != nil, s.find(id(1)) != nil, s.find(id(2)) != nil)
	}
}
