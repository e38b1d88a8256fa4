package control

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
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
	Stage       string // "hash", "compress", "missing", "upload", "seal", "activate"
	Files, Of   int    // hashed or compressed files; in stage upload, sent blobs
	Bytes, From int64  // hashed or compressed bytes; in stage upload, sent bytes (they may go back when a blob is tried again)
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
		stage := "hash"
		if f.Compress {
			stage = "compress"
		}
		p.tell(Progress{Stage: stage, Files: f.Files, Of: f.TotalFiles, Bytes: f.Bytes, From: f.TotalBytes})
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
	posted, err := p.announce(ctx, b, id)
	if err != nil {
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

// post sends a manifest, or a list of its pages.
func (c *Client) post(ctx context.Context, path, contentType string, b []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	return c.send(req, out)
}

func channelQuery(channel string) string {
	if channel == "" {
		return ""
	}
	return "?channel=" + url.QueryEscape(channel)
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
