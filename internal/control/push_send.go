package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"time"

	"perigee.example/origin"
)

const (
	// batchSend is up to which size blobs are sent in batches, and batchFull where
	// a batch is closed: what is sent again when the connection breaks.
	batchSend = 64 << 10
	batchFull = 4 << 20
	// partSend is from which size a blob goes on where it broke off.
	partSend = 8 << 20
	// partTries bounds how often it does without a byte in between.
	partTries = 4
)

// parcel is what one request carries: one blob, or a batch.
type parcel []origin.Blob

// parcels puts small blobs together.
func parcels(blobs []origin.Blob) []parcel {
	var out []parcel
	var batch parcel
	size := int64(0)
	for _, b := range blobs {
		if b.Size > batchSend {
			out = append(out, parcel{b})
			continue
		}
		if batch = append(batch, b); len(batch) == origin.MaxBatchBlobs || size+b.Size > batchFull {
			out, batch, size = append(out, batch), nil, 0
			continue
		}
		size += b.Size
	}
	if batch != nil {
		out = append(out, batch)
	}
	return out
}

// upload sends the missing blobs, several parcels at a time.
func (p *pushing) upload(ctx context.Context, missing []origin.Blob) error {
	if len(missing) == 0 {
		return nil
	}
	total := Progress{Stage: "upload", Of: len(missing)}
	for _, b := range missing {
		total.From += b.Size
	}
	p.tell(total)
	return each(ctx, uploaders, parcels(missing), func(ctx context.Context, blobs parcel) error {
		for _, b := range blobs {
			if p.folder.Path(b.Digest) == "" {
				return fmt.Errorf("control node %s asks for blob %s, which is not in the release", p.c.where, b.Digest)
			}
		}
		var err error
		what := p.folder.Path(blobs[0].Digest)
		switch {
		case len(blobs) > 1:
			what = fmt.Sprintf("%s and %d more", what, len(blobs)-1)
			err = p.again(ctx, func() error { return p.sendBatch(ctx, blobs) })
		case blobs[0].Size >= partSend:
			err = p.sendParts(ctx, blobs[0])
		default:
			err = p.again(ctx, func() error { return p.sendWhole(ctx, blobs[0]) })
		}
		if err != nil {
			return fmt.Errorf("send %s: %w", what, err)
		}
		p.mu.Lock()
		for _, b := range blobs {
			if p.folder.Made(b.Digest) {
				p.variants++
			} else {
				p.sent++
			}
			p.sentBytes += b.Size
		}
		p.mu.Unlock()
		p.step(len(blobs), 0)
		return nil
	})
}

