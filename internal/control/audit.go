package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"perigee.example/internal/durable"
)

const (
	auditName = "audit.log"
	// maxAuditBytes and maxAuditFiles bound the audit log: some 30,000 calls in a
	// file, and the newest 300,000 in all.
	maxAuditBytes = 8 << 20
	maxAuditFiles = 10
	// maxAuditShown bounds one answer; defaultAuditShown is what is shown else.
	maxAuditShown     = 10_000
	defaultAuditShown = 100
	// maxRemarkBytes bounds AuditLine.Which and Why: the beginning of a long URL
	// is enough to find it.
	maxRemarkBytes = 500
)

// AuditLine is one line of the audit log: a call that was to change something,
// or was refused for want of a right.
type AuditLine struct {
	Time   time.Time `json:"time"`
	Node   string    `json:"node,omitempty"`  // of several control nodes, the one that was called
	Who    string    `json:"who,omitempty"`   // the token's name, or "socket"; none: nobody known
	What   string    `json:"what"`            // method and path
	Which  string    `json:"which,omitempty"` // what the body named
	From   string    `json:"from"`            // address and port, or "socket"
	Status int       `json:"status"`
	Why    string    `json:"why,omitempty"` // of a refusal
	// Times: the line stands for that many refusals of the caller's within a second, of
	// which it shows the first; 0: for one call.
	Times int `json:"times,omitempty"`
}

// AuditLines are the newest lines of all control nodes, oldest first.
type AuditLines struct {
	Lines []AuditLine `json:"lines"`
	// Silent are control nodes that did not answer: their lines are not there.
	Silent []string `json:"silent,omitempty"`
	// Damaged lines were left out: a crash in the middle of a write leaves one.
	Damaged int `json:"damaged,omitempty"`
}

// audit is the audit log: a file that is only appended to.
type audit struct {
	path string
	most int64 // bytes of one file
	log  *slog.Logger
	// refused are the lines that are not written one by one.
	refused refusedLines

	mu   sync.Mutex
	f    *os.File // nil after an error, until a new one could be begun
	size int64
	why  error // why f is nil
	// written: a line of this file is certain. One that failed before it had any
	// is tried again, so that a full disk pushes no old file out.
	written bool
}

func openAudit(dir string, log *slog.Logger) (*audit, error) {
	a := &audit{path: filepath.Join(dir, auditName), most: maxAuditBytes, log: log}
	err := a.open()
	a.written = a.size > 0
	return a, err
}

// open opens the file for appending, behind a line end.
func (a *audit) open() error {
	f, err := os.OpenFile(a.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	last := []byte{'\n'}
	if err == nil && size > 0 {
		_, err = f.ReadAt(last, size-1)
	}
	if err == nil && last[0] != '\n' { // a crash cut the last line short
		_, err = f.Write([]byte{'\n'})
		size++
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(a.path))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	a.f, a.size = f, size
	return nil
}

// ready says why no line can be written, or nil. Whoever changes something asks
// first: what could not be written down is not done.
func (a *audit) ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.f == nil {
		a.why = a.begin()
	}
	if a.why != nil {
		return fmt.Errorf("the audit log cannot be written, so nothing is changed: %w", a.why)
	}
	return nil
}

