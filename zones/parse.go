package zones

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

const (
	// DefaultMaxRecords bounds one zone: a large top-level domain. Others have at
	// most about a million names.
	DefaultMaxRecords = 20_000_000
	// maxZoneBytes bounds the text of one zone, its $INCLUDEs counted in: ten
	// million records of fifty octets.
	maxZoneBytes = 512 << 20
	// maxIncludes bounds the $INCLUDEs of one zone, since a few files that
	// include each other many times over cost much and say nothing.
	maxIncludes = 10_000
	// maxFindings bounds the errors, and the warnings, that a Load reports. Who
	// has a thousand wants the first ones.
	maxFindings = 1000
)

// Options bound a Load.
type Options struct {
	Origin string // the apex; what the file has outside of it is ignored, with a warning
	// MaxRecords bounds the zone, $GENERATE and $INCLUDE counted in; 0 means DefaultMaxRecords.
	MaxRecords int
}

// Load reads the master file at path, with $INCLUDE confined to its folder,
// compiles it and lints it. The zone is nil when any finding is an error.
func Load(path string, o Options) (*Zone, []Finding) {
	r := load(path, o)
	return r.zone, r.findings
}

// Parse is Load for text at hand; name is used in findings. $INCLUDE is refused.
func Parse(name string, text []byte, o Options) (*Zone, []Finding) {
	l := newLoader("", nil)
	r := l.run(name, text, nil, o)
	return r.zone, r.findings
}

// loaded is what a load gave.
type loaded struct {
	zone     *Zone
	findings []Finding
	files    []seenFile // every file that was opened or that could not be
	hash     textHash
	unread   bool // the file itself could not be read
}

// seenFile is a file that a load depends on. info is as it was before the
// first octet was read; nil when there was no file.
type seenFile struct {
	path string
	info fs.FileInfo
	sum  textHash // of its text; zero when it was not read
}

func statFile(path string) seenFile {
	info, err := os.Stat(path)
	if err != nil {
		info = nil
	}
	return seenFile{path: path, info: info}
}

func load(path string, o Options) loaded {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	failed := func(err error) loaded {
		return loaded{findings: []Finding{unreadable(path, err)}, files: []seenFile{statFile(path)}, unread: true}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return failed(err)
	}
	defer root.Close()
	l := newLoader(dir, root.FS())
	// The path itself is the operator's word, and may be a symbolic link to
	// anywhere; what the text includes is not.
	f, info, err := openRegular(path, os.Stat, openFile)
	if err != nil {
		return failed(err)
	}
	l.see(name, info)
	return l.run(name, nil, f, o)
}

func openFile(path string) (fs.File, error) { return os.Open(path) }

func unreadable(path string, err error) Finding {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	f := Finding{File: path, Text: "cannot read the file: " + err.Error()}
	if errors.Is(err, fs.ErrPermission) {
		f.Hint = "let the user that perigee runs as read the file and enter its folder"
	}
	return f
}

// openRegular opens a regular file. It looks before it opens, since opening a
// named pipe waits for who writes into it.
func openRegular(name string, stat func(string) (fs.FileInfo, error), open func(string) (fs.File, error)) (fs.File, fs.FileInfo, error) {
	info, err := stat(name)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("it is not a regular file")
	}
	f, err := open(name)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// readWhole reads a regular file of at most limit octets.
func readWhole(name string, stat func(string) (fs.FileInfo, error), open func(string) (fs.File, error), limit int64) ([]byte, fs.FileInfo, error) {
	f, info, err := openRegular(name, stat, open)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("more than %d octets of zone text", limit)
	}
	return text, info, err
}

// loader reads one zone's text into records.
type loader struct {
	dir  string
	fsys fs.FS // for $INCLUDE; nil refuses it

	open     []*source // the file being read is the last
	left     []*source // that were left during the last step of the parser, innermost first
	bytes    int64
	includes int
	stopped  bool // an error was noted that ends the load
	skip     bool // the next record of the parser is none
	plain    bool // the scanner is off: for tests
	count    int  // records so far

	origin   []byte
	max      int
	files    []seenFile // by record.file
	sum      hash.Hash
	findings []Finding
	errors   int // of all findings, also those that there was no room for
	warnings int
	more     int // findings without room

	b      *builder
	buf    []byte
	zeroes map[uint16]int // length of the RDATA of a record without any, by type
}

