package feed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// noChain is the chain before the first entry of an epoch.
var noChain [sha256.Size]byte

// chainDomain keeps our hashes apart from any other use of SHA-256.
const chainDomain = "perigee feed entry v1\n"

// chain returns the chain value of e after an entry whose chain is prev. Every
// field of variable length is preceded by its length, so no two entries hash
// the same bytes.
func (e *Entry) chain(prev [sha256.Size]byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(chainDomain))
	h.Write(prev[:])
	var n [8]byte
	num := func(v uint64) {
		binary.BigEndian.PutUint64(n[:], v)
		h.Write(n[:])
	}
	num(uint64(e.Version))
	num(e.Epoch)
	num(e.Seq)
	num(uint64(e.At))
	num(uint64(len(e.Kind)))
	h.Write([]byte(e.Kind))
	num(uint64(len(e.Body)))
	h.Write(e.Body)
	return [sha256.Size]byte(h.Sum(nil))
}

// parseChain reads the hex form of a chain value: exactly 64 lower-case digits.
// The empty string is the chain before an epoch's first entry.
func parseChain(s string) (c [sha256.Size]byte, err error) {
	if s == "" {
		return noChain, nil
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != s {
		return c, fmt.Errorf("chain %.80q: it must be 64 lower-case hex digits", s)
	}
	return [sha256.Size]byte(b), nil
}

// seal fills in e.Chain after prev and returns the bytes for the log.
func (e *Entry) seal(prev [sha256.Size]byte) ([]byte, error) {
	c := e.chain(prev)
	e.Chain = hex.EncodeToString(c[:])
	return e.Encode()
}

// Encode returns the JSON form of an entry, which Decode reads back to the very
// same entry. It refuses what Decode would refuse.
func (e *Entry) Encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // or the body's bytes would change, and with them the chain
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("feed entry: %w", err)
	}
	b := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	if len(b) > MaxEntryBytes {
		return nil, fmt.Errorf("feed entry of kind %s has %d bytes, more than %d: put the large part in a blob and name its digest", e.Kind, len(b), MaxEntryBytes)
	}
	return b, nil
}

// Decode reads one entry in the form of Encode. Any other bytes are an error:
// unknown fields, another version, a body that is no compact JSON object,
// trailing data. It does not check the chain: that is Verify.
func Decode(b []byte) (Entry, error) {
	var e Entry
	if len(b) > MaxEntryBytes {
		return e, fmt.Errorf("feed entry: %d bytes, more than %d", len(b), MaxEntryBytes)
	}
	if err := decodeStrict(b, &e); err != nil {
		return Entry{}, fmt.Errorf("feed entry: %w", err)
	}
	if err := e.check(); err != nil {
		return Entry{}, err
	}
	return e, nil
}

func (e *Entry) check() error {
	if e.Version != entryVersion {
		return fmt.Errorf("feed entry: version %d is not known here (only %d): update this node", e.Version, entryVersion)
	}
	if e.Epoch == 0 || e.Seq == 0 {
		return errors.New("feed entry: epoch and seq start at 1")
	}
	if err := checkKind(e.Kind); err != nil {
		return fmt.Errorf("feed entry: %w", err)
	}
	if e.Chain == "" {
		return errors.New("feed entry: no chain")
	}
	if _, err := parseChain(e.Chain); err != nil {
		return fmt.Errorf("feed entry: %w", err)
	}
	compact, err := compactObject(e.Body)
	if err != nil {
		return fmt.Errorf("feed entry of kind %s: body: %w", e.Kind, err)
	}
	if !bytes.Equal(compact, e.Body) {
		return fmt.Errorf("feed entry of kind %s: body is not compact JSON", e.Kind)
	}
	return nil
}

// compactObject returns the JSON object b without insignificant space.
func compactObject(b []byte) ([]byte, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	var buf bytes.Buffer
	if err := json.Compact(&buf, b); err != nil {
		return nil, err
	}
	if buf.Len() == 0 || buf.Bytes()[0] != '{' {
		return nil, errors.New("not a JSON object")
	}
	return buf.Bytes(), nil
}

// decodeStrict reads exactly one JSON value of v's shape from b.
func decodeStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("data after the end of the JSON value")
	}
	return nil
}
