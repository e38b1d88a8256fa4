package origin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Limits of a batch: small blobs one after the other in one message, each as a
// line "sha256-HEX SIZE" and its octets. One by one, thousands of small files
// would cost a round trip and a sync each.
const (
	// MaxBatchBlob bounds one blob of a batch, which its reader holds in memory.
	MaxBatchBlob = 256 << 10
	// MaxBatchBlobs and MaxBatchBytes bound a batch: what is sent again when it fails.
	MaxBatchBlobs = 512
	MaxBatchBytes = 8 << 20
	// maxBatchLine bounds the line before each.
	maxBatchLine = len(digestPrefix) + 2*len(Digest{}) + 12
	// BatchType is the Content-Type of a batch.
	BatchType = "application/vnd.perigee.blobs"
)

// BatchLine is what stands before a blob in a batch.
func BatchLine(b Blob) string { return fmt.Sprintf("%s %d\n", b.Digest, b.Size) }

// BatchReader reads a batch.
type BatchReader struct {
	r *bufio.Reader
	n int
}

// NewBatchReader reads a batch from r, whose length the caller bounds.
func NewBatchReader(r io.Reader) *BatchReader {
	return &BatchReader{r: bufio.NewReaderSize(r, 32<<10)}
}

// BatchError is a batch that is not of the form of one.
type BatchError struct{ Text string }

func (e *BatchError) Error() string { return "batch: " + e.Text }

// Next returns the next blob and its content, whose digest is not checked:
// Blobs.Put does. The error is io.EOF at the end, a *BatchError for what no
// batch may hold, and else that of the reader.
func (b *BatchReader) Next() (Blob, []byte, error) {
	line, err := b.r.ReadSlice('\n')
	if err == io.EOF && len(line) == 0 {
		return Blob{}, nil, io.EOF
	}
	if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
		return Blob{}, nil, err
	}
	if err != nil || len(line) > maxBatchLine {
		return Blob{}, nil, &BatchError{fmt.Sprintf("blob %d: no line that names it", b.n+1)}
	}
	name, length, _ := strings.Cut(string(line[:len(line)-1]), " ")
	d, err := ParseDigest(name)
	if err != nil {
		return Blob{}, nil, &BatchError{err.Error()}
	}
	size, err := strconv.ParseInt(length, 10, 64)
	if err != nil || size < 0 || size > MaxBatchBlob || strconv.FormatInt(size, 10) != length {
		return Blob{}, nil, &BatchError{fmt.Sprintf("blob %s: size %.20q: want 0 to %d", d, length, MaxBatchBlob)}
	}
	if b.n++; b.n > MaxBatchBlobs {
		return Blob{}, nil, &BatchError{fmt.Sprintf("more than %d blobs", MaxBatchBlobs)}
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(b.r, content); err == io.EOF || err == io.ErrUnexpectedEOF {
		return Blob{}, nil, &BatchError{fmt.Sprintf("blob %s: broke off", d)}
	} else if err != nil {
		return Blob{}, nil, err
	}
	return Blob{d, size}, content, nil
}
