package zones

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"perigee.example/internal/durable"
)

// A zone with Source.AutoSerial has its serial raised when its file changes and
// does not do it itself. What was served last stands in the file serials of the
// state folder before anybody can see it, so that no restart takes it back.

// given is the last serial of a zone with AutoSerial, and the text that has it.
type given struct {
	serial uint32
	hash   textHash
}

// serialsHead is the first line of the file: others are not read.
const serialsHead = "perigee serials 1"

func (s *Store) serialsPath() string { return filepath.Join(s.state, "serials") }

// readSerials reads the file. One that is not whole is an error: to begin anew
// could take serials back.
func (s *Store) readSerials() (map[string]given, error) {
	list := map[string]given{}
	text, err := os.ReadFile(s.serialsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		if n == 1 {
			if lines.Text() != serialsHead {
				break
			}
			continue
		}
		var g given
		var sum, origin string
		if k, err := fmt.Sscanf(lines.Text(), "%d %64s %s", &g.serial, &sum, &origin); k != 3 || err != nil {
			return nil, fmt.Errorf("%s:%d: not a serial, a hash and a zone", s.serialsPath(), n)
		}
		if k, err := hex.Decode(g.hash[:], []byte(sum)); err != nil || k != len(g.hash) {
			return nil, fmt.Errorf("%s:%d: bad hash", s.serialsPath(), n)
		}
		list[origin] = g
	}
	if !bytes.HasPrefix(text, []byte(serialsHead+"\n")) {
		return nil, fmt.Errorf("%s:1: not a list of serials", s.serialsPath())
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.serialsPath(), err)
	}
	return list, nil
}

// settleSerials gives each new version of a zone with AutoSerial its serial,
// and writes them down, once for all. A version whose serial cannot be written
// down is not served.
func (s *Store) settleSerials(due []*entry, outcomes []*outcome) {
	next := map[string]given{}
	for i, e := range due {
		o := outcomes[i]
		if o == nil || !e.source.AutoSerial || o.zone == nil || o.moving != nil || o.same {
			continue
		}
		if s.serials == nil {
			var err error
			if s.serials, err = s.readSerials(); err != nil {
				o.zone, o.unkept = nil, err
				continue
			}
		}
		last, known := s.serials[e.origin]
		g := given{o.zone.serial, o.hash}
		if known {
			g.serial = autoSerial(last, o.old, o)
		} else if e.zone != nil { // the file had it until now, and may have left it behind
			g.serial = autoSerial(given{e.serial, e.base}, nil, o)
		}
		if !known || g != last {
			next[e.origin] = g
		}
		o.zone.setSerial(g.serial)
	}
	if len(next) == 0 {
		return
	}
	for origin, g := range s.serials {
		if _, ok := next[origin]; !ok && s.entries[origin] != nil && s.entries[origin].source.AutoSerial {
			next[origin] = g
		}
	}
	if err := s.writeSerials(next); err != nil {
		for i, e := range due {
			if o := outcomes[i]; o != nil && e.source.AutoSerial && o.zone != nil && next[e.origin] != s.serials[e.origin] {
				o.zone, o.unkept = nil, err
			}
		}
		return
	}
	s.serials = next
}

// autoSerial is the serial of a new version: the file's if that is higher
// (RFC 1982), that of the last for the same records as in old, else the next.
func autoSerial(last given, old *Zone, o *outcome) uint32 {
	switch {
	case last.hash == o.hash:
		return last.serial
	case serialAbove(o.zone.serial, last.serial):
		return o.zone.serial
	case old != nil && old.serial == last.serial && same(old, o.zone, false):
		return last.serial
	}
	return last.serial + 1
}

func (s *Store) writeSerials(list map[string]given) error {
	var b strings.Builder
	b.WriteString(serialsHead + "\n")
	for origin, g := range list {
		fmt.Fprintf(&b, "%d %x %s\n", g.serial, g.hash, origin)
	}
	if err := os.MkdirAll(s.state, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(s.serialsPath(), []byte(b.String()), 0o600)
}

// setSerial changes the serial of a zone that nobody else has yet.
func (z *Zone) setSerial(serial uint32) {
	if z.serial == serial {
		return
	}
	rdata, _ := firstRecord(z.soa.Wire)
	binary.BigEndian.PutUint32(rdata[len(rdata)-20:], serial)
	z.setSOA()
}
