package control

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/durable"
	"perigee.example/origin"
)

const (
	restoredName    = "restored.json"
	restoredVersion = 1
	// restoringName is the folder in which a restore puts a state together.
	restoringName = "control.restoring"
	// maxBackupBytes bounds a member of a backup but for blobs and the log.
	maxBackupBytes = 64 << 20
)

// Restored is restored.json: where the state came from. While it is there, the
// control node changes nothing until every node has said that it has not seen
// more than the backup.
type Restored struct {
	Version int           `json:"version"`
	Backup  time.Time     `json:"backup"` // when it was made
	Head    feed.Position `json:"head"`   // of its log
	At      time.Time     `json:"at"`
	// Accepted: what came after the backup is given up, and the next start begins the
	// new epoch, since the log is at NATS.
	Accepted bool `json:"accepted,omitempty"`
}

// Restore makes dir, which must not be there or be empty, the state of a control
// node from a backup. All of it is read and checked before dir is made. Without
// accept the control node has to hear first that no node has seen more; with it,
// what came after the backup is given up, and a new epoch begins.
func Restore(ctx context.Context, dir string, r io.Reader, accept bool) (head BackupHead, err error) {
	if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
		return head, fmt.Errorf("%s is not empty: it holds the state of a control node", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return head, err
	}
	tmp := filepath.Join(filepath.Dir(dir), restoringName)
	if err := os.RemoveAll(tmp); err != nil { // of a restore that was killed
		return head, err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return head, err
	}
	defer os.RemoveAll(tmp) // it is gone when all went well
	if head, err = readBackup(r, tmp); err != nil {
		return head, fmt.Errorf("backup: %w", err)
	}
	logDir := filepath.Join(tmp, "feed")
	at, err := feed.Restore(ctx, logDir, backedEntries(filepath.Join(tmp, backupLogName)))
	if err != nil {
		return head, err
	}
	if at.Seq != head.Head.Seq || at.Seq > 0 && at != head.Head {
		return head, fmt.Errorf("backup: its log ends at seq %d, its head is seq %d", at.Seq, head.Head.Seq)
	}
	if err := os.Remove(filepath.Join(tmp, backupLogName)); err != nil {
		return head, err
	}
	mark := Restored{Version: restoredVersion, Backup: head.Created, Head: head.Head, At: time.Now().UTC().Truncate(time.Second)}
	if accept {
		_, err = feed.Rollback(ctx, logDir, mark.why())
	} else {
		err = writeList(filepath.Join(tmp, restoredName), mark)
	}
	if err != nil {
		return head, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return head, err
	}
	if err := durable.SyncDir(tmp); err != nil {
		return head, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return head, err
	}
	return head, durable.SyncDir(filepath.Dir(dir))
}

func (m *Restored) why() string {
	return "restored from a backup of " + m.Backup.Format(time.RFC3339) + "; what came after it is given up"
}

// AcceptRollback lets the restored state in dir go on though nodes have seen
// more: a new epoch begins.
func AcceptRollback(ctx context.Context, dir string) (Restored, error) {
	m, err := readRestored(dir)
	if err != nil {
		return Restored{}, err
	}
	if m == nil {
		return Restored{}, fmt.Errorf("%s was not restored from a backup, or goes on already", dir)
	}
	_, err = feed.Rollback(ctx, filepath.Join(dir, "feed"), m.why())
	if errors.Is(err, feed.ErrElsewhere) {
		m.Accepted = true
		return *m, writeList(filepath.Join(dir, restoredName), m)
	}
	if err != nil {
		return *m, err
	}
	return *m, forgetRestored(dir)
}

func readRestored(dir string) (*Restored, error) {
	var m Restored
	err := readList(filepath.Join(dir, restoredName), &m)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && m.Version != restoredVersion {
		err = fmt.Errorf("%s: version %d is not known here (only %d): update perigee", restoredName, m.Version, restoredVersion)
	}
	return &m, err
}

func forgetRestored(dir string) error {
	if err := os.Remove(filepath.Join(dir, restoredName)); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// readBackup reads a whole backup into dir and checks every sum of it. Names
// that a backup does not have are refused: nothing is written elsewhere.
func readBackup(r io.Reader, dir string) (head BackupHead, err error) {
	blobs, err := origin.OpenBlobs(filepath.Join(dir, "blobs"))
	if err != nil {
		return head, err
	}
	defer blobs.Close()
	b := &backedUp{dir: dir, blobs: blobs, sums: map[string]string{}}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err != nil {
			return head, cutOff(err)
		}
		if h.Typeflag != tar.TypeReg || h.Size < 0 || b.sums[h.Name] != "" || len(b.sums) == 0 && h.Name != backupHeadName {
			return head, fmt.Errorf("it is no backup: %.100q does not belong there", h.Name)
		}
		if h.Name == backupSumsName {
			if err := b.checkSums(in); err != nil {
				return head, err
			}
			return b.head, b.complete()
		}
		if err := b.take(h, in); err != nil {
			return head, fmt.Errorf("%s: %w", h.Name, cutOff(err))
		}
	}
}

