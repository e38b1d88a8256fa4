package control

import (
	"net/http"
	"testing"
)

// hanging is a way to the other control nodes on which nothing ever comes.
type hanging chan struct{}

func (h hanging) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case h <- struct{}{}:
	default:
	}
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// TestFetchingHoldsNothingUp: a control node waits for a blob of another one, which
// hangs. It reads the log all the while: a token that is removed elsewhere is refused here.
func TestFetchingHoldsNothingUp(t *testing.T) {
	f, ctx := newTrio(t), patient(t)
	third, way := f.servers[2], make(hanging, 1)
	third.mu.Lock() // which gatherBlobs takes before it asks
	third.peers.http = &http.Client{Transport: way}
	third.mu.Unlock()
	dir := t.TempDir()
	writeSite(t, dir, map[string]string{"index.html": "large"})
	if _, err := f.clients[0].Push(ctx, PushOptions{Site: "www", Dir: dir}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-way:
	case <-ctx.Done():
		t.Fatal("the third fetches nothing: this tests nothing")
	}
	if _, err := f.clients[0].TokenAdd(ctx, TokenRequest{Name: "late", Can: []string{CanRead}}); err != nil {
		t.Fatal(err)
	}
	f.everywhere(t, "the token", func(s *Server) bool {
		s.tokens.mu.RLock()
		defer s.tokens.mu.RUnlock()
		for i := range s.tokens.tokens {
			if s.tokens.tokens[i].Name == "late" {
				return true
			}
		}
		return false
	})
}
