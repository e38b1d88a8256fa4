package control

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

const (
	// maxWait bounds GET /v1/receipts?wait=.
	maxWait = time.Minute
	// silentAfter is when a node that reports once a second counts as silent.
	silentAfter = 5 * time.Second
)

// report takes a report from a node. What cannot be read is dropped: it may
// come from a stolen node, and the next one comes in a second.
func (s *Server) report(node, kind string, payload []byte) {
	if !s.nodes.has(node) {
		return
	}
	s.heard(node)
	now := s.now()
	var w Watermark
	var r NodeReport
	var err error
	switch kind {
	case ReportWatermark:
		w, err = parseWatermark(payload)
	case ReportNode:
		r, err = parseNodeReport(payload)
	default:
		return
	}
	if err != nil {
		s.log.Warn("report dropped", "node", node, "kind", kind, "err", err)
		return
	}
	s.reportMu.Lock()
	n := s.reports[node]
	if n == nil {
		n = &nodeState{made: map[string]time.Time{}}
		s.reports[node] = n
	}
	if kind == ReportNode {
		n.report, n.reportAt = r, now
		s.reportMu.Unlock()
		return
	}
	n.take(w, now)
	s.reportMu.Unlock()
	s.wake()
}

// take notes a watermark and what it changed.
func (n *nodeState) take(w Watermark, now time.Time) {
	still := map[string]bool{}
	for _, p := range w.Pending {
		still[p.place()] = true
	}
	for _, p := range n.watermark.Pending {
		if !still[p.place()] && len(n.made) < maxPending {
			n.made[p.place()] = now
		}
	}
	if len(n.marks) == 0 || w.Seq != n.watermark.Seq || w.Epoch != n.watermark.Epoch {
		if w.Epoch != n.watermark.Epoch || w.Seq < n.watermark.Seq {
			n.marks = nil
		}
		if len(n.marks) == maxMarks {
			n.marks = append(n.marks[:0], n.marks[1:]...)
		}
		n.marks = append(n.marks, mark{w.Seq, now})
	}
	n.watermark, n.markAt = w, now
}

// wake tells everyone who waits for receipts.
func (s *Server) wake() {
	s.reportMu.Lock()
	defer s.reportMu.Unlock()
	close(s.reported)
	s.reported = make(chan struct{})
}

// Receipts says which nodes have applied an entry.
type Receipts struct {
	Seq     uint64    `json:"seq"`
	Applied []Receipt `json:"applied"`
	Waiting []Waiting `json:"waiting"`
	Nodes   int       `json:"nodes"`
}

// Receipt is one node that has applied it. MS is the time from its append to
// the node's report, both by the control node's clock, in milliseconds; -1 when
// that is too long ago to be known.
type Receipt struct {
	Node string `json:"node"`
	MS   int64  `json:"ms"`
}

// Waiting is one node that has not, and why, as far as it is known.
type Waiting struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

func (s *Server) receipts(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := query(r, "seq", "wait")
	if err != nil {
		return nil, err
	}
	seq, err := strconv.ParseUint(q.Get("seq"), 10, 64)
	if err != nil || seq == 0 {
		return nil, refuse(http.StatusBadRequest, "seq is what a command answered", "seq must be a number from 1")
	}
	wait := time.Duration(0)
	if q.Has("wait") {
		if wait, err = time.ParseDuration(q.Get("wait")); err != nil || wait < 0 || wait > maxWait {
			return nil, refuse(http.StatusBadRequest, "for example wait=5s", "wait must be a duration up to %s", maxWait)
		}
	}
	if seq > s.feed.Log().Head().Seq && s.c.Cluster != nil { // another control node wrote it, maybe
		ctx, cancel := context.WithTimeout(r.Context(), attendWait)
		defer cancel()
		if err := s.feed.Log().Refresh(ctx); err != nil {
			return nil, s.noQuorum(err.Error())
		}
	}
	e, command, err := s.entry(r, seq)
	if err != nil {
		return nil, err
	}
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		s.reportMu.Lock()
		changed := s.reported
		out := s.receiptsOf(e, command)
		s.reportMu.Unlock()
		if len(out.Waiting) == 0 || wait == 0 {
			return out, nil
		}
		select {
		case <-changed:
		case <-end.C:
			wait = 0
		case <-r.Context().Done():
			return nil, refuse(http.StatusServiceUnavailable, "", "the caller went away")
		}
	}
}