func newLoader(dir string, fsys fs.FS) *loader {
	return &loader{dir: dir, fsys: fsys, sum: sha256.New(), zeroes: map[uint16]int{}}
}

// packBuffers hold one record each; of many small zones each needs one, one
// after the other.
var packBuffers = sync.Pool{New: func() any {
	b := make([]byte, 1<<16+maxNameBytes+recordHeader)
	return &b
}}

// run reads, compiles and lints.
func (l *loader) run(name string, text []byte, file fs.File, o Options) loaded {
	l.max = o.MaxRecords
	if l.max <= 0 {
		l.max = DefaultMaxRecords
	}
	buf := packBuffers.Get().(*[]byte)
	defer packBuffers.Put(buf)
	l.buf = *buf
	size := int64(len(text))
	main := l.push(name, text)
	if file != nil {
		main.file, main.sum = file, sha256.New()
		defer main.closeFile(nil)
		if info := l.files[0].info; info != nil {
			size = info.Size()
			main.piece = int(min(size+1, chunk)) // one more, to see the end
		}
	}
	out := loaded{}
	origin, err := ParseName(o.Origin)
	if err != nil {
		l.report(Finding{File: l.shown(name), Text: "origin: " + err.Error()})
	} else {
		l.origin = appendLower(nil, origin)
		l.b = newBuilder(l, &Zone{text: FormatName(l.origin), origin: l.origin}, size)
		main.scanner = newScanner(l.origin)
		main.scanner.on = !l.plain
		l.read()
		if l.stopped {
			l.b.free()
		} else {
			out.zone = l.compile()
		}
	}
	if l.more > 0 {
		l.findings = append(l.findings, Finding{File: l.shown(name), Warning: true, Text: fmt.Sprintf("and %d findings more", l.more)})
	}
	if l.errors > 0 {
		out.zone = nil
	}
	out.findings, out.files = l.findings, l.files
	l.sum.Sum(out.hash[:0])
	return out
}

// report notes a finding. Errors and warnings have room of their own, so that
// no flood of warnings hides an error.
func (l *loader) report(f Finding) {
	room := &l.errors
	if f.Warning {
		room = &l.warnings
	}
	if *room++; *room > maxFindings {
		l.more++
		return
	}
	l.findings = append(l.findings, f)
}

// stop notes an error after which nothing more is read.
func (l *loader) stop(name string, line int, text, hint string) {
	if !l.stopped {
		l.stopped = true
		l.report(Finding{File: l.shown(name), Line: line, Text: text, Hint: hint})
	}
}

// shown is the path of a file in the zone's folder as findings have it.
func (l *loader) shown(name string) string {
	if l.fsys == nil {
		return name
	}
	return filepath.Join(l.dir, filepath.FromSlash(name))
}

func (l *loader) push(name string, text []byte) *source {
	s := newSource(l, name, text)
	l.open = append(l.open, s)
	l.see(name, nil)
	l.bytes += int64(len(text))
	if text != nil {
		l.digest(name, sha256.Sum256(text))
	}
	return s
}

// digest notes the hash of a file that has been read.
func (l *loader) digest(name string, sum textHash) {
	l.sum.Write(sum[:])
	shown := l.shown(name)
	l.files[slices.IndexFunc(l.files, func(f seenFile) bool { return f.path == shown })].sum = sum
}

// see notes that the zone depends on a file.
func (l *loader) see(name string, info fs.FileInfo) {
	shown := l.shown(name)
	if !slices.ContainsFunc(l.files, func(f seenFile) bool { return f.path == shown }) {
		l.files = append(l.files, seenFile{path: shown, info: info})
	}
}