// again calls f until it works, fails for good, or has been tried enough.
func (p *pushing) again(ctx context.Context, f func() error) (err error) {
	for try := range uploadTries {
		if try > 0 {
			if err := pause(ctx, uploadRetry<<(try-1)); err != nil {
				return err
			}
		}
		if err = f(); err == nil || !worthRetry(err) {
			return err
		}
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// worthRetry: the connection, or the control node's trouble of the moment; not
// what it refused, and not a full disk.
func worthRetry(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Status == http.StatusInternalServerError || e.Status == http.StatusServiceUnavailable
	}
	return !isLocal(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// isLocal: a file of this machine cannot be read, or is none any more.
func isLocal(err error) bool {
	var local *fs.PathError
	var no *origin.PathError
	return errors.As(err, &local) || errors.As(err, &no)
}

// counted tells how many bytes were read.
type counted struct {
	io.Reader
	tell func(n int)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if n != 0 {
		c.tell(n)
	}
	return n, err
}

// body is a request's body whose bytes count as sent; take takes them back when
// the request has failed.
func (p *pushing) body(r io.Reader) (body io.ReadCloser, take func()) {
	var mu sync.Mutex
	var read int64
	body = io.NopCloser(&counted{r, func(n int) {
		mu.Lock()
		read += int64(n)
		mu.Unlock()
		p.step(0, int64(n))
	}})
	return body, func() {
		mu.Lock()
		defer mu.Unlock()
		p.step(0, -read)
	}
}

// put makes one PUT of the push.
func (p *pushing) put(ctx context.Context, path string, body io.ReadCloser, size int64, header http.Header) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.c.base+sitePath(p.o.Site, path), body)
	if err != nil {
		return err
	}
	if req.ContentLength = size; size == 0 {
		req.Body = http.NoBody
	}
	req.Header = header
	var answer any
	err = p.c.send(req, &answer)
	if err != nil && strings.Contains(err.Error(), "ContentLength=") {
		return &Error{Status: http.StatusUnprocessableEntity, Message: "it changed while it was sent", Hint: "push again"}
	}
	return err
}

// sendWhole sends one blob.
func (p *pushing) sendWhole(ctx context.Context, b origin.Blob) error {
	f, err := p.folder.Open(b.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	body, take := p.body(f)
	err = p.put(ctx, "/blobs/"+b.Digest.String(), body, b.Size, http.Header{"Content-Type": {origin.DefaultType}, "Content-Digest": {ContentDigest(b.Digest)}})
	if err != nil {
		take()
	}
	return err
}

// sendBatch sends small blobs in one request.
func (p *pushing) sendBatch(ctx context.Context, blobs parcel) error {
	var out bytes.Buffer
	sizes := int64(0)
	for _, b := range blobs {
		f, err := p.folder.Open(b.Digest)
		if err != nil {
			return err
		}
		out.WriteString(origin.BatchLine(b))
		n, err := io.Copy(&out, io.LimitReader(f, b.Size+1))
		f.Close()
		if err != nil {
			return err
		}
		if n != b.Size {
			return &Error{Status: http.StatusUnprocessableEntity, Message: p.folder.Path(b.Digest) + " changed while it was sent", Hint: "push again"}
		}
		sizes += n
	}
	err := p.put(ctx, "/blobs", io.NopCloser(&out), int64(out.Len()), http.Header{"Content-Type": {origin.BatchType}})
	if err == nil {
		p.step(0, sizes)
	}
	return err
}

// sendParts sends a large blob; when the connection breaks it goes on where the
// control node has it, also where an earlier push left off.
func (p *pushing) sendParts(ctx context.Context, b origin.Blob) error {
	path := "/blobs/" + b.Digest.String()
	f, err := p.folder.Open(b.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	tries, reached := 0, int64(0)
	for {
		var at PartOf
		err := p.c.do(ctx, http.MethodGet, sitePath(p.o.Site, path), nil, &at)
		if err == nil {
			if at.Offset > reached {
				tries, reached = 0, at.Offset
			}
			p.step(0, at.Offset)
			body, take := p.body(io.NewSectionReader(f, at.Offset, b.Size-at.Offset))
			err = p.put(ctx, path, body, b.Size-at.Offset, http.Header{
				"Content-Type": {origin.DefaultType}, "Content-Range": {ContentRange(at.Offset, b.Size)}, "Repr-Digest": {ContentDigest(b.Digest)},
			})
			if err == nil {
				return nil
			}
			take()
			p.step(0, -at.Offset)
		}
		if tries++; tries >= partTries || !worthRetry(err) && !brokeOff(err) {
			return err
		}
		if err := pause(ctx, uploadRetry<<(tries-1)); err != nil {
			return err
		}
	}
}

// brokeOff: the control node says so, or still holds the connection that broke.
func brokeOff(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusConflict || e.Status == http.StatusBadRequest && strings.Contains(e.Message, "broke off"))
}

// each calls f for every item, n at a time, and stops at the first error.
func each[T any](ctx context.Context, n int, items []T, f func(context.Context, T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan T)
	var wg sync.WaitGroup
	for range min(n, len(items)) {
		wg.Go(func() {
			for item := range queue {
				if ctx.Err() != nil {
					continue
				}
				if err := f(ctx, item); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, item := range items {
		select {
		case queue <- item:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(queue)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
