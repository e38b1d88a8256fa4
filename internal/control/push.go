package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"perigee.example/origin"
)

const (
	// uploaders is how many blobs are sent at the same time.
	uploaders = 8
	// uploadTries is how often one blob is tried before the push gives up; what
	// has arrived stays, so that running it again goes on from there.
	uploadTries = 3
	// uploadRetry is the wait before the second try, doubled for each further one.
	uploadRetry = 500 * time.Millisecond
)

// PushOptions is what Push is to do.
type PushOptions struct {
	Site string
	// Channel is where the release becomes active: prod ("") or a preview.
	Channel string
	Dir     string
	// DryRun stops after the control node said what is missing.
	DryRun bool
	// KeepInactive seals the release and does not activate it.
	KeepInactive bool
	// IfGeneration refuses the activation (409) unless the channel is at that generation.
	IfGeneration *uint64
	// Progress is called as the push goes on, from one goroutine at a time.
	Progress func(Progress)
}

// Progress is how far a push is. Totals are 0 until they are known.
type Progress struct {
	Stage       string // "hash", "missing", "upload", "seal", "activate"
	Files, Of   int    // hashed files; in stage upload, sent blobs
	Bytes, From int64  // hashed bytes; in stage upload, sent bytes (they may go back when a blob is tried again)
}

// Pushed is what a push did.
type Pushed struct {
	Release         origin.Digest    `json:"release"`
	Files           int              `json:"files"`
	Bytes           int64            `json:"bytes"`              // of files and variants
	Sent            int              `json:"sent"`               // files
	Variants        int              `json:"variants,omitempty"` // compressed variants that were sent beside them
	SentBytes       int64            `json:"sent_bytes"`         // of blobs that arrived
	Missing         []origin.Blob    `json:"missing,omitempty"`
	MissingVariants int              `json:"missing_variants,omitempty"` // how many of Missing are compressed variants
	Skipped         []origin.Skipped `json:"skipped,omitempty"`          // left out on purpose
	Seq             uint64           `json:"seq,omitempty"`              // of the activation
	Generation      uint64           `json:"generation,omitempty"`
	Hosts           []string         `json:"hosts,omitempty"` // of a preview: where it is served
}

// Push makes a folder a release of a site and activates it. It sends only blobs
// that the control node lacks. Every step can be done again: after an error,
// running the same push sends what is still missing.
func (c *Client) Push(ctx context.Context, o PushOptions) (out Pushed, err error) {
	p := &pushing{c: c, o: o}
	if p.folder, err = origin.ManifestOf(ctx, o.Dir, func(f origin.FolderProgress) {
		p.tell(Progress{Stage: "hash", Files: f.Files, Of: f.TotalFiles, Bytes: f.Bytes, From: f.TotalBytes})
	}); err != nil {
		return out, fmt.Errorf("push: %w", err)
	}
	defer p.folder.Close()
	m := p.folder.Manifest
	b, id, err := m.Canonical()
	if err != nil {
		return out, fmt.Errorf("push %s: %w", o.Dir, err)
	}
	out.Release, out.Files, out.Skipped = id, len(m.Files), p.folder.Skipped
	for _, b := range m.Blobs() {
		out.Bytes += b.Size
	}
	var posted Posted
	path := sitePath(o.Site, "/releases")
	if o.Channel != "" {
		path += "?channel=" + url.QueryEscape(o.Channel)
	}
	if err := c.post(ctx, path, b, &posted); err != nil {
		return out, err
	}
	if posted.Release != id {
		return out, fmt.Errorf("control node %s calls the release %s, not %s", c.where, posted.Release, id)
	}
	out.Missing = posted.Missing
	p.missing(posted.Missing)
	for _, b := range posted.Missing {
		if p.folder.Made(b.Digest) {
			out.MissingVariants++
		}
	}
	if o.DryRun {
		return out, nil
	}
	err = p.upload(ctx, posted.Missing)
	out.Sent, out.Variants, out.SentBytes = p.sent, p.variants, p.sentBytes
	if err != nil {
		return out, err
	}
	p.tell(Progress{Stage: "seal"})
	var sealed Sealed
	if err := c.do(ctx, http.MethodPost, sitePath(o.Site, "/releases/"+id.String()+"/seal"), nil, &sealed); err != nil {
		return out, err
	}
	out.Missing, out.MissingVariants = nil, 0
	if o.KeepInactive {
		return out, nil
	}
	p.tell(Progress{Stage: "activate"})
	act, err := c.Activate(ctx, o.Site, o.Channel, id, o.IfGeneration)
	out.Seq, out.Generation, out.Hosts = act.Seq, act.Generation, act.Hosts
	return out, err
}

