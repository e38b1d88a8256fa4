package edge

import (
	"bufio"
	"io"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	// accessQueue bounds the records that wait to be written: about a tenth of
	// a second of a busy edge. When the disk is slower, records are dropped and
	// counted; requests never wait for the log.
	accessQueue = 8192
	// maxLogField bounds one value in the log, in octets.
	maxLogField = 2048
)

// JSONLog is an AccessLog that writes one JSON object a line.
type JSONLog struct {
	queue   chan AccessRecord
	done    chan struct{}
	dropped atomic.Uint64
	failed  atomic.Uint64
}

// NewJSONLog starts a log that writes to w from one goroutine, until Close.
func NewJSONLog(w io.Writer) *JSONLog {
	l := &JSONLog{queue: make(chan AccessRecord, accessQueue), done: make(chan struct{})}
	go l.write(w)
	return l
}

// Log implements AccessLog. It never blocks: with a full queue the record is
// dropped and counted.
func (l *JSONLog) Log(r *AccessRecord) {
	select {
	case l.queue <- *r:
	default:
		l.dropped.Add(1)
	}
}

// Dropped counts the records that are missing from the log: those for which
// the queue had no room, and those whose writing failed.
func (l *JSONLog) Dropped() uint64 { return l.dropped.Load() + l.failed.Load() }

// Close writes what is queued and ends the log. Nothing may log after it.
func (l *JSONLog) Close() {
	close(l.queue)
	<-l.done
}

func (l *JSONLog) write(w io.Writer) {
	defer close(l.done)
	out := bufio.NewWriterSize(w, 64<<10)
	var line []byte
	unflushed := uint64(0)
	flush := func() {
		if err := out.Flush(); err != nil {
			l.failed.Add(unflushed)
			out.Reset(w)
		}
		unflushed = 0
	}
	for r := range l.queue {
		line = r.appendJSON(line[:0])
		out.Write(line) // an error stays until the flush
		unflushed++
		if len(l.queue) == 0 || unflushed == accessQueue {
			flush()
		}
	}
	flush()
}

// appendJSON appends the record as a line of JSON. Fields that are empty are
// left out, but for the status and the octets.
func (r *AccessRecord) appendJSON(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = r.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z07:00")
	b = append(b, '"')
	b = appendText(b, "client", r.Client)
	b = appendText(b, "site", r.Site)
	b = appendText(b, "method", r.Method)
	b = appendText(b, "host", r.Host)
	b = appendText(b, "path", r.Path)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, `,"bytes":`...)
	b = strconv.AppendInt(b, r.Bytes, 10)
	b = append(b, `,"seconds":`...)
	b = strconv.AppendFloat(b, r.Duration.Round(time.Microsecond).Seconds(), 'f', 6, 64)
	b = appendText(b, "cache", r.Cache)
	b = appendText(b, "release", r.Release)
	b = appendText(b, "cache_status", r.CacheStatus)
	if r.TLS != nil {
		b = appendText(b, "tls", tlsVersion(r.TLS.Version))
	}
	return append(b, "}\n"...)
}

func appendText(b []byte, name, v string) []byte {
	if v == "" {
		return b
	}
	b = append(b, ",\""...)
	b = append(b, name...)
	b = append(b, "\":"...)
	return appendJSONString(b, v)
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
