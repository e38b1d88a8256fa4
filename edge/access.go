package edge

import (
	"encoding/binary"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
	"unsafe"

	"perigee.example/internal/logqueue"
)

// maxLogField bounds one value in the log, in octets.
const maxLogField = 2048

// LineLog is an AccessLog that writes a line for each request. Who logs a
// request writes its line down; what has gathered goes to the writer a hundred
// times a second. When a writer is so slow that too much gathers, lines are
// dropped and counted; requests never wait.
type LineLog struct {
	lines    *logqueue.Lines
	combined bool
}

// NewJSONLog starts a log that writes one JSON object a line to w, from one
// goroutine, until Close.
func NewJSONLog(w io.Writer) *LineLog {
	return &LineLog{logqueue.NewLines(w), false}
}

// NewCombinedLog is NewJSONLog in the combined format of NCSA and Apache.
func NewCombinedLog(w io.Writer) *LineLog {
	return &LineLog{logqueue.NewLines(w), true}
}

// form appends the line of a record; last is that of the line before in b, if its
// record is there.
func (l *LineLog) form(b []byte, r *AccessRecord, last *lastLine) []byte {
	if l.combined {
		return r.appendCombined(b)
	}
	return r.appendJSON(b, last)
}

// lastLine is a record, and where in its line the path begins and ends: what the next
// one has in common with it is copied. Requests that came in one piece have all but
// the path in common, and to write that down was a quarter of what they cost.
type lastLine struct {
	record          *AccessRecord // nil: there is none
	start, from, to int
}

// sameBefore and sameAfter report that two records have what stands before, and what
// stands after the path in common.
func (r *AccessRecord) sameBefore(o *AccessRecord) bool {
	return o != nil && r.Time == o.Time && r.Client == o.Client && r.Site == o.Site && r.Method == o.Method && r.Host == o.Host
}

func (r *AccessRecord) sameAfter(o *AccessRecord) bool {
	return o != nil && r.Status == o.Status && r.Bytes == o.Bytes && r.Duration == o.Duration && r.Cache == o.Cache && r.Release == o.Release &&
		r.CacheStatus == o.CacheStatus && r.Referer == o.Referer && r.UserAgent == o.UserAgent && r.TLS == o.TLS
}

// Log implements AccessLog.
func (l *LineLog) Log(r *AccessRecord) {
	line := logLines.Get().(*[]byte)
	var none lastLine
	*line = l.form((*line)[:0], r, &none)
	l.lines.Put(*line, 1)
	logLines.Put(line)
}

// logLines are for lines in the making.
var logLines = sync.Pool{New: func() any { return new([]byte) }}

// Dropped counts the records that are missing from the log: those for which
// there was no room, and those whose writing failed.
func (l *LineLog) Dropped() uint64 { return l.lines.Dropped() }

// Close writes what has gathered and ends the log. Nothing may log after it.
func (l *LineLog) Close() { l.lines.Close() }

// clone is a copy whose strings are its own.
func (r *AccessRecord) clone() *AccessRecord {
	c := *r
	for _, s := range []*string{&c.Client, &c.Site, &c.Method, &c.Host, &c.Path, &c.Referer, &c.UserAgent, &c.CacheStatus} {
		*s = strings.Clone(*s)
	}
	return &c
}

// appendJSON appends the record as a line of JSON. Fields that are empty are
// left out, but for the status and the octets. last is that of the line that b ends
// with, and becomes this one's.
func (r *AccessRecord) appendJSON(b []byte, last *lastLine) []byte {
	old, start, end := *last, len(b), len(b)
	if r.sameBefore(old.record) {
		b = append(b, b[old.start:old.from]...)
	} else {
		b = r.appendBefore(b)
	}
	from := len(b)
	b = appendText(b, `,"path":"`, r.Path)
	to := len(b)
	if r.sameAfter(old.record) {
		b = append(b, b[old.to:end]...)
	} else {
		b = r.appendAfter(b)
	}
	*last = lastLine{r, start, from, to}
	return b
}

