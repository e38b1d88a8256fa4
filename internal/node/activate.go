package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"perigee.example/internal/control"
	"perigee.example/origin"
)

const (
	// fetchers bounds blobs fetched at the same time, over all sites. Each waits for
	// the disk, and those that wait together share a commit of the file system.
	fetchers = 32
	// fetchRetryMin and fetchRetryMax bound the wait before a release that is
	// not whole is tried again.
	fetchRetryMin = 500 * time.Millisecond
	fetchRetryMax = 30 * time.Second
	// sweepAge is how long a blob that no release refers to is kept.
	sweepAge = 24 * time.Hour
)

// activator makes activations: one goroutine a channel that has one waiting.
type activator struct {
	n      *Node
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // fetchers
	wg     sync.WaitGroup

	mu    sync.Mutex
	sites map[string]*waiting // by place: see origin.Place
	// forgotten are the releases of each site that were forgotten last: what is
	// still active here then is forgotten when the next one takes its place.
	forgotten map[string][]origin.Digest
}

// waiting is a channel's activation that is not made yet.
type waiting struct {
	control.PendingRelease
	stop context.CancelFunc
}

func (w *waiting) place() string { return origin.Place(w.Site, w.Channel) }

func newActivator(n *Node) *activator {
	a := &activator{n: n, slots: make(chan struct{}, fetchers), sites: map[string]*waiting{}, forgotten: map[string][]origin.Digest{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

func (a *activator) close() {
	a.cancel()
	a.wg.Wait()
}

func (a *activator) pending() []control.PendingRelease {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []control.PendingRelease
	for _, w := range a.sites {
		out = append(out, w.PendingRelease)
	}
	slices.SortFunc(out, func(a, b control.PendingRelease) int {
		return cmp.Or(strings.Compare(a.Site, b.Site), strings.Compare(a.Channel, b.Channel))
	})
	return out
}

// apply takes an entry that concerns releases; others mean nothing here.
func (a *activator) apply(command any, seq uint64) {
	switch c := command.(type) {
	case *control.Activate:
		a.want(c.Site, origin.Prod, c.Release, seq)
	case *control.Channel:
		if c.Release.IsZero() {
			a.remove(origin.Place(c.Site, c.Channel), seq)
		} else {
			a.want(c.Site, c.Channel, c.Release, seq)
		}
	case *control.Release:
		a.mu.Lock()
		defer a.mu.Unlock()
		a.forgotten[c.Site] = slices.DeleteFunc(a.forgotten[c.Site], func(d origin.Digest) bool { return d == c.Release })
	case *control.Forget:
		a.forget(c)
	}
}

// forget drops releases that are kept beside the active ones of a site.
func (a *activator) forget(c *control.Forget) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := append(a.forgotten[c.Site], c.Releases...)
	a.forgotten[c.Site] = all[max(0, len(all)-control.MaxForgotten):]
	for _, place := range a.n.c.Releases.Sites() {
		if site, _ := origin.SplitPlace(place); site == c.Site {
			a.drop(place, c.Releases)
		}
	}
	a.wg.Go(a.sweep)
}

// drop has a place keep releases no longer.
func (a *activator) drop(place string, releases []origin.Digest) {
	if err := a.n.c.Releases.Forget(place, releases); err != nil {
		// It is tried again at the next start: the journal has it.
		a.n.log.Error("forgotten releases are still kept here", "site", place, "err", err)
	}
}

// remove forgets a preview, and its activation if one is waiting.
func (a *activator) remove(place string, seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.sites[place]; old != nil {
		old.stop()
		delete(a.sites, place)
	}
	if err := a.n.c.Releases.Remove(place, seq); err != nil {
		// It is tried again when the feed comes back: see prune.
		a.n.log.Error("a preview was deleted and is still served here", "preview", place, "err", err)
		return
	}
	a.n.log.Info("preview deleted", "preview", place, "seq", seq)
}

// prune removes previews that the log does not know (any more), as of seq: a
// crash may have come between a removal's entry and the removal, or the log is
// another one. It is called when everything on the log has been read.
func (a *activator) prune(there map[string]bool, seq uint64) {
	for _, place := range a.n.c.Releases.Sites() {
		if _, channel := origin.SplitPlace(place); channel != origin.Prod && !there[place] {
			a.remove(place, max(seq, a.n.c.Releases.Site(place).Generation))
		}
	}
}

// restart forgets what waits, and lets generations begin anew: the log is another
// one, and its numbers may be lower.
func (a *activator) restart() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for place, w := range a.sites {
		w.stop()
		delete(a.sites, place)
	}
	clear(a.forgotten)
	for _, place := range a.n.c.Releases.Sites() {
		if err := a.n.c.Releases.Restart(place); err != nil {
			return err
		}
	}
	return nil
}

// want makes release the one to activate at its site: at once when every blob
// is here, else as soon as they are. It takes the place of one still waiting.
func (a *activator) want(site, channel string, release origin.Digest, seq uint64) {
	place := origin.Place(site, channel)
	if s := a.n.c.Releases.Site(place); s != nil && s.Generation == seq && s.Active == release {
		return // made before a restart
	}
	a.mu.Lock()
	since := seq
	if old := a.sites[place]; old != nil {
		old.stop()
		since = old.Since
		delete(a.sites, place)
	}
	ctx, stop := context.WithCancel(a.ctx)
	w := &waiting{PendingRelease: control.PendingRelease{Site: site, Since: since, Seq: seq, Release: release, Missing: -1}, stop: stop}
	if channel != origin.Prod { // which is not said, for control nodes that know nothing else
		w.Channel = channel
	}
	a.sites[place] = w
	a.mu.Unlock()
	// A release whose blobs are all here (a rollback) flips before want returns.
	if a.try(w) == nil {
		stop()
		return
	}
	a.wg.Go(func() {
		defer stop()
		a.fetchUntilMade(ctx, w)
	})
}

// try activates w's release if everything is here, and forgets w then.
func (a *activator) try(w *waiting) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sites[w.place()] != w {
		return nil // a later one took its place
	}
	err := a.n.c.Releases.Activate(w.place(), w.Release, w.Seq, time.Now())
	if err == nil {
		delete(a.sites, w.place())
		a.drop(w.place(), a.forgotten[w.Site])
		a.n.log.Info("release active", "site", w.place(), "release", w.Release.String(), "seq", w.Seq)
		a.n.changed()
	}
	return err
}

