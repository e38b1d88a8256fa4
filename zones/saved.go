package zones

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// The last good copy of a zone is a master file in the state folder's zones/,
// flat, with every record in the form of RFC 3597, and a first line that says
// what it was made from.

// savedCopy is a copy read back.
type savedCopy struct {
	zone *Zone
	hash textHash // of the text it was made from
}

const savedHead = "; perigee last good copy, sha256 %s of %s\n"

// savedPath is where the copy of a zone is kept. Octets that a file name had
// better not have are written %XX.
func (s *Store) savedPath(origin string) string {
	var b strings.Builder
	for i, c := range []byte(strings.TrimSuffix(origin, ".")) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() == 0 {
		b.WriteString("%2E") // the root
	}
	return filepath.Join(s.state, "zones", b.String()+".zone")
}

// readHead reads the first line of a copy.
func readHead(r *bufio.Reader) (hash textHash, source string, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return hash, "", err
	}
	var sum, quoted string
	if n, err := fmt.Sscanf(line, savedHead, &sum, &quoted); n != 2 {
		return hash, "", err
	}
	at := strings.Index(line, " of ") + len(" of ")
	if source, err = strconv.Unquote(strings.TrimSuffix(line[at:], "\n")); err != nil {
		return hash, "", err
	}
	if n, err := hex.Decode(hash[:], []byte(sum)); err != nil || n != len(hash) {
		return hash, "", errors.New("bad hash")
	}
	return hash, source, nil
}

// readSaved reads the copy of a zone; nil when there is none that is whole.
func (s *Store) readSaved(origin string) *savedCopy {
	if s.state == "" {
		return nil
	}
	path := s.savedPath(origin)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	hash, _, err := readHead(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		return nil
	}
	z, _ := Parse(path, text, Options{Origin: origin, MaxRecords: s.max})
	if z == nil {
		return nil
	}
	return &savedCopy{zone: z, hash: hash}
}

// savedSources lists the zones that have a copy, with the file each was made
// from.
func (s *Store) savedSources() map[string]string {
	list := map[string]string{}
	if s.state == "" {
		return list
	}
	paths, _ := filepath.Glob(filepath.Join(escapeGlob(s.state), "zones", "*.zone"))
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		_, source, err := readHead(bufio.NewReader(f))
		f.Close()
		if err != nil {
			continue
		}
		if origin, err := originOfFile(source); err == nil && s.savedPath(origin) == path {
			list[origin] = source
		}
	}
	return list
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// savers is how many copies are written at once: they wait for the disk, and
// file systems put syncs that come together into one.
const savers = 8

// saveRound is how many copies are written after one look at the files: half a
// second's worth on a slow disk. The first start with ten thousand zones does
// not wait for all of them; Watch goes on with the rest.
const saveRound = 256

// save keeps copies of zones. What it returns is in Status as well.
func (s *Store) save(list []*entry) error {
	if s.state == "" || len(list) == 0 {
		return nil
	}
	dir := filepath.Join(s.state, "zones")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		errs := make([]error, len(list))
		next := make(chan int)
		var wg sync.WaitGroup
		for range min(savers, len(list)) {
			wg.Go(func() {
				for i := range next {
					errs[i] = s.saveOne(list[i])
				}
			})
		}
		for i := range list {
			next <- i
		}
		close(next)
		wg.Wait()
		err = errors.Join(append(errs, syncDir(dir))...)
	}
	text, hint := "", ""
	if err != nil {
		err = fmt.Errorf("the last good copies of zones cannot be kept: %w", err)
		text, hint = err.Error(), "make the folder writable; until then a restart with a bad file leaves its zone unserved"
	}
	s.mu.Lock()
	changed := s.saving.set(text, hint)
	if err == nil {
		for _, e := range list {
			e.tail = e.hash
		}
	}
	s.mu.Unlock()
	if changed {
		s.tell()
	}
	return err
}

func (s *Store) saveOne(e *entry) (err error) {
	path := s.savedPath(e.origin)
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, savedHead, hex.EncodeToString(e.hash[:]), strconv.Quote(e.source.Path))
	e.zone.writeText(w)
	if err := errors.Join(w.Flush(), f.Sync()); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// forget removes the copy of a zone.
func (s *Store) forget(origin string) error {
	if s.state == "" {
		return nil
	}
	path := s.savedPath(origin)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeText writes the zone as a flat master file with absolute names and data
// in the form of RFC 3597, which keeps every octet. Errors are left to the
// writer.
func (z *Zone) writeText(w io.Writer) {
	var line []byte
	for n, d := range z.sorted() {
		if d.sets() == 0 {
			continue
		}
		owner := FormatName(z.Owner(n, nil))
		for walk := d.all(); walk.left > 0; {
			wire, rrtype, _ := walk.next()
			for len(wire) > 0 {
				ttl := binary.BigEndian.Uint32(wire[6:])
				var rdata []byte
				rdata, wire = firstRecord(wire)
				line = append(append(line[:0], owner...), ' ')
				line = strconv.AppendUint(line, uint64(ttl), 10)
				line = strconv.AppendUint(append(line, " IN TYPE"...), uint64(rrtype), 10)
				line = strconv.AppendUint(append(line, ` \# `...), uint64(len(rdata)), 10)
				line = hex.AppendEncode(append(line, ' '), rdata)
				_, _ = w.Write(append(line, '\n'))
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
