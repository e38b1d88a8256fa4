package origin

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestBlobGoesOnWhereItBrokeOff(t *testing.T) {
	b, dir := openBlobs(t)
	content := strings.Repeat("a large film; ", 100)
	d, size := DigestOf([]byte(content)), int64(len(content))
	broken := errors.New("the connection broke")
	err := b.Append("www", d, size, 0, io.MultiReader(strings.NewReader(content[:500]), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if got := b.Partial("www", d); got != 500 {
		t.Fatalf("%d bytes are here, want 500", got)
	}
	if got := b.Partial("shop", d); got != 0 {
		t.Fatalf("another owner is told of %d bytes", got)
	}
	if _, ok := b.Has(d); ok {
		t.Fatal("half a blob is one")
	}
	var place *OffsetError
	for _, offset := range []int64{499, 501} {
		if err := b.Append("www", d, size, offset, strings.NewReader(content[offset:])); !errors.As(err, &place) || place.Have != 500 {
			t.Fatalf("at %d: %v", offset, err)
		}
	}
	// After a restart it is still there, and goes on.
	b.Close()
	if b, err = OpenBlobs(dir); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Append("www", d, size, 500, strings.NewReader(content[500:700])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if err := b.Append("www", d, size, 700, strings.NewReader(content[700:])); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, d)
	if err := b.Verify(d); err != nil {
		t.Fatal(err)
	}
}

// What is not the blob in the end is not kept, wherever it went wrong.
func TestPartOfAnotherBlobIsNotKept(t *testing.T) {
	b, dir := openBlobs(t)
	const content = "0123456789"
	d := DigestOf([]byte(content))
	var mismatch *MismatchError
	for name, parts := range map[string][2]string{
		"other first part": {"01x34", "56789"}, "other second part": {"01234", "5678x"}, "too long": {"01234", "567890"},
	} {
		if err := b.Append("www", d, 10, 0, strings.NewReader(parts[0])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%s: %v", name, err)
		}
		if err := b.Append("www", d, 10, 5, strings.NewReader(parts[1])); !errors.As(err, &mismatch) {
			t.Errorf("%s: %v", name, err)
		}
		wantFiles(t, dir)
	}
	// Offset 0 begins anew; two at a time do not mix.
	if err := b.Append("www", d, 10, 0, strings.NewReader("junk")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	slow, feed := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- b.Append("www", d, 10, 0, slow) }()
	if _, err := feed.Write([]byte("01234")); err != nil {
		t.Fatal(err)
	}
	if err := b.Append("www", d, 10, 5, strings.NewReader("56789")); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	if err := b.SweepPartials(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := feed.Write([]byte("56789")); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, d)
}

func TestOldPartsAreSwept(t *testing.T) {
	b, dir := openBlobs(t)
	d := DigestOf([]byte("0123456789"))
	if err := b.Append("www", d, 10, 0, strings.NewReader("01234")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if err := b.SweepPartials(time.Now().Add(-partialAge)); err != nil || b.Partial("www", d) != 5 {
		t.Fatalf("a young one is gone: %v", err)
	}
	if err := b.SweepPartials(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir)
}
