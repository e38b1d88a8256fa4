package edge

// TakeBack says that another process, which had this one's place and its second
// tier since CloseDisk, is gone. What was changed by requests that went through it
// is not known here: all that is stored, in both tiers, is validated before it is
// used.
func (e *Edge) TakeBack() {
	e.purgeScope(scope{}, &Purge{Soft: true})
	d := e.disk.Load()
	if d == nil {
		return
	}
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		e.openDisk(d.c, true)
	}
}
