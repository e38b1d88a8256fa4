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
	"strconv"
	"unicode/utf8"
)

// ErrNewer is an entry that a later version wrote. It is not passed over: what it says
// is not known, and all that follows may rest on it.
var ErrNewer = errors.New("update this node")

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
	// What was checked needs no quoting, and the body stays as it is: written anew
	// its bytes might change, and with them the chain.
	b := make([]byte, 0, len(e.Body)+entryOverhead)
	b = strconv.AppendInt(append(b, `{"v":`...), int64(e.Version), 10)
	b = strconv.AppendUint(append(b, `,"epoch":`...), e.Epoch, 10)
	b = strconv.AppendUint(append(b, `,"seq":`...), e.Seq, 10)
	b = append(append(b, `,"chain":"`...), e.Chain...)
	b = append(append(b, `","kind":"`...), e.Kind...)
	b = strconv.AppendInt(append(b, `","at":`...), e.At, 10)
	b = append(append(append(b, `,"body":`...), e.Body...), '}')
	if len(b) > MaxEntryBytes {
		return nil, fmt.Errorf("feed entry of kind %s has %d bytes, more than %d: put the large part in a blob and name its digest", e.Kind, len(b), MaxEntryBytes)
	}
	return b, nil
}

// entryOverhead is room for all of an entry's JSON but its body.
const entryOverhead = 256

// Decode reads one entry in the form of Encode. Any other bytes are an error:
// unknown fields, another version, a body that is no compact JSON object,
// trailing data. It does not check the chain: that is Verify.
func Decode(b []byte) (Entry, error) {
	if len(b) > MaxEntryBytes {
		return Entry{}, fmt.Errorf("feed entry: %d bytes, more than %d", len(b), MaxEntryBytes)
	}
	e, ok := decodeOwn(b)
	if !ok {
		var head struct {
			Version int `json:"v"`
		}
		if json.Unmarshal(b, &head) == nil && head.Version > newestEntry { // what else it has is not known
			return Entry{}, fmt.Errorf("feed entry: version %d is not known here (only %d): %w", head.Version, newestEntry, ErrNewer)
		}
		e = Entry{}
		if err := decodeStrict(b, &e); err != nil {
			return Entry{}, fmt.Errorf("feed entry: %w", err)
		}
	}
	if err := e.check(); err != nil {
		return Entry{}, err
	}
	return e, nil
}

// decodeOwn reads the fields as Encode writes them, and checks none of them: a
// node reads entries of a thousand purges, and each pass of a JSON decoder over
// one costs it half a millisecond. Anything else is not ok, and for decodeStrict.
// Since check takes digits and letters alone for chain and kind, nothing that a
// decoder would unquote passes here and means something else there.
func decodeOwn(b []byte) (e Entry, ok bool) {
	r := reader{b, true}
	e.Version = int(r.number(`{"v":`))
	e.Epoch = r.number(`,"epoch":`)
	e.Seq = r.number(`,"seq":`)
	e.Chain = r.word(`,"chain":"`)
	e.Kind = r.word(`,"kind":"`)
	e.At = int64(r.number(`,"at":`))
	r.skip(`,"body":`)
	body, whole := bytes.CutSuffix(r.rest, []byte("}"))
	e.Body = bytes.Clone(body)
	return e, r.ok && whole
}

// reader takes one thing after another off rest, as long as it is ok.
type reader struct {
	rest []byte
	ok   bool
}

func (r *reader) skip(name string) {
	rest, ok := bytes.CutPrefix(r.rest, []byte(name))
	r.rest, r.ok = rest, r.ok && ok
}

func (r *reader) number(name string) uint64 {
	r.skip(name)
	n := 0
	for n < len(r.rest) && '0' <= r.rest[n] && r.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(string(r.rest[:n]), 10, 63)
	r.ok = r.ok && err == nil && (n == 1 || r.rest[0] != '0')
	r.rest = r.rest[n:]
	return v
}

func (r *reader) word(name string) string {
	r.skip(name)
	word, rest, ok := bytes.Cut(r.rest, []byte(`"`))
	r.rest, r.ok = rest, r.ok && ok
	return string(word)
}

func (e *Entry) check() error {
	if e.Version < 1 || e.Version > newestEntry {
		return fmt.Errorf("feed entry: version %d is not known here (only %d): %w", e.Version, newestEntry, ErrNewer)
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
