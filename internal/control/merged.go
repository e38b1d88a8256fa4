package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// What each control node keeps for itself, its audit log and when its tokens were
// last used, is read at any of them: that one asks the others.

const (
	// mergeWait bounds the wait for the others. Who does not answer is named.
	mergeWait = 5 * time.Second
	// maxMergeBytes bounds one answer: maxAuditShown lines with long URLs in them.
	maxMergeBytes = 32 << 20
	auditPath     = "/v1/audit"
	tokenUsePath  = "/v1/token-use"
)

// askAll asks every other control node for path at once, and has take read each
// answer, one at a time. Silent are those that gave none.
func (s *Server) askAll(ctx context.Context, path string, take func(peer string, body io.Reader) error) (silent []string) {
	if s.peers == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, mergeWait)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, peer := range s.peers.list {
		wg.Go(func() {
			resp, err := s.peers.do(ctx, http.MethodGet, "https://"+peer.Blobs+path, "", nil, 0)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				err = take(peer.Name, io.LimitReader(resp.Body, maxMergeBytes))
				resp.Body.Close()
			}
			if err != nil {
				s.log.Warn("another control node does not say what it has noted", "control", peer.Name, "path", path, "err", err)
				silent = append(silent, peer.Name)
			}
		})
	}
	wg.Wait()
	slices.Sort(silent)
	return silent
}

// auditOfAll are the newest n lines of all control nodes.
func (s *Server) auditOfAll(ctx context.Context, n int) (out AuditLines, err error) {
	if out, err = s.audit.newest(n); err != nil || s.peers == nil {
		return out, err
	}
	for i := range out.Lines {
		out.Lines[i].Node = s.c.Cluster.Name
	}
	out.Silent = s.askAll(ctx, auditPath+"?limit="+strconv.Itoa(n), func(peer string, body io.Reader) error {
		var theirs AuditLines
		if err := json.NewDecoder(body).Decode(&theirs); err != nil {
			return err
		}
		for i := range theirs.Lines {
			theirs.Lines[i].Node = peer
		}
		out.Lines, out.Damaged = append(out.Lines, theirs.Lines...), out.Damaged+theirs.Damaged
		return nil
	})
	slices.SortStableFunc(out.Lines, func(a, b AuditLine) int { return a.Time.Compare(b.Time) })
	out.Lines = out.Lines[max(0, len(out.Lines)-n):]
	return out, nil
}

// usesOfAll is when each token was last used, at whichever control node.
func (s *Server) usesOfAll(ctx context.Context) (uses map[string]time.Time, silent []string) {
	uses = s.tokens.uses()
	silent = s.askAll(ctx, tokenUsePath, func(_ string, body io.Reader) error {
		var theirs map[string]time.Time
		if err := json.NewDecoder(body).Decode(&theirs); err != nil {
			return err
		}
		for name, at := range theirs {
			if at.After(uses[name]) {
				uses[name] = at
			}
		}
		return nil
	})
	return uses, silent
}

// noted answers another control node what is noted here; ok is false when the
// call is another.
func (s *Server) noted(r *http.Request) (answer any, ok bool, err error) {
	if r.Method != http.MethodGet {
		return nil, false, nil
	}
	switch r.URL.Path {
	case auditPath:
		n, err := strconv.Atoi(r.URL.Query().Get("limit"))
		if err != nil || n < 1 || n > maxAuditShown {
			return nil, true, refuse(http.StatusBadRequest, "", "limit must be from 1 to %d", maxAuditShown)
		}
		out, err := s.audit.newest(n)
		if err != nil {
			return nil, true, fmt.Errorf("audit log: %w", err)
		}
		return out, true, nil
	case tokenUsePath:
		return s.tokens.uses(), true, nil
	}
	return nil, false, nil
}