// entry reads one entry of the log.
func (s *Server) entry(r *http.Request, seq uint64) (feed.Entry, any, error) {
	for e, err := range s.feed.Log().Entries(r.Context(), seq) {
		if err != nil && s.c.Cluster != nil && r.Context().Err() == nil { // another may have it
			return e, nil, s.noQuorum(err.Error())
		}
		if err != nil {
			return e, nil, err
		}
		if e.Seq != seq {
			break
		}
		command, err := DecodeCommand(e)
		if err != nil {
			return e, nil, err
		}
		return e, command, nil
	}
	if first := s.feed.Log().First(); seq < first {
		return feed.Entry{}, nil, refuse(http.StatusNotFound, "`perigee status` shows how far each node is", "entry %d is no longer on the log, which begins with seq %d", seq, first)
	}
	none := refuse(http.StatusNotFound, "", "there is no entry %d: the log's head is %d", seq, s.feed.Log().Head().Seq)
	// One that was cut off from the others, and led them before, does not know for a
	// while that they went on.
	none.Elsewhere = s.c.Cluster != nil
	return feed.Entry{}, nil, none
}

// receiptsOf is called with reportMu held.
func (s *Server) receiptsOf(e feed.Entry, command any) Receipts {
	out := Receipts{Seq: e.Seq, Applied: []Receipt{}, Waiting: []Waiting{}}
	now := s.now()
	for _, node := range s.nodes.all() {
		out.Nodes++
		n := s.reports[node.Name]
		switch {
		case n == nil || n.markAt.IsZero():
			out.Waiting = append(out.Waiting, Waiting{node.Name, "no report since the control node started"})
		case n.watermark.applied(e, command):
			out.Applied = append(out.Applied, Receipt{node.Name, n.tookMS(e, command)})
		case now.Sub(n.markAt) > silentAfter:
			out.Waiting = append(out.Waiting, Waiting{node.Name, "no report for " + now.Sub(n.markAt).Round(time.Second).String()})
		default:
			out.Waiting = append(out.Waiting, Waiting{node.Name, n.why(command)})
		}
	}
	return out
}

// tookMS is how long an applied entry took to be reported.
func (n *nodeState) tookMS(e feed.Entry, command any) int64 {
	if n.watermark.Epoch != e.Epoch {
		return -1
	}
	at := time.Time{}
	for i, m := range n.marks {
		if m.seq < e.Seq {
			continue
		}
		if i > 0 || m.seq == e.Seq {
			at = m.at
		}
		break
	}
	if made := n.made[placeOf(command)]; made.After(at) && !at.IsZero() {
		at = made
	}
	if at.IsZero() {
		return -1 // applied before the first mark that is remembered
	}
	return max(0, at.UnixMilli()-e.At)
}

func (n *nodeState) why(command any) string {
	if place := placeOf(command); place != "" {
		for _, p := range n.watermark.Pending {
			if p.place() != place {
				continue
			}
			if p.Why != "" {
				return p.Why
			}
			if p.Missing >= 0 {
				return strconv.Itoa(p.Missing) + " blobs to fetch"
			}
		}
	}
	return "at seq " + strconv.FormatUint(n.watermark.Seq, 10)
}

// Status is the whole picture.
type Status struct {
	Head     feed.Position         `json:"head"`
	EpochWhy string                `json:"epoch_why,omitempty"` // why this start began a new epoch
	First    uint64                `json:"first"`               // number of the oldest entry on the log; 0: it is empty
	Snapshot *SnapshotStatus       `json:"snapshot,omitempty"`  // the newest of the log
	Cluster  *ClusterStatus        `json:"cluster,omitempty"`   // of several control nodes
	Nodes    []NodeStatus          `json:"nodes"`
	Sites    map[string]SiteStatus `json:"sites"`
	Drained  []string              `json:"drained"`
	Forced   map[string]string     `json:"forced"`
	Restored *RestoredStatus       `json:"restored,omitempty"`
	Bucket   *BucketStatus         `json:"bucket,omitempty"` // where blobs are; without it in the folder
	Time     time.Time             `json:"time"`
}

