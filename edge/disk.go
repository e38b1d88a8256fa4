package edge

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"perigee.example/internal/seglog"
)

// The second tier is on disk. A response goes there when it has been asked for
// twice: at its first hit in memory, or when it is fetched again after it has
// left memory. What is asked for once, most of it all, costs the disk nothing;
// and what is in use is there before a restart, not only after it had to make way.
//
// What memory misses is looked for on disk. What is found and fits comes back to
// memory, and is used by the same rules as if it had never left; what is larger
// than memory keeps is given out from the disk while it is fresh.

const (
	// maxWanted bounds the keys that wait to be written: beyond, they wait for
	// their next first hit.
	maxWanted = 1 << 12
	// diskStripes is how many keys are read from the disk at a time, at most: who
	// asks for a key that is being read waits for that.
	diskStripes = 64
	// maxEarly bounds the purges, and the keys of invalidations, that wait for a
	// disk that another process has.
	maxEarly = 10_000
	// diskRetry is how often a disk that cannot be opened is tried again.
	diskRetry = 2 * time.Second
)

// DiskConfig is the second tier's place.
type DiskConfig struct {
	Dir   string // the edge's alone; made if it is missing
	Bytes int64  // of files, at most; seglog.MinBudget at least
	// SegmentBytes is the size of the files; 0 takes one that suits Bytes.
	SegmentBytes int64
}

// MinDiskBytes is the least DiskConfig.Bytes.
const MinDiskBytes = seglog.MinBudget

// disk is the second tier. Methods of a nil *disk do nothing.
type disk struct {
	e      *Edge
	c      DiskConfig
	log    atomic.Pointer[seglog.Log] // nil: it is not open
	boot   boot
	wanted chan string
	hits   atomic.Uint64

	// Before opened, these are 0; they do not change after. What an earlier
	// process stored is from before the local purge of that number, and as of no
	// later seq than that.
	before, seqAt atomic.Uint64

	mu      sync.Mutex      // orders what is written and what is removed
	door    door            // store.mu
	filling map[string]bool // keys of large responses that are being written
	closed  bool
	removed map[string]bool // keys that were invalidated before it was open; nil after
	unknown bool            // some of those
	early   []purgeNote     // what was purged before it was open; Edge.applyMu
	lost    bool            // some of that; Edge.applyMu

	stripes [diskStripes]sync.Mutex
	done    chan struct{} // closed with it
}

// OpenDisk gives the edge a second tier. It is called once, after what a node's
// journal holds has been purged and before Serve. An error is one of c; a disk
// that cannot be used now, or that another process has, is tried again and again.
func (e *Edge) OpenDisk(c DiskConfig) error {
	if c.Bytes < MinDiskBytes && c.SegmentBytes == 0 {
		return fmt.Errorf("edge: a disk tier of %d bytes is too small: want %d at least", c.Bytes, int64(MinDiskBytes))
	}
	e.openDisk(c, false)
	return nil
}

// openDisk is OpenDisk. unknown says that what was invalidated lately is not known.
func (e *Edge) openDisk(c DiskConfig, unknown bool) {
	d := &disk{e: e, c: c, boot: boot{id: randomSeed(), base: e.now()}, wanted: make(chan string, maxWanted), filling: map[string]bool{}, removed: map[string]bool{}, unknown: unknown, done: make(chan struct{})}
	err := d.open()
	e.disk.Store(d)
	e.store.setTier(d)
	if err != nil {
		e.log.Warn("the disk tier is not there yet; requests go on without it", "dir", c.Dir, "why", err)
	}
	go d.run(err == nil)
}

// CloseDisk ends the second tier: another process may open it.
func (e *Edge) CloseDisk() {
	if d := e.disk.Load(); d != nil {
		d.close()
	}
}

// run opens the log if it is not, and writes what is wanted.
func (d *disk) run(open bool) {
	for !open {
		select {
		case <-d.done:
			return
		case <-d.e.ctx.Done():
			return
		case <-time.After(diskRetry):
		}
		err := d.open()
		if errors.Is(err, errDiskClosed) {
			return
		}
		open = err == nil
	}
	for {
		select {
		case key := <-d.wanted:
			d.write(key)
		case <-d.done:
			return
		case <-d.e.ctx.Done():
			return
		}
	}
}

var errDiskClosed = errors.New("the disk tier is closed")