// leave is called when the parser closes a file.
func (l *loader) leave(s *source) {
	if i := slices.Index(l.open, s); i > 0 {
		l.open = l.open[:i]
		l.left = append(l.left, s)
	}
}

// Open opens an $INCLUDE: the loader is the fs.FS of its parser.
func (l *loader) Open(name string) (fs.File, error) {
	if l.includes++; l.includes > maxIncludes {
		return nil, fmt.Errorf("more than %d files included", maxIncludes)
	}
	stat := func(name string) (fs.FileInfo, error) { return fs.Stat(l.fsys, name) }
	text, info, err := readWhole(name, stat, l.fsys.Open, maxZoneBytes-l.bytes)
	if err != nil {
		// The zone depends on it all the same: its coming, or its getting
		// readable, is a change.
		l.see(name, statFile(l.shown(name)).info)
		return nil, err
	}
	l.see(name, info)
	return l.push(name, text), nil
}

// read runs the parser over the open file.
func (l *loader) read() {
	main := l.open[0]
	p := dns.NewZoneParser(main, FormatName(l.origin), main.name)
	if l.fsys != nil {
		p.SetIncludeAllowed(true)
		p.SetIncludeFS(l)
	}
	for !l.stopped {
		l.left = l.left[:0]
		rr, ok := p.Next()
		if l.stopped {
			return
		}
		if !ok {
			if err := p.Err(); err != nil {
				l.syntax(err)
			}
			return
		}
		if l.skip { // a source has made it up for the parser
			l.skip = false
			continue
		}
		src := l.open[len(l.open)-1]
		if err := l.add(rr, src); err != nil {
			l.report(Finding{File: l.shown(src.name), Line: src.start, Text: err.Error(), Hint: hintOf(err)})
		}
		l.counted(src, src.start)
	}
}

// counted counts a record. Those that are ignored or bad count too: they cost
// as much to read.
func (l *loader) counted(src *source, line int) {
	if l.count++; l.count > l.max {
		l.stop(src.name, line, fmt.Sprintf("more than %d records in the zone", l.max), "split the zone, or look for a $GENERATE or $INCLUDE that runs wild")
	}
}

// take gives a record that the scanner read to the builder.
func (l *loader) take(src *source, owner []byte, r record, rdata []byte) {
	l.b.add(owner, r, rdata)
	l.counted(src, int(r.line))
}

// syntax turns what the parser says into a finding. Its line numbers do not
// know of $GENERATE; ours do.
func (l *loader) syntax(err error) {
	src := l.open[len(l.open)-1]
	text := err.Error()
	var pe *dns.ParseError
	if errors.As(err, &pe) {
		for _, s := range l.left {
			if strings.HasPrefix(text, s.name+": ") {
				src = s
				break
			}
		}
		text = strings.TrimPrefix(strings.TrimPrefix(text, src.name+": "), "dns: ")
		if i := strings.LastIndex(text, " at line: "); i >= 0 {
			text = text[:i]
		}
	}
	l.stop(src.name, max(1, src.line), text, syntaxHint(text))
}

// cured is an error with its cure.
type cured struct{ text, hint string }

func (c *cured) Error() string { return c.text }

func hintOf(err error) string {
	var c *cured
	if errors.As(err, &c) {
		return c.hint
	}
	return ""
}