// add appends a line and, if it must be, syncs it. A line that cannot be
// written is in the log of events at least, and the next change is refused.
func (a *audit) add(l AuditLine, synced bool) {
	l.What, l.Which, l.Why = cutText(l.What), cutText(l.Which), cutText(l.Why)
	b, err := json.Marshal(l)
	if err != nil {
		a.log.Error("audit line not written", "who", l.Who, "what", l.What, "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.f == nil || a.size > a.most {
		a.why = a.begin()
	}
	if err = a.why; err == nil {
		_, err = a.f.Write(append(b, '\n'))
		a.size += int64(len(b)) + 1
	}
	if err == nil && synced {
		err = a.f.Sync()
		a.written = a.written || err == nil
	}
	if err != nil {
		a.log.Error("audit line not written", "who", l.Who, "what", l.What, "which", l.Which, "from", l.From, "status", l.Status, "err", err)
	}
	if err != nil && a.f != nil {
		_ = a.f.Close() // after a failed write or sync a file is dead
		a.f, a.why = nil, err
	}
}

// begin opens a file for the next line: a new one, unless the last was begun in
// vain. Called with mu held.
func (a *audit) begin() error {
	if a.f != nil || a.written {
		return a.rotate()
	}
	return a.open()
}

// rotate begins a new file.
func (a *audit) rotate() error {
	if a.f != nil {
		err := errors.Join(a.f.Sync(), a.f.Close())
		a.f = nil
		if err != nil {
			a.log.Error("audit log: the end of a full file is not certain", "err", err)
		}
	}
	for i := maxAuditFiles - 1; i > 0; i-- {
		if err := os.Rename(a.name(i-1), a.name(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	a.written = false
	return a.open()
}

// name is that of the file i rotations ago.
func (a *audit) name(i int) string {
	if i == 0 {
		return a.path
	}
	return a.path + "." + strconv.Itoa(i)
}

// newest reads the last n lines, oldest first.
func (a *audit) newest(n int) (out AuditLines, err error) {
	a.addAllRefused()
	a.mu.Lock()
	defer a.mu.Unlock()
	out.Lines = []AuditLine{}
	for i := 0; i < maxAuditFiles && len(out.Lines) < n; i++ {
		b, err := readFile(a.name(i), 2*a.most)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return out, err
		}
		var lines []AuditLine
		for line := range bytes.Lines(b) {
			var l AuditLine
			if json.Unmarshal(line, &l) != nil {
				out.Damaged++
				continue
			}
			lines = append(lines, l)
		}
		lines = lines[max(0, len(lines)-(n-len(out.Lines))):]
		out.Lines = slices.Concat(lines, out.Lines)
	}
	return out, nil
}

func (a *audit) close() error {
	a.addAllRefused()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.f == nil {
		return nil
	}
	err := errors.Join(a.f.Sync(), a.f.Close())
	a.f, a.why = nil, fs.ErrClosed
	return err
}

// cutText is what a line shows of a caller's words: its beginning, and nothing
// that a terminal would obey.
func cutText(s string) string {
	if len(s) > maxRemarkBytes {
		s = strings.ToValidUTF8(s[:maxRemarkBytes], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// remarkKey is the context key of what a call says of itself for its line.
type remarkKey struct{}

// remark says what the call is about, where the path does not: never a secret.
func remark(r *http.Request, format string, args ...any) {
	if which, ok := r.Context().Value(remarkKey{}).(*string); ok {
		*which = fmt.Sprintf(format, args...)
	}
}

// record writes the line of a call that changes something, reads secrets, or
// was refused.
func (s *Server) record(r *http.Request, status int, err error) {
	who := callerOf(r).name
	refused := status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusTooManyRequests
	if r.Method == http.MethodGet && !refused && !readsSecrets(r) {
		return
	}
	if who == "" && status == http.StatusTooManyRequests {
		return // of an address that has to wait: its flood would push all else out
	}
	l := AuditLine{Time: s.now().UTC(), Who: who, What: r.Method + " " + r.URL.Path, From: r.RemoteAddr, Status: status}
	if l.Who == socketCaller {
		l.From = socketCaller
	}
	if which, ok := r.Context().Value(remarkKey{}).(*string); ok {
		l.Which = *which
	}
	if err != nil {
		l.Why = asError(err).Message
	}
	if who != "" && isRefusal(r.Method, status) {
		s.audit.refuse(l)
		return
	}
	// A blob is no change by itself, and comes in thousands: its line is synced
	// with that of the release. Strangers cannot have the disk synced.
	s.audit.add(l, who != "" && !(r.Method == http.MethodPut && status == http.StatusOK))
}

// readsSecrets reports the calls that change nothing and are written down all the same.
func readsSecrets(r *http.Request) bool { return r.URL.Path == "/v1/backup" }

func (s *Server) getAudit(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := query(r, "limit")
	if err != nil {
		return nil, err
	}
	n := defaultAuditShown
	if q.Has("limit") {
		if n, err = strconv.Atoi(q.Get("limit")); err != nil || n < 1 || n > maxAuditShown {
			return nil, refuse(http.StatusBadRequest, "for example limit=1000", "limit must be from 1 to %d", maxAuditShown)
		}
	}
	return s.auditOfAll(r.Context(), n)
}