// SnapshotStatus is a snapshot of the log.
type SnapshotStatus struct {
	Seq  uint64    `json:"seq"` // of the last entry that is folded in
	Made time.Time `json:"made"`
	Size int64     `json:"size"` // bytes
}

// RestoredStatus says that a restored control node changes nothing yet.
type RestoredStatus struct {
	Backup  time.Time `json:"backup"`
	Seq     uint64    `json:"seq"`
	Waiting []string  `json:"waiting"` // nodes that were not heard of since
	Ahead   []string  `json:"ahead"`   // nodes that have seen more
}

// NodeStatus is what is known of one node.
type NodeStatus struct {
	Name string `json:"name"`
	// Silent: no report for silentAfter, or never since the control node started.
	Silent    bool      `json:"silent"`
	AgeMS     int64     `json:"age_ms"` // of the last report; -1: none
	Added     time.Time `json:"added"`
	Until     time.Time `json:"until"` // the certificate's end; zero: none is needed
	Lag       uint64    `json:"lag"`   // entries not applied there
	Watermark Watermark `json:"watermark"`
	// Diverged: its place is beyond the log's head, or of another epoch: the
	// control node may have been restored from an old backup.
	Diverged bool       `json:"diverged,omitempty"`
	Report   NodeReport `json:"report"`
}

// SiteStatus is one site that has releases.
type SiteStatus struct {
	Active     origin.Digest `json:"active"`
	Generation uint64        `json:"generation"`
	Releases   int           `json:"releases"`
	Previews   int           `json:"previews,omitempty"`
}

func (s *Server) status(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return s.Status(), nil
}

// Status returns the whole picture.
func (s *Server) Status() Status {
	now := s.now()
	out := Status{Cluster: s.clusterStatus(), Bucket: s.bucketStatus(), EpochWhy: s.feed.Log().EpochWhy(), Sites: map[string]SiteStatus{}, Forced: map[string]string{}, Drained: []string{}, Nodes: []NodeStatus{}, Time: now.UTC()}
	s.mu.Lock()
	for name, st := range s.state.Sites {
		out.Sites[name] = SiteStatus{st.Active, st.Generation, len(st.Releases), len(st.Previews)}
	}
	out.Drained = append(out.Drained, s.state.DrainedEdges()...)
	for e, f := range s.state.Forced {
		out.Forced[e] = f
	}
	if n := len(s.state.Snapshots); n > 0 {
		m := &s.state.Snapshots[n-1]
		out.Snapshot = &SnapshotStatus{m.At.Seq, m.Made, m.Size}
	}
	s.mu.Unlock()
	out.First = s.feed.Log().First()
	s.holdMu.Lock()
	if h := s.hold; h != nil {
		out.Restored = &RestoredStatus{h.Backup, h.Head.Seq, slices.AppendSeq([]string{}, maps.Keys(h.waiting)), slices.AppendSeq([]string{}, maps.Keys(h.ahead))}
		slices.Sort(out.Restored.Waiting)
		slices.Sort(out.Restored.Ahead)
	}
	s.holdMu.Unlock()
	s.reportMu.Lock()
	defer s.reportMu.Unlock()
	// Read after the reports are held still: no honest node is beyond it.
	head := s.feed.Log().Head()
	out.Head = head
	for _, node := range s.nodes.all() {
		ns := NodeStatus{Name: node.Name, Silent: true, AgeMS: -1, Added: node.Added, Until: node.Until, Lag: head.Seq}
		if n := s.reports[node.Name]; n != nil {
			ns.Watermark, ns.Report = n.watermark, n.report
			last := n.reportAt
			if n.markAt.After(last) {
				last = n.markAt
			}
			ns.AgeMS = now.Sub(last).Milliseconds()
			ns.Silent = now.Sub(last) > silentAfter
			w := n.watermark
			ns.Diverged = w.Epoch > head.Epoch || w.Epoch == head.Epoch && w.Seq > head.Seq
			if w.Seq <= head.Seq {
				ns.Lag = head.Seq - w.Seq
			} else {
				ns.Lag = 0
			}
		}
		out.Nodes = append(out.Nodes, ns)
	}
	return out
}
