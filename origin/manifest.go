package origin

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// ManifestVersion is the version of the canonical form that this package
// writes and the only one it reads.
const ManifestVersion = 1

// Limits of a manifest. Beyond one of them a manifest is refused, never cut.
const (
	// MaxPathBytes bounds one path in UTF-8. Request targets longer than a
	// few KiB are refused by most clients and proxies once percent-encoded.
	MaxPathBytes = 1024
	// MaxFiles bounds the paths of one release. The largest generated sites
	// have tens of thousands; an edge keeps each path of six releases in memory.
	MaxFiles = 200_000
	// MaxManifestBytes bounds the canonical form: MaxFiles paths of a usual
	// length (about 100 bytes) with digest, size, type and class.
	MaxManifestBytes = 64 << 20
	// maxTypeBytes bounds a Content-Type; real ones are below 80.
	maxTypeBytes = 255
)

// The expiry classes of files (see Classify).
const (
	Immutable = "immutable"
	Document  = "document"
	Asset     = "asset"
)

// File is one path of a manifest.
type File struct {
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"`  // in bytes
	Type   string `json:"type"`  // Content-Type
	Class  string `json:"class"` // Immutable, Document or Asset

	Variants []Variant `json:"variants,omitempty"` // in the order of Codings
}

// Manifest maps paths to files. Its canonical form is JSON without white
// space, with the fields in the order of the structs and the paths in byte
// order, and a final newline; the SHA-256 of that is the release's id.
//
// A path is UTF-8 in Unicode NFC, "/"-separated, without leading slash; no
// segment is empty, "." or "..", ends in a dot or a space, or decodes to such
// trouble when percent-decoded once more; no backslash, no control character;
// and no two paths may differ only in case or in Unicode form, since they would
// be one file on many a disk.
type Manifest struct {
	Version int             `json:"version"` // of the format; ManifestVersion
	Files   map[string]File `json:"files"`   // keys without a leading slash: "index.html", "img/logo.svg"

	Headers   []HeaderRule `json:"headers,omitempty"`   // all that match apply, in this order
	Redirects []Redirect   `json:"redirects,omitempty"` // the first that matches

	forced bool // some redirect has Force; set by ParseManifest
}

// PathError is one path of a manifest that breaks a rule.
type PathError struct {
	Path string
	Text string
}

func (e *PathError) Error() string { return fmt.Sprintf("path %.120q: %s", e.Path, e.Text) }

// Canonical returns the canonical bytes and the release id. It refuses a
// manifest that breaks a rule; the error then joins a *PathError for each path
// at fault, at most maxPathErrors of them.
func (m *Manifest) Canonical() ([]byte, Digest, error) {
	if err := m.check(); err != nil {
		return nil, Digest{}, err
	}
	size := 0 // about: a few dozen octets of names, 64 of digest, and what differs
	for path, f := range m.Files {
		size += len(path) + (160 + len(f.Type)) + 128*len(f.Variants)
	}
	var buf bytes.Buffer
	buf.Grow(min(size, MaxManifestBytes))
	if err := m.write(&buf); err != nil {
		return nil, Digest{}, fmt.Errorf("manifest: %w", err)
	}
	if buf.Len() > MaxManifestBytes {
		return nil, Digest{}, fmt.Errorf("manifest: %d bytes in canonical form, the limit is %d: split the site", buf.Len(), MaxManifestBytes)
	}
	return buf.Bytes(), DigestOf(buf.Bytes()), nil
}

// write writes the canonical form, file by file: encoding/json makes the whole of a value
// before it writes any of it, which for the longest is hundreds of MiB beside the result.
// Files are encoded here; tests hold that against encoding/json.
func (m *Manifest) write(w io.Writer) error {
	b := strconv.AppendInt([]byte(`{"version":`), int64(m.Version), 10)
	b = append(b, `,"files":{`...)
	for i, path := range slices.Sorted(maps.Keys(m.Files)) {
		if i > 0 {
			b = append(b, ',')
		}
		f := m.Files[path]
		b = appendFile(append(appendString(b, path), ':'), &f)
		if _, err := w.Write(b); err != nil {
			return err
		}
		b = b[:0]
	}
	b = append(b, '}')
	if len(m.Headers) > 0 {
		b = appendJSON(append(b, `,"headers":`...), m.Headers)
	}
	if len(m.Redirects) > 0 {
		b = appendJSON(append(b, `,"redirects":`...), m.Redirects)
	}
	_, err := w.Write(append(b, "}\n"...))
	return err
}