func (r *AccessRecord) appendBefore(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = appendStamp(b, r.Time)
	b = append(b, '"')
	b = r.appendOurs(b, `,"client":"`, r.Client)
	b = appendText(b, `,"site":"`, r.Site)
	b = r.appendOurs(b, `,"method":"`, r.Method)
	return r.appendOurs(b, `,"host":"`, r.Host)
}

func (r *AccessRecord) appendAfter(b []byte) []byte {
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, `,"bytes":`...)
	b = strconv.AppendInt(b, r.Bytes, 10)
	b = append(b, `,"seconds":`...)
	b = appendSeconds(b, r.Duration)
	b = r.appendOurs(b, `,"cache":"`, r.Cache)
	b = appendText(b, `,"release":"`, r.Release)
	b = r.appendOurs(b, `,"cache_status":"`, r.CacheStatus)
	b = appendText(b, `,"referer":"`, r.Referer)
	b = appendText(b, `,"agent":"`, r.UserAgent)
	if r.TLS != nil {
		b = appendText(b, `,"tls":"`, tlsVersion(r.TLS.Version))
	}
	return append(b, "}\n"...)
}

// stamp is a second as it is logged. The last one is kept: to write the time
// down was a third of the line.
type stamp struct {
	second int64
	text   string
}

var lastStamp atomic.Pointer[stamp]

func appendStamp(b []byte, t time.Time) []byte {
	s := lastStamp.Load()
	if second := t.Unix(); s == nil || s.second != second {
		s = &stamp{second, t.UTC().Format("2006-01-02T15:04:05")}
		lastStamp.Store(s)
	}
	b = append(b, s.text...)
	b = appendMicros(b, t.Nanosecond()/1000)
	return append(b, 'Z')
}

// appendSeconds appends a duration to the nearest microsecond.
func appendSeconds(b []byte, d time.Duration) []byte {
	if d < 0 {
		b, d = append(b, '-'), -d
	}
	micros := uint64(d+time.Microsecond/2) / 1000
	b = strconv.AppendUint(b, micros/1e6, 10)
	return appendMicros(b, int(micros%1e6))
}

// appendMicros appends a fraction of six digits.
func appendMicros(b []byte, n int) []byte {
	b = append(b, ".000000"...)
	for i := len(b) - 1; n > 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}

