package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// kindStart is the request by which a follower says where it stands, and learns
// where the log stands. It is answered here and not handed to Reports.
const kindStart = "start"

// startReply answers a start request. Either Head is set or Error.
type startReply struct {
	Head Position `json:"head"`
	// Diverged says that the follower's position is not on this log: the log
	// was restored or damaged, or the follower followed another one. The
	// follower is then placed before the first entry.
	Diverged bool   `json:"diverged,omitempty"`
	Error    string `json:"error,omitempty"`
	// Snapshot is what to begin with, when the log does not reach back to the
	// follower's position, which is then placed after it.
	Snapshot *Snapshot `json:"snapshot,omitempty"`
}

// Reports sets the function that gets every report: from one goroutine, in the
// order of arrival. It must not block for long. The node's name is certain (it
// comes from its certificate); the payload is whatever the node sent, up to
// MaxReportBytes.
func (s *Server) Reports(f func(node, kind string, payload []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onReport = f
}

// report takes a report that a node has made here, and hands it on.
func (s *Server) report(msg *nats.Msg) {
	if s.ext != nil && s.ext.several {
		s.ext.handOn(msg)
	}
	s.take(msg)
}

// handOn tells the other control nodes of a report. It may be lost, as any may.
func (x *external) handOn(msg *nats.Msg) {
	if len(msg.Data) <= MaxReportBytes && !strings.HasSuffix(msg.Subject, "."+kindStart) {
		_ = x.nc.Publish(msg.Subject, msg.Data)
	}
}

// take takes a report.
func (s *Server) take(msg *nats.Msg) {
	node, kind, ok := strings.Cut(strings.TrimPrefix(msg.Subject, reportPrefix), ".")
	if !ok || CheckID(node) != nil || checkKind(kind) != nil {
		return // cannot come from a node: its rights hold only its own name
	}
	if len(msg.Data) > MaxReportBytes {
		s.events.Warn("report dropped", "node", node, "kind", kind, "why", "too large", "bytes", len(msg.Data))
		return
	}
	if kind == kindStart {
		return // startRequest has it
	}
	s.mu.Lock()
	f := s.onReport
	s.mu.Unlock()
	if f != nil {
		f(node, kind, msg.Data)
	}
}

// startQueue is the group of servers of which one answers a start request.
const startQueue = "control"

func (s *Server) startRequest(msg *nats.Msg) {
	node, _, _ := strings.Cut(strings.TrimPrefix(msg.Subject, reportPrefix), ".")
	if CheckID(node) == nil && len(msg.Data) <= MaxReportBytes {
		s.start(node, msg)
	}
}

// mappedReply begins the reply subjects that the embedded server makes for
// requests from a node's account; the answer goes back into that account.
const mappedReply = "_R_."

// start places a node's consumer after the position it names. The reply goes to
// the node's account, or to the inbox of a follower in this process, or nowhere:
// this connection has every right, so any other reply subject would be a hole.
func (s *Server) start(node string, msg *nats.Msg) {
	if !strings.HasPrefix(msg.Reply, mappedReply) && !strings.HasPrefix(msg.Reply, inboxPrefix+node+".") {
		s.events.Warn("start request dropped", "node", node, "why", "its reply subject is not the node's inbox")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), apiWait)
	defer cancel()
	reply, err := s.place(ctx, node, msg.Data)
	if err != nil {
		s.events.Warn("start request failed", "node", node, "err", err)
		reply = startReply{Error: err.Error()}
	}
	b, err := json.Marshal(reply)
	if err == nil {
		err = s.nc.Publish(msg.Reply, b)
	}
	if err != nil {
		s.events.Warn("start request not answered", "node", node, "err", err)
	}
}

func (s *Server) place(ctx context.Context, node string, request []byte) (startReply, error) {
	s.mu.Lock()
	known := s.nodes[node]
	count := s.starts[node]
	if now := time.Now(); now.Sub(count.since) > startWindow {
		count = startCount{since: now}
	}
	count.n++
	s.starts[node] = count
	s.mu.Unlock()
	if count.n > maxStarts {
		return startReply{}, fmt.Errorf("node %s connects too often: %d times in %s", node, count.n, startWindow)
	}
	if !known {
		return startReply{}, fmt.Errorf("node %s is not known: add it with `perigee node add %s`", node, node)
	}
	var at Position
	if err := decodeStrict(request, &at); err != nil {
		return startReply{}, fmt.Errorf("start request: %w", err)
	}
	// The node may have read what another control node wrote just now.
	if err := s.log.Refresh(ctx); err != nil {
		return startReply{}, err
	}
	r := startReply{Head: s.log.Head()}
	trimmed := s.trimmed(at)
	if !trimmed {
		holds, err := s.log.holds(ctx, at)
		if err != nil {
			return startReply{}, err
		}
		r.Diverged = !holds
	}
	if r.Diverged && s.ahead != nil {
		if err := s.ahead(node, at); err != nil {
			return startReply{}, err
		}
	}
	if r.Diverged {
		s.events.Error("a node has seen entries that are not on this log: an old copy of the log was restored, or the node followed another control node; it revalidates everything",
			"node", node, "epoch", at.Epoch, "seq", at.Seq, "head_epoch", r.Head.Epoch, "head_seq", r.Head.Seq)
		at = Position{}
	}
	if trimmed || s.trimmed(at) {
		if r.Snapshot = s.snapshot.Load(); r.Snapshot == nil {
			return startReply{}, fmt.Errorf("the log begins with seq %d, and there is no snapshot of what was before", s.log.First())
		}
		s.events.Info("a node begins with a snapshot: the log does not reach back to its place", "node", node, "seq", at.Seq, "snapshot_seq", r.Snapshot.At.Seq)
		at = r.Snapshot.At
	}
	return r, s.placeAt(ctx, node, s.log.messageAfter(at))
}

// startCount counts a node's start requests since a moment.
type startCount struct {
	since time.Time
	n     int
}

// messageAfter returns the sequence, in the stream that nodes follow, of what comes
// after p, which is on this log.
func (l *Log) messageAfter(p Position) uint64 {
	if p.Epoch == 0 {
		return 1
	}
	if l.own != nil {
		at, _, _ := l.own.at(p.Seq + 1)
		return at
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return streamSeq(l.segments, p.Seq+1)
}

const (
	// maxStarts bounds a node's start requests in a startWindow: each costs the
	// disk some writes. An honest node asks once a connection, and waits between
	// two; two in one second is a lot.
	maxStarts   = 50
	startWindow = 10 * time.Second
	// ackWait is how long an entry may be on its way before it is sent again;
	// applying one is a disk sync, at worst a slow one.
	ackWait = 30 * time.Second
	// maxAckPending bounds entries sent and not acknowledged. The default of
	// 1,000 stalls a consumer; fetchBatch times a few is enough here.
	maxAckPending = 4 * fetchBatch
	// fetchBatch is how many entries are asked for at a time.
	fetchBatch = 256
	// maxWaiting bounds a consumer's pull requests under way: one, and those of
	// a connection that died.
	maxWaiting = 16
)
