package control

import (
	"bytes"
	"cmp"
	"context"
	"errors"
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
	// resumeWait bounds how long a push goes on among control nodes without getting
	// further: longer than they need to agree on another leader.
	resumeWait = 30 * time.Second
	// sealWait is what the control node may take for each file when it seals: it
	// looks for every one, and asks another control node for them.
	sealWait = 2 * time.Millisecond
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
	// Rewrite, if not nil, gives what pages refer to names by content.
	Rewrite *origin.RewriteOptions
	// IfGeneration refuses the activation (409) unless the channel is at that generation.
	IfGeneration *uint64
	// Progress is called as the push goes on, from one goroutine at a time.
	Progress func(Progress)
}

// Progress is how far a push is. Totals are 0 until they are known.
type Progress struct {
	Stage       string // "hash", "rewrite", "compress", "missing", "upload", "seal", "activate"; "resume": at another control node
	Files, Of   int    // hashed, read or compressed files; in stage upload, sent blobs
	Bytes, From int64  // hashed, read or compressed bytes; in stage upload, sent bytes (they may go back when a blob is tried again)
}

// Pushed is what a push did.
type Pushed struct {
	Release         origin.Digest     `json:"release"`
	Files           int               `json:"files"`
	Bytes           int64             `json:"bytes"`              // of files and variants
	Sent            int               `json:"sent"`               // files
	Variants        int               `json:"variants,omitempty"` // compressed variants that were sent beside them
	SentBytes       int64             `json:"sent_bytes"`         // of blobs that arrived
	Missing         []origin.Blob     `json:"missing,omitempty"`
	MissingVariants int               `json:"missing_variants,omitempty"` // how many of Missing are compressed variants
	Skipped         []origin.Skipped  `json:"skipped,omitempty"`          // left out on purpose
	Rewritten       *origin.Rewritten `json:"rewritten,omitempty"`        // when references were to be
	Seq             uint64            `json:"seq,omitempty"`              // of the activation
	Generation      uint64            `json:"generation,omitempty"`
	Hosts           []string          `json:"hosts,omitempty"` // of a preview: where it is served
}

// Push makes a folder a release of a site and activates it. It sends only blobs
// that the control node lacks. Every step can be done again: after an error,
// running the same push sends what is still missing.
func (c *Client) Push(ctx context.Context, o PushOptions) (out Pushed, err error) {
	p := &pushing{c: c, o: o}
	if p.folder, err = origin.ManifestOf(ctx, o.Dir, origin.FolderOptions{Rewrite: o.Rewrite, Progress: func(f origin.FolderProgress) {
		p.tell(Progress{Stage: f.Stage, Files: f.Files, Of: f.TotalFiles, Bytes: f.Bytes, From: f.TotalBytes})
	}}); err != nil {
		return out, fmt.Errorf("push: %w", err)
	}
	defer p.folder.Close()
	m := p.folder.Manifest
	b, id, err := m.Canonical()
	if err != nil {
		return out, fmt.Errorf("push %s: %w", o.Dir, err)
	}
	out.Release, out.Files, out.Skipped, out.Rewritten = id, len(m.Files), p.folder.Skipped, p.folder.Rewritten
	for _, b := range m.Blobs() {
		out.Bytes += b.Size
	}
	if err := p.bring(ctx, b, id, &out); err != nil || o.DryRun || o.KeepInactive {
		return out, err
	}
	p.tell(Progress{Stage: "activate"})
	act, err := p.activate(ctx, id)
	out.Seq, out.Generation, out.Hosts = act.Seq, act.Generation, act.Hosts
	return out, err
}

// bring gets a release to be sealed. When the control node that it talks to goes
// away on the way, or has forgotten the push, it begins again at the next, which
// says what it lacks; it gives up when nothing more has come through for resumeWait.
func (p *pushing) bring(ctx context.Context, manifest []byte, id origin.Digest, out *Pushed) error {
	at, last := time.Now(), int64(-1)
	for announced := false; ; {
		err := p.round(ctx, manifest, id, out, &announced)
		if sent := p.total(); sent != last {
			at, last = time.Now(), sent
		}
		if err == nil || !announced || !p.mayResume(err) || time.Since(at) > resumeWait {
			return err
		}
		p.tell(Progress{Stage: "resume"})
		if err := pause(ctx, elsewherePause); err != nil {
			return err
		}
	}
}

// mayResume: the push is not known to the control node that was asked now, or none
// of several did what was asked.
func (p *pushing) mayResume(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Status == http.StatusNotFound && e.Hint == postFirst || len(e.Missing) > 0 ||
			len(p.c.addrs) > 1 && (e.Elsewhere || e.Status == http.StatusInternalServerError || e.Status == http.StatusServiceUnavailable)
	}
	return len(p.c.addrs) > 1 && worthRetry(err)
}

// round announces a release, sends what is missing and seals it.
func (p *pushing) round(ctx context.Context, manifest []byte, id origin.Digest, out *Pushed, announced *bool) error {
	posted, err := p.announce(ctx, manifest, id)
	if err != nil {
		return err
	}
	if posted.Release != id {
		return fmt.Errorf("control node %s calls the release %s, not %s", p.c.where, posted.Release, id)
	}
	out.Missing, out.MissingVariants = posted.Missing, 0
	p.missing(posted.Missing)
	for _, b := range posted.Missing {
		if p.folder.Made(b.Digest) {
			out.MissingVariants++
		}
	}
	if *announced = true; p.o.DryRun {
		return nil
	}
	err = p.upload(ctx, posted.Missing)
	out.Sent, out.Variants, out.SentBytes = p.sent, p.variants, p.sentBytes
	if err != nil {
		return err
	}
	p.tell(Progress{Stage: "seal"})
	req, err := http.NewRequestWithContext(context.WithValue(ctx, extraWait{}, sealWait*time.Duration(out.Files)), http.MethodPost,
		p.c.base+sitePath(p.o.Site, "/releases/"+id.String()+"/seal"), nil)
	if err != nil {
		return err
	}
	var sealed Sealed
	if err := p.c.send(withRepeat(req), &sealed); err != nil {
		return err
	}
	out.Missing, out.MissingVariants = nil, 0
	return nil
}

// activate makes the release active. When a control node went away without an
// answer, it looks whether that was done before it asks another one.
func (p *pushing) activate(ctx context.Context, id origin.Digest) (out Activated, err error) {
	for begun := time.Now(); ; {
		out, err = p.c.Activate(ctx, p.o.Site, p.o.Channel, id, p.o.IfGeneration)
		var e *Error
		if err == nil || len(p.c.addrs) < 2 || errors.As(err, &e) && e.Status < http.StatusInternalServerError || !worthRetry(err) || time.Since(begun) > resumeWait {
			return out, err
		}
		list, listErr := p.c.Channels(ctx, p.o.Site)
		if listErr != nil {
			return out, err
		}
		channel := cmp.Or(p.o.Channel, origin.Prod)
		for _, l := range list.Channels {
			if l.Channel == channel && l.Release == id {
				if out = (Activated{Seq: l.Generation, Generation: l.Generation}); channel != origin.Prod {
					out.Hosts = l.Hosts
				}
				return out, nil
			}
		}
		if err := pause(ctx, elsewherePause); err != nil {
			return out, err
		}
	}
}

// post sends a manifest, or a list of its pages.
func (c *Client) post(ctx context.Context, path, contentType string, b []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	return c.send(withRepeat(req), out)
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

// total is how many bytes have arrived.
func (p *pushing) total() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sentBytes
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