// post sends a manifest.
func (c *Client) post(ctx context.Context, path string, b []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return c.send(req, out)
}

// pushing is one push under way.
type pushing struct {
	c      *Client
	o      PushOptions
	folder *origin.Folder

	mu        sync.Mutex
	progress  Progress
	sent      int
	variants  int
	sentBytes int64
}

func (p *pushing) tell(now Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress = now
	if p.o.Progress != nil {
		p.o.Progress(now)
	}
}

func (p *pushing) step(files int, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.Files += files
	p.progress.Bytes += n
	if p.o.Progress != nil {
		p.o.Progress(p.progress)
	}
}

func (p *pushing) missing(blobs []origin.Blob) {
	pr := Progress{Stage: "missing", Of: len(blobs)}
	for _, b := range blobs {
		pr.From += b.Size
	}
	p.tell(pr)
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

// upload sends the missing blobs in parallel.
func (p *pushing) upload(ctx context.Context, missing []origin.Blob) error {
	if len(missing) == 0 {
		return nil
	}
	total := Progress{Stage: "upload", Of: len(missing)}
	for _, b := range missing {
		total.From += b.Size
	}
	p.tell(total)
	return each(ctx, uploaders, missing, func(ctx context.Context, b origin.Blob) error {
		name := p.folder.Path(b.Digest)
		if name == "" {
			return fmt.Errorf("control node %s asks for blob %s, which is not in the release", p.c.where, b.Digest)
		}
		var err error
		for try := range uploadTries {
			if try > 0 {
				timer := time.NewTimer(uploadRetry << (try - 1))
				select {
				case <-timer.C:
				case <-ctx.Done():
					timer.Stop()
					return ctx.Err()
				}
			}
			if err = p.put(ctx, name, b); err == nil || !worthRetry(err) {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("send %s: %w", name, err)
		}
		p.mu.Lock()
		if p.folder.Made(b.Digest) {
			p.variants++
		} else {
			p.sent++
		}
		p.sentBytes += b.Size
		p.mu.Unlock()
		p.step(1, 0)
		return nil
	})
}

// worthRetry: the connection, or the control node's trouble of the moment; not
// what it refused, and not a full disk.
func worthRetry(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Status == http.StatusInternalServerError || e.Status == http.StatusServiceUnavailable
	}
	var local *fs.PathError
	return !errors.As(err, &local) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// put sends one blob.
func (p *pushing) put(ctx context.Context, name string, b origin.Blob) error {
	f, err := p.folder.Open(b.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	var mu sync.Mutex
	var read int64
	body := &counted{f, func(n int) {
		mu.Lock()
		read += int64(n)
		mu.Unlock()
		p.step(0, int64(n))
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.c.base+sitePath(p.o.Site, "/blobs/"+b.Digest.String()), io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = b.Size
	if b.Size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", origin.DefaultType)
	req.Header.Set("Content-Digest", ContentDigest(b.Digest))
	var answer origin.Blob
	if err := p.c.send(req, &answer); err != nil {
		mu.Lock()
		p.step(0, -read)
		mu.Unlock()
		if strings.Contains(err.Error(), "ContentLength=") {
			return &Error{Status: http.StatusUnprocessableEntity, Message: name + " changed while it was sent", Hint: "push again"}
		}
		return err
	}
	return nil
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
