package control

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// A backup is a tar archive, so that it can be looked into with what is at hand:
//
//	backup.json       version, when, and the last entry of the log in it
//	ca.pem ca.key tokens.json nodes.json
//	log.jsonl         the entries, one a line
//	blobs.json        the digests and sizes of the blobs of all sealed releases, and of snapshots of the log
//	blobs/sha256-HEX  each of them; without the releases' if they were left out
//	SHA256SUMS        of all that stands before it; without it the file is cut off
const (
	backupVersion = 1
	// trimmedVersion is that of a backup whose log begins behind a snapshot: who does
	// not know snapshots would restore half of it.
	trimmedVersion = 2
	backupHeadName = "backup.json"
	backupLogName  = "log.jsonl"
	backupListName = "blobs.json"
	backupBlobDir  = "blobs/"
	backupSumsName = "SHA256SUMS"
)

// BackupHead is backup.json.
type BackupHead struct {
	Version int           `json:"version"`
	Created time.Time     `json:"created"`
	Head    feed.Position `json:"head"`    // of the log
	Entries int           `json:"entries"` // of the log
	Blobs   int           `json:"blobs"`
	Bytes   int64         `json:"bytes"` // of blobs
	// BlobsLeftOut: the list of blobs is in it and they are not.
	BlobsLeftOut bool `json:"blobs_left_out,omitempty"`
}

// stream is an answer that is written as it comes. After an error the connection
// is cut, so that nobody takes the half for the whole.
type stream func(io.Writer) error

func (s *Server) getBackup(_ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := query(r, "blobs")
	if err != nil {
		return nil, err
	}
	if b := q.Get("blobs"); q.Has("blobs") && b != "list" {
		return nil, refuse(http.StatusBadRequest, "blobs=list leaves the blobs out", "blobs must be list")
	}
	return stream(func(w io.Writer) error { return s.Backup(r.Context(), w, !q.Has("blobs")) }), nil
}

// backedState is what a backup is of: the state at one moment.
type backedState struct {
	head    BackupHead
	lists   map[string][]byte // by the file's name
	entries *backedLog
	blobs   []origin.Digest // of sealed releases
	// snapshots of the log are in every backup.
	snapshots []origin.Digest
}

// Backup writes all that a control node is to w: the state as it was at one
// moment, while commands go on.
func (s *Server) Backup(ctx context.Context, w io.Writer, blobs bool) error {
	b := &backup{tar: tar.NewWriter(w), now: s.now().UTC().Truncate(time.Second)}
	of, err := s.toBackUp(ctx)
	if err != nil {
		return err
	}
	defer of.entries.Close()
	defer s.unpin(of)
	of.head.Created, of.head.BlobsLeftOut = b.now, !blobs
	list := []origin.Blob{}
	there := s.sizesThere()
	for _, d := range slices.Concat(of.blobs, of.snapshots) {
		size, ok := s.blobs.Has(d)
		if !ok {
			size, ok = there[d]
		}
		if ok { // one that is lost is healed by a push
			list = append(list, origin.Blob{Digest: d, Size: size})
			of.head.Bytes += size
		}
	}
	of.head.Blobs = len(list)
	b.json(backupHeadName, of.head)
	for _, name := range slices.Sorted(maps.Keys(of.lists)) {
		b.bytes(name, of.lists[name])
	}
	b.file(backupLogName, of.entries.size, of.entries)
	b.json(backupListName, list)
	for _, blob := range list {
		if (blobs || slices.Contains(of.snapshots, blob.Digest)) && b.err == nil {
			b.blob(ctx, s, blob)
		}
	}
	return b.end()
}