func appendFile(b []byte, f *File) []byte {
	b = appendBlobFields(b, `{"digest":"`, f.Digest, f.Size)
	b = appendString(append(b, `,"type":`...), f.Type)
	b = appendString(append(b, `,"class":`...), f.Class)
	for i := range f.Variants {
		if i == 0 {
			b = append(b, `,"variants":[`...)
		} else {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"coding":`...), f.Variants[i].Coding)
		b = append(appendBlobFields(b, `,"digest":"`, f.Variants[i].Digest, f.Variants[i].Size), '}')
	}
	if len(f.Variants) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendBlobFields(b []byte, before string, d Digest, size int64) []byte {
	b = hex.AppendEncode(append(append(b, before...), digestPrefix...), d[:])
	return strconv.AppendInt(append(b, `","size":`...), size, 10)
}

// appendString appends s as JSON.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' {
			return appendJSON(b, s)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// appendJSON appends what encoding/json makes of v, which it can: strings, and structs of
// strings and numbers.
func appendJSON(b []byte, v any) []byte {
	out := bytes.NewBuffer(b)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return out.Bytes()[:out.Len()-1] // a newline
}

// sameBytes is a writer that wants what is left of b.
type sameBytes struct{ b []byte }

var errOtherBytes = errors.New("other bytes")

func (s *sameBytes) Write(p []byte) (int, error) {
	rest, ok := bytes.CutPrefix(s.b, p)
	if !ok {
		return 0, errOtherBytes
	}
	s.b = rest
	return len(p), nil
}

// ParseManifest reads canonical bytes, and refuses any other: what it accepts,
// Canonical gives back byte for byte.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxManifestBytes {
		return nil, fmt.Errorf("manifest: %d bytes, the limit is %d", len(b), MaxManifestBytes)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("manifest: not JSON of the known shape: %w", err)
	}
	if m.Version != ManifestVersion {
		return nil, fmt.Errorf("manifest: format version %d, this program reads %d: use the same release of perigee on every node", m.Version, ManifestVersion)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	same := sameBytes{b}
	if err := m.write(&same); err != nil && err != errOtherBytes {
		return nil, fmt.Errorf("manifest: %w", err)
	} else if err != nil || len(same.b) > 0 {
		return nil, errors.New("manifest: not in canonical form: fields in order, paths sorted, each once, no white space, no unknown field, one final newline")
	}
	m.intern()
	for i := range m.Redirects {
		m.forced = m.forced || m.Redirects[i].Force
	}
	return &m, nil
}

// intern makes equal types and classes share one string: a release has a few
// of them and many files.
func (m *Manifest) intern() {
	seen := map[string]string{}
	one := func(s string) string {
		if have, ok := seen[s]; ok {
			return have
		}
		seen[s] = s
		return s
	}
	for path, f := range m.Files {
		f.Type, f.Class = one(f.Type), one(f.Class)
		m.Files[path] = f
	}
}

// Blob is what one file of a release is stored as.
type Blob struct {
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"` // in bytes
}

// blobs are the file's content and its variants.
func (f *File) blobs() []Blob {
	list := make([]Blob, 0, 1+len(f.Variants))
	list = append(list, Blob{f.Digest, f.Size})
	for _, v := range f.Variants {
		list = append(list, Blob{v.Digest, v.Size})
	}
	return list
}

// Blobs returns each blob of the manifest once, in the order of the digests.
func (m *Manifest) Blobs() []Blob {
	sizes := make(map[Digest]int64, len(m.Files))
	for _, f := range m.Files {
		for _, b := range f.blobs() {
			sizes[b.Digest] = b.Size
		}
	}
	list := make([]Blob, 0, len(sizes))
	for d, size := range sizes {
		list = append(list, Blob{d, size})
	}
	slices.SortFunc(list, func(a, b Blob) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	return list
}

// maxPathErrors bounds how many faults one error reports: a screenful.
const maxPathErrors = 20

// check reports every rule that m breaks.
func (m *Manifest) check() error {
	if m.Version != ManifestVersion {
		return fmt.Errorf("manifest: format version %d, want %d", m.Version, ManifestVersion)
	}
	if m.Files == nil {
		return errors.New("manifest: no files field: an empty release has an empty map")
	}
	if len(m.Files) > MaxFiles {
		return fmt.Errorf("manifest: %d files, the limit is %d: split the site", len(m.Files), MaxFiles)
	}
	if err := m.checkRules(); err != nil {
		return err
	}
	var errs []error
	folded := make(map[string]string, len(m.Files))
	sizes := make(map[Digest]int64, len(m.Files))
	fold := cases.Fold()
	total := int64(0)
	for _, path := range slices.Sorted(maps.Keys(m.Files)) {
		f := m.Files[path]
		text := checkPath(path)
		if text == "" {
			text = checkFile(f)
		}
		key := foldPath(fold, path)
		if twin, ok := folded[key]; ok && text == "" {
			text = fmt.Sprintf("differs from %.120q only in case or Unicode form: rename one", twin)
		}
		folded[key] = path
		for _, b := range f.blobs() {
			if size, ok := sizes[b.Digest]; ok && size != b.Size && text == "" {
				text = fmt.Sprintf("has the digest of a file of %d bytes, but size %d", size, b.Size)
			}
			sizes[b.Digest] = b.Size
			if text == "" && b.Size > math.MaxInt64-total {
				text = "sizes add up to more than fits 63 bits"
			}
			if text == "" {
				total += b.Size
			}
		}
		if text != "" {
			errs = append(errs, &PathError{path, text})
			if len(errs) == maxPathErrors {
				break
			}
		}
	}
	if errs != nil {
		return fmt.Errorf("manifest: %w", errors.Join(errs...))
	}
	return nil
}

// checkRules reports the first rule that is wrong.
func (m *Manifest) checkRules() error {
	if len(m.Headers) > MaxHeaderRules || len(m.Redirects) > MaxRedirects {
		return fmt.Errorf("manifest: %d header rules and %d redirects, the limits are %d and %d", len(m.Headers), len(m.Redirects), MaxHeaderRules, MaxRedirects)
	}
	for i := range m.Headers {
		if text := m.Headers[i].check(); text != "" {
			return fmt.Errorf("manifest: %s", text)
		}
	}
	for i := range m.Redirects {
		if text := m.Redirects[i].check(); text != "" {
			return fmt.Errorf("manifest: %s", text)
		}
	}
	return nil
}

// foldPath is the form in which twins are equal.
func foldPath(fold cases.Caser, path string) string {
	for i := range len(path) {
		if path[i] >= utf8.RuneSelf {
			return norm.NFC.String(fold.String(norm.NFD.String(path)))
		}
	}
	return strings.ToLower(path)
}

// checkPath says what is wrong with a path, or nothing.
func checkPath(path string) string {
	switch {
	case path == "":
		return "empty"
	case len(path) > MaxPathBytes:
		return fmt.Sprintf("%d bytes, the limit is %d", len(path), MaxPathBytes)
	case !utf8.ValidString(path):
		return "not UTF-8"
	case strings.ContainsFunc(path, unicode.IsControl):
		return "has a control character"
	case strings.ContainsRune(path, '\\'):
		return "has a backslash, which some clients read as a slash"
	case len(path) >= 2 && path[1] == ':' && (path[0]|0x20) >= 'a' && (path[0]|0x20) <= 'z':
		return "begins with a drive letter"
	case !norm.NFC.IsNormalString(path):
		return "not in Unicode NFC"
	}
	for segment := range strings.SplitSeq(path, "/") {
		if text := checkSegment(segment); text != "" {
			return text
		}
		// A second decoder behind us would see this: "%2e%2e" is "..".
		if again, err := url.PathUnescape(segment); err == nil && again != segment {
			if again == "." || again == ".." || strings.ContainsAny(again, "/\\") || strings.ContainsFunc(again, unicode.IsControl) {
				return fmt.Sprintf("segment %.80q decodes to %.80q when decoded twice", segment, again)
			}
		}
	}
	return ""
}

func checkSegment(segment string) string {
	switch {
	case segment == "":
		return "has an empty segment: no slash at either end, no two together"
	case segment == "." || segment == "..":
		return fmt.Sprintf("has a segment %q", segment)
	case strings.HasSuffix(segment, ".") || strings.HasSuffix(segment, " "):
		return fmt.Sprintf("segment %.80q ends in a dot or a space, which some disks drop", segment)
	}
	return ""
}

func checkFile(f File) string {
	switch {
	case f.Size < 0:
		return fmt.Sprintf("size %d", f.Size)
	case f.Digest.IsZero():
		return "no digest"
	case f.Class != Immutable && f.Class != Document && f.Class != Asset:
		return fmt.Sprintf("class %.40q: want %s, %s or %s", f.Class, Immutable, Document, Asset)
	case len(f.Type) > maxTypeBytes || !validType(f.Type):
		return fmt.Sprintf("type %.80q is not a Content-Type", f.Type)
	}
	return checkVariants(&f)
}

// validType accepts type "/" subtype with anything printable behind it: it
// becomes a field value, so that no control character may pass.
func validType(s string) bool {
	main, rest, ok := strings.Cut(s, "/")
	if !ok || main == "" || rest == "" || s != strings.TrimSpace(s) {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return !strings.ContainsAny(main, " ;,\"")
}
