package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"perigee.example/origin"
)

// batchWriters is how many blobs of one batch are stored at a time. Each waits
// for the disk, and those that wait together share a commit of the file system.
const batchWriters = 32

// Batched answers a batch: how many blobs of it are stored.
type Batched struct {
	Stored int `json:"stored"`
}

// putBatch stores small files of releases that are being pushed, many in one
// message. What comes before the first mistake is stored.
func (s *Server) putBatch(w http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	if r.Header.Get("Content-Type") != origin.BatchType {
		return nil, refuse(http.StatusUnsupportedMediaType, "send Content-Type: "+origin.BatchType, "the body must be a batch of blobs")
	}
	body := origin.NewBatchReader(&bodyReader{r: s.body(w, r, origin.MaxBatchBytes)})
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	type item struct {
		origin.Blob
		content []byte
	}
	work := make(chan item)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var stored []origin.Blob
	for range batchWriters {
		wg.Go(func() {
			for i := range work {
				if ctx.Err() != nil {
					continue
				}
				if err := s.blobs.Put(i.Digest, i.Size, bytes.NewReader(i.content)); err != nil {
					cancel(err)
					continue
				}
				mu.Lock()
				stored = append(stored, i.Blob)
				mu.Unlock()
			}
		})
	}
	for ctx.Err() == nil {
		b, content, err := body.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = s.wantedAt(site, b)
		}
		if err != nil {
			cancel(err)
			break
		}
		work <- item{b, content}
	}
	close(work)
	wg.Wait()
	err := context.Cause(ctx)
	s.arrived(site, stored...)
	noted := s.proofs.add(site, stored...) // also what came before a mistake
	if err == nil {
		err = noted
	}
	if err == nil {
		err = s.secondCopy(r.Context(), site, stored...)
	}
	return Batched{Stored: len(stored)}, batchError(err)
}

// batchError gives the errors of a batch their status.
func batchError(err error) error {
	var form *origin.BatchError
	var broken *bodyError
	switch {
	case errors.As(err, &form):
		return refuse(http.StatusBadRequest, "push again: what has arrived whole is kept", "%v", err)
	case errors.As(err, &broken):
		return readError(broken.err)
	}
	return err
}

// wantedAt refuses a blob that no open release of the site holds at this size.
func (s *Server) wantedAt(site string, b origin.Blob) error {
	size, ok := s.wanted(site, b.Digest)
	if !ok {
		return refuse(http.StatusNotFound, postFirst, "no release that is being pushed to %s holds blob %s", site, b.Digest)
	}
	if size != b.Size {
		return refuse(http.StatusUnprocessableEntity, "the file changed while it was sent: push again", "blob %s: %d bytes are announced, the manifest says %d", b.Digest, b.Size, size)
	}
	return nil
}

// PartOf says how much of a blob has arrived in part: it goes on from there.
type PartOf struct {
	origin.Blob
	Offset int64 `json:"offset"`
}

// getPart answers how much of a blob of an open release has arrived from this
// site in part. What other sites have sent is not told.
func (s *Server) getPart(_ http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	d, err := origin.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "", "%v", err)
	}
	size, ok := s.wanted(site, d)
	if !ok {
		return nil, s.wantedAt(site, origin.Blob{Digest: d})
	}
	offset := s.blobs.Partial(site, d)
	if offset >= size { // all came, and a crash before it was taken
		offset = 0
	}
	return PartOf{origin.Blob{Digest: d, Size: size}, offset}, nil
}

// putPart takes a blob from an offset on: a PUT with Content-Range (RFC 9110
// §14.5). The digest is that of the whole, so it stands in Repr-Digest (RFC 9530
// §3). What arrives is kept when the connection breaks.
func (s *Server) putPart(w http.ResponseWriter, r *http.Request, site string, d origin.Digest) (any, error) {
	whole, err := digestField("Repr-Digest", r.Header.Values("Repr-Digest"))
	if err != nil {
		return nil, err
	}
	if whole != d {
		return nil, refuse(http.StatusUnprocessableEntity, "", "Repr-Digest names another digest than the path")
	}
	offset, size, err := contentRange(r.Header.Get("Content-Range"))
	if err != nil {
		return nil, err
	}
	if err := s.wantedAt(site, origin.Blob{Digest: d, Size: size}); err != nil {
		return nil, err
	}
	if r.ContentLength >= 0 && r.ContentLength != size-offset {
		return nil, refuse(http.StatusBadRequest, "", "Content-Range tells of %d bytes, Content-Length of %d", size-offset, r.ContentLength)
	}
	s.arrived(site, origin.Blob{Digest: d, Size: size}) // what comes is kept, whole or not
	err = s.blobs.Append(site, d, size, offset, &bodyReader{r: s.body(w, r, size-offset+1)})
	var broken *bodyError
	var place *origin.OffsetError
	switch {
	case errors.As(err, &broken):
		return nil, readError(broken.err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, readError(err)
	case errors.As(err, &place):
		return nil, refuse(http.StatusConflict, "push again: it goes on where it ended", "blob %s: %v", d, err)
	case errors.Is(err, origin.ErrBusy):
		return nil, refuse(http.StatusConflict, "another push sends it: wait for that one, or end it", "blob %s: %v", d, err)
	case err != nil:
		return nil, err
	}
	blob := origin.Blob{Digest: d, Size: size}
	return blob, s.sent(r.Context(), site, blob)
}

// contentRange reads "bytes FIRST-LAST/SIZE" that goes to the end.
func contentRange(field string) (offset, size int64, err error) {
	rest, ok := strings.CutPrefix(field, "bytes ")
	span, total, ok2 := strings.Cut(rest, "/")
	first, last, ok3 := strings.Cut(span, "-")
	offset, err1 := strconv.ParseInt(first, 10, 64)
	end, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	if !ok || !ok2 || !ok3 || errors.Join(err1, err2, err3) != nil || offset < 0 || size > MaxBlobBytes || offset >= size || end != size-1 {
		return 0, 0, refuse(http.StatusBadRequest, "send Content-Range: bytes OFFSET-LAST/SIZE, up to the last byte", "Content-Range %.80q cannot be taken", field)
	}
	return offset, size, nil
}

// ContentRange is the field's value for the rest of a blob.
func ContentRange(offset, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", offset, size-1, size)
}