// add packs one record and gives it to the builder.
func (l *loader) add(rr dns.RR, src *source) error {
	h := rr.Header()
	typ := dns.Type(h.Rrtype).String()
	src.scanner.took(nil, h.Ttl)
	switch {
	case h.Name == "":
		return &cured{"a " + typ + " record without an owner", "start the line with a name, or @ for the origin"}
	case h.Class != dns.ClassINET:
		return &cured{shownName(h.Name) + " " + typ + " has class " + dns.Class(h.Class).String(), "only class IN is served"}
	case h.Rrtype == 0 || h.Rrtype == dns.TypeOPT || (h.Rrtype >= 128 && h.Rrtype <= 255):
		return &cured{shownName(h.Name) + " has type " + typ + ", which only queries and messages have (RFC 6895 §3.1)", "remove the record"}
	}
	n, err := packInto(rr, l.buf)
	if err != nil {
		return &cured{shownName(h.Name) + " " + typ + ": " + err.Error(), "look at the data of the record: something in it is out of range or not well encoded"}
	}
	own := nameLen(l.buf[:n])
	name, rdata := l.buf[:own], l.buf[own+10:n]
	if l.isBare(rr, len(rdata), src) || !walkRdata(h.Rrtype, rdata, nil) {
		return &cured{shownName(h.Name) + " " + typ + " lacks data, or has data that is not of that type", "complete the record, or remove it"}
	}
	lowered := appendLower(make([]byte, 0, maxNameBytes), name)
	if !below(lowered, l.origin) {
		l.report(Finding{File: l.shown(src.name), Line: src.start, Warning: true,
			Text: FormatName(name) + " " + typ + " is outside of the zone and is ignored",
			Hint: "remove it, or check $ORIGIN and the final dot of the name"})
		return nil
	}
	if h.Ttl > maxTTL {
		l.report(Finding{File: l.shown(src.name), Line: src.start, Warning: true,
			Text: fmt.Sprintf("%s %s has TTL %d, which counts as 0 (RFC 2181 §8)", FormatName(name), typ, h.Ttl),
			Hint: fmt.Sprintf("the largest TTL is %d", maxTTL)})
		h.Ttl = 0
	}
	if h.Rrtype == typeSOA && len(name) != len(l.origin) {
		return &cured{"SOA at " + FormatName(name) + ", which is not the apex",
			"the origin of this file is " + l.b.z.text + ": check the name of the file or of the zone in perigee.toml, and $ORIGIN"}
	}
	owner := name[:len(name)-len(l.origin)]
	src.scanner.took(owner, src.scanner.ttl)
	l.b.add(owner, record{pos: pos{uint32(src.start), l.fileIndex(src)}, rrtype: h.Rrtype, ttl: h.Ttl}, rdata)
	return nil
}

// shownName is a name of the parser's as we show names.
func shownName(name string) string {
	if wire, err := ParseName(name); err == nil {
		return FormatName(wire)
	}
	return name
}

// maxTTL is the largest TTL (RFC 2181 §8).
const maxTTL = 1<<31 - 1

func (l *loader) fileIndex(src *source) uint16 {
	if len(l.open) == 1 {
		return 0
	}
	shown := l.shown(src.name)
	return uint16(slices.IndexFunc(l.files, func(f seenFile) bool { return f.path == shown }))
}

// packInto packs a record, uncompressed, into buf. Some types of the library
// panic on data that their own parser let through (as in CVE-2018-17419); to
// whoever loads a zone that is a bad record on a known line, not a crash.
func packInto(rr dns.RR, buf []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			n, err = 0, fmt.Errorf("cannot be packed (%v)", p)
		}
	}()
	if n, err = dns.PackRR(rr, buf, 0, nil, false); err != nil {
		return 0, errors.New(strings.TrimPrefix(err.Error(), "dns: "))
	}
	return n, nil
}

// isBare reports whether a record has a type and nothing after it, which the
// parser lets through for the sake of dynamic updates.
func (l *loader) isBare(rr dns.RR, size int, src *source) bool {
	h := rr.Header()
	if u, ok := rr.(*dns.RFC3597); ok {
		// "\# 0" is data of length zero; nothing at all is not.
		return u.Rdata == "" && !bytes.Contains(src.entry(), []byte(`\#`))
	}
	construct, ok := dns.TypeToRR[h.Rrtype]
	if !ok || h.Rrtype == dns.TypeAPL || h.Rrtype == dns.TypeNULL {
		return false // nothing is good data of these two
	}
	zero := construct()
	*zero.Header() = *h
	length, ok := l.zeroes[h.Rrtype]
	if !ok {
		var buf [1 << 10]byte
		if n, err := packInto(zero, buf[:]); err == nil {
			length = n - nameLen(buf[:]) - 10
		}
		l.zeroes[h.Rrtype] = length
	}
	return length == size && reflect.DeepEqual(rr, zero)
}
