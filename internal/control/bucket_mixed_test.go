package control

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"perigee.example/internal/bucket"
	"perigee.example/internal/fakes3"
	"perigee.example/origin"
)

// TestOneOfThreeHasTheBucket: files are pushed at whichever control node, and had from each,
// with the bucket or without. What went to one without gets into the bucket. Nothing is
// removed from there, and who is without it is said.
func TestOneOfThreeHasTheBucket(t *testing.T) {
	s3 := fakes3.Start(t, "127.0.0.1")
	its := bucketAt(t, s3)
	f := newTrioOver(t, func(i int) *bucket.Config {
		if i == 0 {
			return its
		}
		return nil
	})
	for i, text := range []string{"one", "two"} {
		if _, err := f.push(t, i, text); err != nil {
			t.Fatalf("push at ctl%d: %v", i+1, err)
		}
	}
	there := func(text string) bool { return s3.Objects(t)["p/"+keyOf(origin.DigestOf([]byte(text)))] > 0 }
	if !there("one") || there("two") {
		t.Errorf("in the bucket are %v", s3.Objects(t))
	}
	for i, s := range f.servers {
		for _, text := range []string{"one", "two"} {
			if got, err := f.have(patient(t), s, text); err != nil || got != text {
				t.Errorf("ctl%d has %q of %q: %v", i+1, got, text, err)
			}
		}
	}
	one := f.servers[0]
	f.everywhere(t, "both releases", func(s *Server) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		st := s.state.Sites["www"]
		return st != nil && len(st.Releases) == 2
	})
	s3.Fill(t, "p/blobs/sha256-"+strings.Repeat("0", 58), 1) // an old blob of nobody
	s3.Age(-bucketAge)
	swept, err := one.collectAt(patient(t), time.Now(), time.Now())
	if err == nil || !strings.Contains(err.Error(), "ctl2") || !strings.Contains(err.Error(), "write the same [control.bucket]") || swept.Removed > 0 {
		t.Errorf("collected: %+v, %v", swept, err)
	}
	if err := one.fillBucket(patient(t)); err != nil || !there("two") {
		t.Errorf("what was pushed at ctl2 is in the bucket: %v, %v", there("two"), err)
	}
}

// have is what a node gets of a control node by the digest of a text.
func (f *trio) have(ctx context.Context, s *Server, text string) (string, error) {
	c, err := s.findContent(ctx, origin.DigestOf([]byte(text)))
	if err != nil {
		return "", err
	}
	defer c.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(c)
	return b.String(), err
}