// toBackUp takes the state, and keeps its blobs until unpin. While that lasts nothing is
// collected, nor the log trimmed; while a client takes the backup both go on.
func (s *Server) toBackUp(ctx context.Context) (of *backedState, err error) {
	s.collecting.RLock()
	defer s.collecting.RUnlock()
	of = &backedState{lists: map[string][]byte{}}
	err = s.feed.Log().Refresh(ctx) // of three, another may have written
	s.mu.Lock()
	if err == nil {
		err = s.catchUp(ctx)
	}
	var changed []string
	if err == nil && s.c.Cluster != nil {
		changed = s.syncLists() // a token that the log removed is in no list of the backup
	}
	of.head = BackupHead{Version: backupVersion, Head: s.feed.Log().Head()}
	if s.feed.Log().First() > 1 {
		of.head.Version = trimmedVersion
	}
	of.snapshots = s.snapshotBlobs()
	of.blobs = slices.SortedFunc(maps.Keys(s.referenced), func(a, b origin.Digest) int { return slices.Compare(a[:], b[:]) })
	for _, name := range []string{caCertName, caKeyName, tokensName, nodesName} {
		if err == nil && (name != nodesName || len(s.nodes.all()) > 0) {
			of.lists[name], err = readFile(filepath.Join(s.c.Dir, name), maxListBytes)
		}
	}
	s.mu.Unlock()
	s.admitAnew(ctx, changed)
	if err != nil {
		return nil, err
	}
	if of.entries, err = s.backupLog(ctx, of.head.Head.Seq); err != nil {
		return nil, err
	}
	of.head.Entries = of.entries.n
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range slices.Concat(of.blobs, of.snapshots) {
		s.pinned[d]++
	}
	return of, nil
}

// unpin ends what toBackUp has kept.
func (s *Server) unpin(of *backedState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range slices.Concat(of.blobs, of.snapshots) {
		if s.pinned[d]--; s.pinned[d] == 0 {
			delete(s.pinned, d)
		}
	}
}

// backup writes a backup's members.
type backup struct {
	tar  *tar.Writer
	now  time.Time
	sums strings.Builder
	err  error // the first
}

func (b *backup) json(name string, v any) {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil && b.err == nil {
		b.err = err
	}
	b.bytes(name, append(text, '\n'))
}

func (b *backup) bytes(name string, text []byte) {
	b.file(name, int64(len(text)), strings.NewReader(string(text)))
}

func (b *backup) file(name string, size int64, r io.Reader) {
	if b.err != nil {
		return
	}
	if b.err = b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: b.now, Typeflag: tar.TypeReg}); b.err != nil {
		return
	}
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(b.tar, h), r, size); err != nil {
		b.err = fmt.Errorf("%s: %w", name, err)
		return
	}
	if name != backupSumsName {
		fmt.Fprintf(&b.sums, "%s  %s\n", hex.EncodeToString(h.Sum(nil)), name)
	}
}

func (b *backup) blob(ctx context.Context, s *Server, blob origin.Blob) {
	c, err := s.openContent(ctx, blob.Digest)
	if err != nil {
		b.err = err
		return
	}
	defer c.Close()
	b.file(backupBlobDir+blob.Digest.String(), blob.Size, c)
}

func (b *backup) end() error {
	b.bytes(backupSumsName, []byte(b.sums.String()))
	if b.err != nil {
		return fmt.Errorf("backup: %w", b.err)
	}
	return b.tar.Close()
}

// backedLog is the log's entries in a temporary file: their size must be known
// before they are sent.
type backedLog struct {
	*os.File
	n    int
	size int64
}

func (s *Server) backupLog(ctx context.Context, last uint64) (_ *backedLog, err error) {
	f, err := os.CreateTemp(s.c.Dir, "backup.tmp-*") // swept at the next start if this one is killed
	if err != nil {
		return nil, err
	}
	out := &backedLog{File: f}
	err = os.Remove(f.Name()) // its space is freed when it is closed
	w := bufio.NewWriter(f)
	for e, broken := range s.feed.Log().Entries(ctx, 1) {
		if err == nil {
			err = broken
		}
		if err != nil || e.Seq > last {
			break
		}
		var b []byte
		if b, err = e.Encode(); err == nil {
			_, err = w.Write(append(b, '\n'))
			out.n, out.size = out.n+1, out.size+int64(len(b))+1
		}
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return out, nil
}

// Backup saves a backup into w: with blobs, or with the list of them alone.
func (c *Client) Backup(ctx context.Context, w io.Writer, blobs bool) error {
	path := "/v1/backup"
	if !blobs {
		path += "?blobs=list"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.start(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return c.explain(err)
	}
	return nil
}