// appendCombined appends the record as a line of the combined format: client,
// two fields that we have nothing for, time, request line, status, octets of the
// body, Referer, User-Agent. What would end a field is escaped as Apache does.
func (r *AccessRecord) appendCombined(b []byte) []byte {
	b = append(b, orDash(r.Client)...)
	b = append(b, " - - ["...)
	b = r.Time.AppendFormat(b, "02/Jan/2006:15:04:05 -0700")
	b = append(b, `] "`...)
	if r.Method == "" {
		b = append(b, '-') // the head was not understood
	} else {
		b = appendEscaped(b, r.Method)
		b = append(b, ' ')
		b = appendEscaped(b, r.Path)
		b = append(b, ' ')
		b = appendEscaped(b, r.Proto)
	}
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, ' ')
	if r.Bytes == 0 {
		b = append(b, '-')
	} else {
		b = strconv.AppendInt(b, r.Bytes, 10)
	}
	for _, v := range []string{r.Referer, r.UserAgent} {
		b = append(b, ` "`...)
		b = appendEscaped(b, orDash(v))
		b = append(b, '"')
	}
	return append(b, '\n')
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// appendEscaped appends s with everything but visible ASCII and blanks as \xHH.
func appendEscaped(b []byte, s string) []byte {
	for _, c := range []byte(s[:min(len(s), maxLogField)]) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

// appendText appends a field whose value is not empty; lead is its name, with all
// that stands before the value.
func appendText(b []byte, lead, v string) []byte {
	if v == "" {
		return b
	}
	if isPlain(v) {
		b = append(append(b, lead...), v...)
		return append(b, '"')
	}
	return appendJSONString(append(b, lead[:len(lead)-1]...), v)
}

// appendOurs is appendText of a value that needs no look if the loop made the record.
func (r *AccessRecord) appendOurs(b []byte, lead, v string) []byte {
	if !r.plain || v == "" {
		return appendText(b, lead, v)
	}
	b = append(append(b, lead...), v...)
	return append(b, '"')
}

// isPlain reports whether a value stands for itself in a JSON string. Nearly all
// do: to look at eight octets at a time, and copy once, made the line of a browser's
// hit a third cheaper.
func isPlain(v string) bool {
	if len(v) > maxLogField {
		return false
	}
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	b := unsafe.Slice(unsafe.StringData(v), len(v))
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		quote, slash, del := w^ones*'"', w^ones*'\\', w^ones*0x7f
		// As in validValue; a borrow may flag a good octet too.
		if (w|(w-ones*' ')|(quote-ones)&^quote|(slash-ones)&^slash|(del-ones)&^del)&tops != 0 && !plainOctets(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return plainOctets(b)
}

func plainOctets(b []byte) bool {
	for _, c := range b {
		if !plainJSON[c] {
			return false
		}
	}
	return true
}

// appendJSONString appends a JSON string in which nothing can move a terminal's
// cursor or end a line: control characters, C1 and DEL included, are escaped,
// and octets that are no UTF-8 become U+FFFD.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	if len(s) > maxLogField {
		s = s[:maxLogField]
	}
	for i := 0; i < len(s); {
		plain := i
		for plain < len(s) && plainJSON[s[plain]] {
			plain++
		}
		if plain > i {
			b = append(b, s[i:plain]...)
			i = plain
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029':
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
		i += n
	}
	return append(b, '"')
}

// plainJSON are the octets that stand for themselves in a JSON string. They are
// nearly all that is logged: to copy runs of them made the line twice as cheap.
var plainJSON = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// secrets knows the query parameters whose values no log shows.
type secrets map[string]bool

// DefaultHide are the parameters whose values are hidden when Config names none.
var DefaultHide = []string{
	"token", "access_token", "id_token", "refresh_token", "auth", "authorization",
	"sig", "signature", "x-amz-signature", "x-amz-security-token", "x-goog-signature",
	"key", "api_key", "apikey", "password", "passwd", "pwd", "secret", "client_secret",
	"code", "session", "sessionid", "jwt", "policy", "hmac",
}

func newSecrets(names []string) secrets {
	if names == nil {
		names = DefaultHide
	}
	s := secrets{}
	for _, name := range names {
		s[strings.ToLower(name)] = true
	}
	return s
}

// path is a path and query without the values of secret parameters.
func (s secrets) path(path, query string) string {
	if len(query) < 2 {
		return path + query
	}
	var b strings.Builder
	b.WriteString(path)
	sep := byte('?')
	for rest := query[1:]; ; {
		i := strings.IndexAny(rest, "&;")
		part := rest
		if i >= 0 {
			part = rest[:i]
		}
		b.WriteByte(sep)
		name, _, has := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(name)
		if has && (err != nil || s[strings.ToLower(plain)]) {
			b.WriteString(name + "=…")
		} else {
			b.WriteString(part)
		}
		if i < 0 {
			return b.String()
		}
		sep, rest = rest[i], rest[i+1:]
	}
}

// shown is a target's URI as the log of events shows it: secrets are no more for
// that log than for the other.
func (e *Edge) shown(t *target) string {
	return t.origin() + e.secrets.path(t.path, t.query)
}

// reference is the value of Referer in the same way.
func (s secrets) reference(referer string) string {
	i := strings.IndexByte(referer, '?')
	if i < 0 {
		return referer
	}
	return s.path(referer[:i], referer[i:])
}