// fetchUntilMade fetches what is missing and activates, until it is done or a
// later activation stops it.
func (a *activator) fetchUntilMade(ctx context.Context, w *waiting) {
	wait := fetchRetryMin
	for {
		err := a.fetchAll(ctx, w)
		if err == nil {
			err = a.try(w)
		}
		if err == nil {
			a.sweep()
			return
		}
		if ctx.Err() != nil {
			return
		}
		a.note(w, func(p *control.PendingRelease) { p.Why = fmt.Sprintf("%.300s", err) })
		a.n.log.Warn("release is not whole here yet: the old one serves", "site", w.place(), "release", w.Release.String(), "err", err)
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		wait = min(2*wait, fetchRetryMax)
	}
}

func (a *activator) note(w *waiting, edit func(*control.PendingRelease)) {
	a.mu.Lock()
	edit(&w.PendingRelease)
	a.mu.Unlock()
	a.n.changed()
}

// fetchAll brings the manifest and every blob of it that is missing here.
func (a *activator) fetchAll(ctx context.Context, w *waiting) error {
	m, err := a.manifest(ctx, w.Release)
	if err != nil {
		return err
	}
	if swapEarly {
		_ = a.try(w) // a mutant's
	}
	missing := a.n.c.Blobs.Missing(m)
	a.note(w, func(p *control.PendingRelease) { p.Missing = len(missing) })
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, b := range missing {
		if !a.slot(ctx) {
			break
		}
		wg.Go(func() {
			defer func() { <-a.slots }()
			if err := a.fetch(ctx, b.Digest, b.Size); err != nil {
				cancel(fmt.Errorf("blob %s: %w", b.Digest, err))
				return
			}
			a.note(w, func(p *control.PendingRelease) { p.Missing-- })
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// slot waits for the right to fetch a blob, which the caller gives back.
func (a *activator) slot(ctx context.Context) bool {
	select {
	case a.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// manifest reads a release's manifest, fetching it if it is not here.
func (a *activator) manifest(ctx context.Context, release origin.Digest) (*origin.Manifest, error) {
	if _, ok := a.n.c.Blobs.Has(release); !ok {
		if err := a.fetch(ctx, release, -1); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", release, err)
		}
	}
	f, err := a.n.c.Blobs.Open(release)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", release, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, origin.MaxManifestBytes+1))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", release, err)
	}
	m, err := origin.ParseManifest(b)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", release, err)
	}
	return m, nil
}

// fetch stores one blob, verified. size is -1 for a manifest, whose size its
// holder tells.
func (a *activator) fetch(ctx context.Context, d origin.Digest, size int64) error {
	if a.n.c.Fetch == nil {
		return errors.New("no place to fetch blobs from")
	}
	body, told, err := a.n.c.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer body.Close()
	if size < 0 {
		if told > origin.MaxManifestBytes {
			return fmt.Errorf("%d bytes, more than %d", told, origin.MaxManifestBytes)
		}
		size = told
	} else if told != size {
		return fmt.Errorf("the control node holds %d bytes of it, the manifest says %d", told, size)
	}
	return a.n.c.Blobs.Put(d, size, body)
}

// sweep removes blobs that no release needs any more.
func (a *activator) sweep() {
	swept, err := a.n.c.Releases.Sweep(time.Now().Add(-sweepAge))
	if err != nil {
		a.n.log.Warn("old blobs not removed", "err", err)
	} else if swept.Removed > 0 {
		a.n.log.Info("old blobs removed", "blobs", swept.Removed, "bytes", swept.Bytes)
	}
}