// cutOff says what it means that a backup ends too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("it is damaged or cut off: %w", err)
	}
	return err
}

// backedUp is what has been read of a backup.
type backedUp struct {
	dir   string
	blobs *origin.Blobs
	head  BackupHead
	list  []origin.Blob
	sums  map[string]string // member → hex SHA-256, as read
}

func (b *backedUp) take(h *tar.Header, in io.Reader) error {
	sum := sha256.New()
	defer func() { b.sums[h.Name] = hex.EncodeToString(sum.Sum(nil)) }()
	in = io.TeeReader(in, sum)
	if name, ok := strings.CutPrefix(h.Name, backupBlobDir); ok {
		d, err := origin.ParseDigest(name)
		if err != nil {
			return err
		}
		return b.blobs.Put(d, h.Size, in)
	}
	switch h.Name {
	case backupLogName:
		f, err := os.OpenFile(filepath.Join(b.dir, h.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, in)
		return errors.Join(err, f.Close())
	case backupHeadName, backupListName, caCertName, caKeyName, tokensName, nodesName:
	default:
		return errors.New("a backup of this version has no such member: update perigee")
	}
	if h.Size > maxBackupBytes {
		return fmt.Errorf("%d bytes, more than %d", h.Size, maxBackupBytes)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	switch h.Name {
	case backupHeadName:
		return b.parseHead(text)
	case backupListName:
		return decodeStrict(bytes.NewReader(text), &b.list)
	}
	return durable.WriteFile(filepath.Join(b.dir, h.Name), text, 0o600)
}

func (b *backedUp) parseHead(text []byte) error {
	var v struct{ Version int }
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	if v.Version < backupVersion || v.Version > trimmedVersion {
		return fmt.Errorf("version %d is not known here (only up to %d): restore it with the perigee that made it, or a newer one", v.Version, trimmedVersion)
	}
	return decodeStrict(bytes.NewReader(text), &b.head)
}

func (b *backedUp) checkSums(in io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(in, maxBackupBytes))
	if err != nil {
		return cutOff(err)
	}
	want := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		sum, name, ok := strings.Cut(s.Text(), "  ")
		if !ok || want[name] != "" {
			return fmt.Errorf("%s: line %.100q", backupSumsName, s.Text())
		}
		want[name] = sum
	}
	for _, name := range slices.Sorted(maps.Keys(b.sums)) {
		if want[name] != b.sums[name] {
			return fmt.Errorf("%s is not what it was when the backup was made: its checksum does not match", name)
		}
	}
	if len(want) != len(b.sums) {
		return errors.New("members are missing from it")
	}
	return nil
}

// complete says whether all is there, and belongs together.
func (b *backedUp) complete() error {
	for _, name := range []string{caCertName, caKeyName, tokensName, backupLogName, backupListName} {
		if b.sums[name] == "" {
			return fmt.Errorf("%s is missing from it", name)
		}
	}
	for _, blob := range b.list {
		if size, ok := b.blobs.Has(blob.Digest); !b.head.BlobsLeftOut && (!ok || size != blob.Size) {
			return fmt.Errorf("blob %s is missing from it", blob.Digest)
		}
	}
	if _, err := openCA(b.dir, time.Now); err != nil {
		return err
	}
	text, err := readFile(filepath.Join(b.dir, tokensName), maxListBytes)
	if err == nil {
		_, err = parseTokens(text)
	}
	if err == nil {
		_, err = openNodes(b.dir)
	}
	return err
}

// backedEntries reads the entries of a backup's log.
func backedEntries(path string) iter.Seq2[feed.Entry, error] {
	return func(yield func(feed.Entry, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(feed.Entry{}, err)
			return
		}
		defer f.Close()
		s := bufio.NewScanner(f)
		s.Buffer(nil, feed.MaxEntryBytes+1)
		for s.Scan() {
			e, err := feed.Decode(s.Bytes())
			if !yield(e, err) || err != nil {
				return
			}
		}
		if err := s.Err(); err != nil {
			yield(feed.Entry{}, err)
		}
	}
}