// open opens the log, and takes up what it says of purges.
func (d *disk) open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errDiskClosed
	}
	log, err := seglog.Open(seglog.Config{Dir: d.c.Dir, Budget: d.c.Bytes, SegmentBytes: d.c.SegmentBytes, Live: d.live, Log: d.e.log, Now: d.e.now})
	if err != nil {
		return err
	}
	for key := range d.removed {
		log.Remove(diskKey(key), 0, true)
	}
	d.restore(log, d.unknown)
	d.removed = nil
	d.log.Store(log)
	st := log.Stats()
	d.e.log.Info("disk tier", "dir", d.c.Dir, "records", st.Records, "bytes", st.Bytes, "damaged", st.Corrupt)
	return nil
}

// close writes what waits and lets go of the files.
func (d *disk) close() {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.done)
	}
	log := d.log.Swap(nil)
	d.mu.Unlock()
	if log != nil {
		log.Close()
	}
}

// diskKey is where a response is on disk. No outsider can aim at it.
func diskKey(key string) uint64 {
	sum := sha256.Sum256([]byte(key))
	return binary.LittleEndian.Uint64(sum[:])
}

// diskVariant tells the variants of a key apart.
func diskVariant(sel []selecting) uint64 {
	var b []byte
	for i := range sel {
		b = append(b, bit(sel[i].present))
		b = appendString(appendString(b, sel[i].name), sel[i].value)
	}
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

// proved says that a key has been asked for again. It is called with store.mu
// held, and waits for nothing.
func (d *disk) proved(key []byte) {
	if d == nil {
		return
	}
	select {
	case d.wanted <- string(key):
	default:
	}
}

// took says that memory has a new response: what the disk has in its place is
// no longer it. store.mu is held.
func (d *disk) took(o *stored) {
	if d == nil || o.fromDisk {
		return
	}
	log := d.log.Load()
	if log == nil {
		return
	}
	k, v := diskKey(o.key), diskVariant(o.sel)
	log.Replaced(k, v)
	if d.door.again(k ^ v) {
		d.proved([]byte(o.key))
	}
}

// dropped says that a response is not to be used again.
func (d *disk) dropped(o *stored) {
	if d == nil {
		return
	}
	if log := d.log.Load(); log != nil {
		log.Replaced(diskKey(o.key), diskVariant(o.sel))
	}
}

// remove forgets every variant of key: when it returns, after a restart too. rest
// forgets them in memory, and dooms who fetches or reads them. It comes second, so
// that what was found on disk before is doomed; and nothing is written in between.
func (d *disk) remove(key string, rest func()) {
	if d == nil {
		rest()
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch log := d.log.Load(); {
	case log != nil:
		log.Remove(diskKey(key), 0, true)
	case d.removed == nil: // it is closed
	case len(d.removed) < maxEarly:
		d.removed[key] = true
	default:
		d.unknown = d.unknown || !d.removed[key]
	}
	rest()
}

// write writes what memory has of a key and the disk has not.
func (d *disk) write(key string) {
	k := diskKey(key)
	for _, o := range d.missing(key, k) {
		d.writeOne(k, key, o)
		d.e.store.letGo(o)
	}
}

// missing returns, held, what memory has of a key and the disk has not.
func (d *disk) missing(key string, k uint64) (list []*stored) {
	log := d.log.Load()
	if log == nil {
		return nil
	}
	for _, o := range d.e.store.variants(key) {
		if log.HasVariant(k, diskVariant(o.sel)) {
			d.e.store.letGo(o)
			continue
		}
		list = append(list, o)
	}
	return list
}

func (d *disk) writeOne(k uint64, key string, o *stored) {
	log := d.log.Load()
	if log == nil {
		return
	}
	// The octets first, since a slow disk may take its time for them.
	variant := diskVariant(o.sel)
	to := log.Create(k, variant)
	if to == nil {
		return
	}
	if _, err := writeExtent(to, d.e.store.arena, o.body, 0, o.size); err != nil {
		to.Abort()
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.current(key, o) {
		to.Abort()
		return
	}
	if to.Commit(appendRecord(nil, o, &d.boot), time.Time{}) == nil && !d.current(key, o) {
		log.Replaced(k, variant)
	}
}

// current reports whether memory still has this very response.
func (d *disk) current(key string, o *stored) (found bool) {
	list := d.e.store.variants(key)
	defer d.e.store.letGo(list...)
	for _, v := range list {
		found = found || v.asOf == o.asOf && v.size == o.size && v.responseTime.Equal(o.responseTime) && sameSelecting(v.sel, o.sel)
	}
	return found
}

// find looks a response up on disk. Who gets one closes at.
func (d *disk) find(log *seglog.Log, site *Site, key string, f fields) (found *stored, at *seglog.Object) {
	at = log.Get(diskKey(key), func(rec []byte) bool {
		o, err := readRecord(rec, &d.boot)
		if err != nil || o.key != key || o.scopes.site != site.Name || !varyMatches(o.sel, f) || !d.usable(site, o) {
			return false
		}
		d.date(o, rec)
		if hard, _ := d.e.purges.check(&o.scopes, o.asOf); hard {
			return false
		}
		found, o.fromDisk = o, true
		return true
	})
	if at == nil || at.Size() != found.size {
		if at != nil {
			at.Close()
		}
		return nil, nil
	}
	return found, at
}

// usable reports whether a site as it is now would store o: it may have been
// configured otherwise when it did.
func (d *disk) usable(site *Site, o *stored) bool {
	if o.isSlice() {
		return true // its key has the validator of the head that it belongs to
	}
	for _, name := range site.KeyFields {
		keyed := false
		for i := range o.sel {
			keyed = keyed || o.sel[i].name == name
		}
		if !keyed {
			return false
		}
	}
	return storable(site, o.status, o.header, &o.cc, false, o.hasLifetime) == ""
}

// date places a response of an earlier process among the purges and the times
// of this one.
func (d *disk) date(o *stored, rec []byte) {
	if binary.LittleEndian.Uint64(rec[recBoot:]) == d.boot.id {
		return
	}
	o.asOf.seq = min(o.asOf.seq, d.seqAt.Load())
	if local := binary.LittleEndian.Uint64(rec[recLocal:]); local < d.before.Load() {
		o.asOf.local = local
	}
	if o.responseTime.After(d.e.now()) { // the wall clock has gone back: nobody knows its age
		o.correctedInitialAge = maxDeltaSeconds * time.Second
	}
}

// live reports whether a record is worth writing again when its place is needed.
func (d *disk) live(rec []byte) bool {
	o, err := readRecord(rec, &d.boot)
	if err != nil {
		return false
	}
	d.date(o, rec)
	hard, soft := d.e.purges.check(&o.scopes, o.asOf)
	return !hard && !soft
}

// open reports the log, and whether it may have key.
func (d *disk) has(key string) (*seglog.Log, bool) {
	if d == nil {
		return nil, false
	}
	log := d.log.Load()
	return log, log != nil && log.Has(diskKey(key))
}

// secondTier looks on disk for what memory does not have. What it finds is held
// as what find finds.
func (x *exchange) secondTier(f found) found {
	d := x.e.disk.Load()
	log, ok := d.has(x.key)
	if !ok {
		return f
	}
	stripe := &d.stripes[diskKey(x.key)%diskStripes]
	stripe.Lock()
	defer stripe.Unlock()
	fields := x.q.fields()
	if again := x.snap.find(x.site, []byte(x.key), fields, x.e.now()); again.obj != nil {
		return again // another request has brought it back meanwhile
	}
	watch := x.e.watch(x.key)
	defer x.e.unwatch(watch)
	o, at := d.find(log, x.site, x.key, fields)
	if o == nil {
		return f
	}
	if o.size > x.e.store.maxObject(x.site.Name) {
		return x.fromFar(f, o, at)
	}
	defer at.Close()
	if !d.bring(x.e, o, at, watch) {
		return f
	}
	d.hits.Add(1)
	x.status.detail = "disk"
	return x.snap.judge(x.site, o, fields, x.e.now())
}

// bring brings the body of o to memory, and o if there is room. The caller holds
// the body. False is that the disk did not have it after all, or that it was
// invalidated while it was read.
func (d *disk) bring(e *Edge, o *stored, at *seglog.Object, watch *flight) bool {
	body, err := e.store.takeIn(o.size, func(w io.Writer) error {
		_, err := at.WriteRange(w, 0, o.size)
		return err
	})
	if err != nil {
		if err != errNoRoom {
			e.log.Warn("a response on disk cannot be used", "why", err)
		}
		return false
	}
	o.body = body
	if !e.unlessDoomed(watch, func() { e.store.put(o) }) {
		e.store.letGo(o)
		return false
	}
	return true
}

// sliceFromDisk is a slice that memory does not have, held; or nil.
func (x *exchange) sliceFromDisk(key string) *stored {
	d := x.e.disk.Load()
	log, ok := d.has(key)
	if !ok {
		return nil
	}
	stripe := &d.stripes[diskKey(key)%diskStripes]
	stripe.Lock()
	defer stripe.Unlock()
	if o, _ := x.e.store.get([]byte(key), nil); o != nil {
		return o
	}
	watch := x.e.watch(key)
	defer x.e.unwatch(watch)
	o, at := d.find(log, x.site, key, nil)
	if o == nil {
		return nil
	}
	defer at.Close()
	if !d.bring(x.e, o, at, watch) {
		return nil
	}
	d.hits.Add(1)
	return o
}
