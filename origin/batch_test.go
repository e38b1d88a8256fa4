package origin

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestBatchIsReadAsItIsWritten(t *testing.T) {
	var buf bytes.Buffer
	contents := []string{"one", "", "two\nsha256-", strings.Repeat("x", MaxBatchBlob)}
	for _, c := range contents {
		buf.WriteString(BatchLine(Blob{DigestOf([]byte(c)), int64(len(c))}))
		buf.WriteString(c)
	}
	r := NewBatchReader(&buf)
	for _, want := range contents {
		b, content, err := r.Next()
		if err != nil || string(content) != want || b != (Blob{DigestOf([]byte(want)), int64(len(want))}) {
			t.Fatalf("%+v, %.20q, %v; want %.20q", b, content, err, want)
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestBatchThatIsNone(t *testing.T) {
	d := DigestOf(nil).String()
	for name, text := range map[string]string{
		"no line": "x", "long line": strings.Repeat("x", 100_000), "no size": d + "\n", "negative": d + " -1\n", "zero before": d + " 01\nx", "plus": d + " +1\nx",
		"too large": d + " 262145\n" + strings.Repeat("x", 262145), "huge": d + " 99999999999999999999\n", "short": d + " 5\nabc", "other digest": "md5-00 1\nx",
		"upper case": strings.ToUpper(d) + " 0\n", "carriage return": d + " 0\r\n", "too many": strings.Repeat(d+" 0\n", MaxBatchBlobs+1),
	} {
		r := NewBatchReader(strings.NewReader(text))
		var err error
		for range MaxBatchBlobs + 2 {
			if _, _, err = r.Next(); err != nil {
				break
			}
		}
		var bad *BatchError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte(DigestOf(nil).String() + " 0\n" + DigestOf([]byte("x")).String() + " 1\nx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again bytes.Buffer
		r := NewBatchReader(bytes.NewReader(b))
		for {
			blob, content, err := r.Next()
			if err == io.EOF {
				if !bytes.Equal(again.Bytes(), b) { // one batch, one form
					t.Fatalf("%q was read as %q", b, again.Bytes())
				}
				return
			}
			if err != nil {
				return
			}
			again.WriteString(BatchLine(blob))
			again.Write(content)
		}
	})
}