// hold is a restored control node that does not know yet whether nodes have seen
// more than its backup.
type hold struct {
	Restored
	waiting map[string]bool          // nodes that have not been heard of
	ahead   map[string]feed.Position // nodes that have seen more
}

// openHold reads whether this state was restored.
func (s *Server) openHold() error {
	m, err := readRestored(s.c.Dir)
	if err != nil || m == nil {
		return err
	}
	if m.Accepted {
		s.accepted = m
		return nil
	}
	h := &hold{Restored: *m, waiting: map[string]bool{}, ahead: map[string]feed.Position{}}
	for _, n := range s.nodes.all() {
		h.waiting[n.Name] = true
	}
	s.hold = h
	s.log.Warn("restored from a backup: nothing is changed until every node has said that it has not seen more", "backup", m.Backup, "seq", m.Head.Seq, "nodes", len(h.waiting))
	s.release()
	return nil
}

// rollBack begins the new epoch that an operator has accepted.
func (s *Server) rollBack(ctx context.Context) error {
	if s.accepted == nil {
		return nil
	}
	if err := s.feed.Log().Rollback(ctx, s.accepted.why()); err != nil {
		return err
	}
	s.accepted = nil
	return forgetRestored(s.c.Dir)
}

// ahead is asked about nodes that have seen what the log does not have
// (feed.ServerConfig.Ahead): they stay as they are while that is undecided.
func (s *Server) ahead(node string, at feed.Position) error {
	s.holdMu.Lock()
	defer s.holdMu.Unlock()
	if s.hold == nil {
		return nil
	}
	if _, told := s.hold.ahead[node]; !told {
		s.log.Error("the backup is older than what this node has seen: nothing is changed until an operator decides", "node", node, "node_seq", at.Seq, "backup_seq", s.hold.Head.Seq)
	}
	s.hold.ahead[node] = at
	delete(s.hold.waiting, node)
	return fmt.Errorf("restored from a backup that ends at seq %d: this node has seen more, and stays as it is", s.hold.Head.Seq)
}

// heard notes that a node follows, so it has not seen more than the log has.
func (s *Server) heard(node string) {
	s.holdMu.Lock()
	defer s.holdMu.Unlock()
	if s.hold == nil || !s.hold.waiting[node] {
		return
	}
	delete(s.hold.waiting, node)
	s.release()
}

// release lets the control node go on when every node was heard of and none has
// seen more. Called with holdMu held, or before anyone else has the server.
func (s *Server) release() {
	if len(s.hold.waiting)+len(s.hold.ahead) > 0 {
		return
	}
	if err := forgetRestored(s.c.Dir); err != nil {
		s.log.Error("the restored state cannot be let go on", "err", err)
		return
	}
	s.hold = nil
	s.log.Info("no node has seen more than the backup: the control node goes on")
}

// onHold refuses commands while the hold stands.
func (s *Server) onHold() error {
	s.holdMu.Lock()
	defer s.holdMu.Unlock()
	h := s.hold
	if h == nil {
		return nil
	}
	const cure = "to give up what came after the backup, stop the control node and run `perigee restore --accept-rollback`"
	if len(h.ahead) > 0 {
		names := slices.Sorted(maps.Keys(h.ahead))
		return refuse(http.StatusServiceUnavailable, cure, "restored from a backup that ends at seq %d, and %s has seen seq %d: nothing was done", h.Head.Seq, names[0], h.ahead[names[0]].Seq)
	}
	return refuse(http.StatusServiceUnavailable, "wait for it; "+cure, "restored from a backup: whether nodes have seen more is not known yet of %s", strings.Join(slices.Sorted(maps.Keys(h.waiting)), ", "))
}

// CheckBackup reads a backup from its beginning, checks every sum of it, and
// keeps nothing.
func CheckBackup(f io.ReadSeeker) (BackupHead, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return BackupHead{}, err
	}
	b := &backedUp{sums: map[string]string{}}
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if err != nil {
			return b.head, cutOff(err)
		}
		if h.Name == backupSumsName {
			return b.head, b.checkSums(in)
		}
		var text bytes.Buffer
		sum, to := sha256.New(), io.Writer(io.Discard)
		if h.Name == backupHeadName && h.Size <= maxBackupBytes {
			to = &text
		}
		if _, err := io.Copy(io.MultiWriter(sum, to), in); err != nil {
			return b.head, cutOff(err)
		}
		b.sums[h.Name] = hex.EncodeToString(sum.Sum(nil))
		if to == &text {
			if err := b.parseHead(text.Bytes()); err != nil {
				return b.head, err
			}
		}
	}
}
