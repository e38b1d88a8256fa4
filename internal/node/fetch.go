package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"perigee.example/internal/control"
	"perigee.example/origin"
)

// Fetch opens a blob at the control node. The caller closes it and verifies it;
// size is what the holder says.
type Fetch func(ctx context.Context, d origin.Digest) (body io.ReadCloser, size int64, err error)

const (
	// blobHeadWait bounds the wait for the head of an answer.
	blobHeadWait = 10 * time.Second
	// blobStall bounds the wait for the next bytes of a body.
	blobStall = 30 * time.Second
)

// HTTPFetch fetches from the blob door that the credentials name; of several, from
// the first that has the blob, the one first that had the last.
func HTTPFetch(c *control.Credentials) Fetch {
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:       c.TLS(),
			TLSHandshakeTimeout:   blobHeadWait,
			ResponseHeaderTimeout: blobHeadWait,
			MaxIdleConnsPerHost:   fetchers,
			IdleConnTimeout:       time.Minute,
			DisableCompression:    true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	addrs := strings.Fields(c.Blobs)
	var good atomic.Int32
	return func(ctx context.Context, d origin.Digest) (body io.ReadCloser, size int64, err error) {
		first := int(good.Load())
		for i := range addrs {
			at := (first + i) % len(addrs)
			if body, size, err = fetchFrom(ctx, client, addrs[at], d); err == nil {
				good.Store(int32(at))
				return body, size, nil
			}
			if ctx.Err() != nil {
				break
			}
		}
		return nil, 0, err
	}
}

func fetchFrom(ctx context.Context, client *http.Client, addr string, d origin.Digest) (io.ReadCloser, int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/v1/blobs/"+d.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusOK || resp.ContentLength < 0 {
		resp.Body.Close()
		cancel(nil)
		return nil, 0, fmt.Errorf("control node's blob door: %s", resp.Status)
	}
	b := &stallBody{ReadCloser: resp.Body, cancel: cancel}
	b.timer = time.AfterFunc(blobStall, func() { cancel(errStalled) })
	return b, resp.ContentLength, nil
}

var errStalled = errors.New("no bytes came for too long")

// stallBody ends a transfer that has stopped moving.
type stallBody struct {
	io.ReadCloser
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (b *stallBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(blobStall)
	}
	return n, err
}

func (b *stallBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
