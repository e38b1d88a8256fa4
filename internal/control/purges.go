package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

const (
	// maxPurgesBytes bounds the body of a call with many purges: maxShared URLs
	// of a kilobyte.
	maxPurgesBytes = 1 << 20
	// purgeWait bounds the append of purges, whose callers may have gone: the
	// log's own limit and some.
	purgeWait = 15 * time.Second
	// maxRetryAfter bounds how long a client waits because it was told to:
	// more than a full bucket takes.
	maxRetryAfter = 2 * time.Minute
)

// writePurges appends an entry of purges. They are commands like others, but of
// several callers, so none of their contexts ends it.
func (s *Server) writePurges(kind string, body any) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), purgeWait)
	defer cancel()
	e, err := s.command(ctx, kind, body, free)
	return e.Seq, err
}

// mayPurge answers 429 to a caller that sends too many.
func (s *Server) mayPurge(w http.ResponseWriter, r *http.Request, n int) error {
	rate := float64(s.known.Load().Limits.Purges)
	if wait := s.purgers.take(callerOf(r).name, n, rate, rate*purgeBurst, s.now()); wait > 0 {
		return tooMany(w, wait, "purge by tag or prefix, or wait", "more than %.0f purges at once, and %.0f a second after that", rate*purgeBurst, rate)
	}
	return nil
}

// PurgedMany answers many purges. Seq is that of the last entry: who has applied
// it has applied all of them.
type PurgedMany struct {
	Seq    uint64   `json:"seq,omitempty"`
	Purged []Purged `json:"purged"`
}

// purgeMany answers /v1/purges. All are checked before the first is written.
func (s *Server) purgeMany(w http.ResponseWriter, r *http.Request) (any, error) {
	var req struct {
		Purges []Purge `json:"purges"`
		DryRun bool    `json:"dry_run"`
	}
	if err := readJSONUpTo(w, r, maxPurgesBytes, &req); err != nil {
		return nil, err
	}
	if len(req.Purges) == 0 || len(req.Purges) > maxShared {
		return nil, refuse(http.StatusBadRequest, "send them in several calls", "purges: %d, and 1 to %d are taken at once", len(req.Purges), maxShared)
	}
	out := PurgedMany{Purged: make([]Purged, len(req.Purges))}
	defer func() { remark(r, "%s and %d more", req.Purges[0].String(), len(req.Purges)-1) }()
	for i := range req.Purges {
		if err := s.settleFor(w, r, &req.Purges[i]); err != nil {
			var e *Error
			if errors.As(err, &e) {
				return nil, refuse(e.Status, e.Hint, "purge %d: %s (nothing was purged)", i+1, e.Message)
			}
			return nil, err
		}
		out.Purged[i].Purge = req.Purges[i]
	}
	if req.DryRun {
		return out, nil
	}
	if err := s.mayPurge(w, r, len(req.Purges)); err != nil {
		return nil, err
	}
	seqs, err := s.gather.submit(req.Purges)
	if err != nil {
		return nil, err
	}
	for i, seq := range seqs {
		out.Purged[i].Seq = seq
		out.Seq = max(out.Seq, seq)
	}
	return out, nil
}

// PurgeMany purges all that ps name, in as many calls as it takes, in their
// order. When the control node says that it is too much at once, wait is told
// for how long, and it goes on then. After an error the purges that out names
// are done.
func (c *Client) PurgeMany(ctx context.Context, ps []Purge, dryRun bool, wait func(time.Duration)) (out PurgedMany, err error) {
	for len(ps) > 0 {
		n, err := fits(ps)
		if err != nil {
			return out, err
		}
		var part PurgedMany
		err = c.do(ctx, http.MethodPost, "/v1/purges", map[string]any{"purges": ps[:n], "dry_run": dryRun}, &part)
		var e *Error
		if errors.As(err, &e) && e.Status == http.StatusTooManyRequests && e.RetryAfter > 0 && e.RetryAfter <= maxRetryAfter {
			wait(e.RetryAfter)
			timer := time.NewTimer(e.RetryAfter)
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
				return out, ctx.Err()
			}
		}
		if err != nil {
			return out, err
		}
		out.Seq = max(out.Seq, part.Seq)
		out.Purged = append(out.Purged, part.Purged...)
		ps = ps[n:]
	}
	return out, nil
}

// fits returns how many of ps one call takes.
func fits(ps []Purge) (n int, err error) {
	bytes := 100 // for what stands around them
	for n < len(ps) && n < maxShared {
		b, err := json.Marshal(&ps[n])
		if err != nil {
			return 0, err
		}
		if bytes += len(b) + 1; bytes > maxPurgesBytes && n > 0 {
			break
		}
		n++
	}
	return n, nil
}
