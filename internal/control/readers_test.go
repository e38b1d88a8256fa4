package control

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"perigee.example/origin"
)

// TestManifestsAreReadInTurn: however many releases are posted, sealed and activated at
// one time, as many manifests are in memory as maxReaders says.
func TestManifestsAreReadInTurn(t *testing.T) {
	f := newFleet(t)
	dir := t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "one"})
	pushed, err := f.client.Push(bounded(t), PushOptions{Site: "www", Dir: dir, KeepInactive: true})
	if err != nil {
		t.Fatal(err)
	}
	for range maxReaders {
		f.readers <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", http.NoBody)
	r.SetPathValue("site", "www")
	r.SetPathValue("id", pushed.Release.String())
	// Each waits for its turn: it ends with its caller, and for no other reason.
	if _, err := f.seal(httptest.NewRecorder(), r); !errors.Is(err, context.Canceled) {
		t.Errorf("seal: %v", err)
	}
	if _, err := f.mayReplace(ctx, "www", origin.Prod, pushed.Release); !errors.Is(err, context.Canceled) {
		t.Errorf("activate: %v", err)
	}
	for range maxReaders {
		<-f.readers
	}
	if _, err := f.client.Activate(bounded(t), "www", "", pushed.Release, nil); err != nil {
		t.Error(err)
	}
}
