package edge

import (
	"cmp"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

const (
	// replyBytes is how much of an answer is gathered before it is written, and
	// what one write of a body is copied for.
	replyBytes = 64 << 10
	// shortBody is what a body without a length may have for one to be found: an
	// answer that ends within it needs no chunks.
	shortBody = 2 << 10
)

// responseWriter is the ResponseWriter of what the loop answers by all rules. It frames as
// net/http does (RFC 9112 §6): by the length that the handler declares; else by
// that of a body that is short and not flushed; else by chunks.
type responseWriter struct {
	c        *conn
	header   http.Header
	status   int // of the final head; 0: there is none
	composed bool
	bodyless bool // no body follows the head, whatever it says
	chunked  bool
	close    bool   // the connection ends with it
	left     int64  // of the declared length; -1: none is
	short    []byte // the start of a body, till its length is known
	err      error  // of a write
	// leads: the exchange carries out a fetch that others may wait for. Interim heads
	// then go to a goroutine by heads, and wrote tells its end.
	leads bool
	heads chan []byte
	wrote chan error
}

// Header implements http.ResponseWriter.
func (w *responseWriter) Header() http.Header {
	if w.header == nil { // most answers are packed and have none
		w.header = make(http.Header, 16)
	}
	return w.header
}

// WriteHeader implements http.ResponseWriter. An interim head goes out at once.
func (w *responseWriter) WriteHeader(status int) {
	switch {
	case w.status != 0:
	case status < 200:
		d := w.c.desk
		d.out = appendStatusLine(d.out, status)
		w.appendFields()
		d.out = append(d.out, "\r\n"...)
		if !w.leads {
			w.flush()
		} else {
			w.aside(slices.Clone(d.out))
			d.out = d.out[:0]
		}
	default:
		w.status = status
		w.bodyless = w.bodyless || !bodyAllowed(status)
		if lines := w.header["Content-Length"]; len(lines) == 1 && bodyAllowed(status) {
			if n, err := strconv.ParseInt(lines[0], 10, 64); err == nil && n >= 0 {
				w.left = n
			}
		}
	}
}

// aside writes an interim head without waiting for the client: those who wait for
// the fetch would wait for it too. What it is too slow for is dropped.
func (w *responseWriter) aside(head []byte) {
	if w.heads == nil {
		w.heads, w.wrote = make(chan []byte, maxInterim), make(chan error, 1)
		go func() {
			var err error
			for head := range w.heads {
				if err == nil {
					_, err = w.c.Write(head)
				}
			}
			w.wrote <- err
		}()
	}
	select {
	case w.heads <- head:
	default:
	}
}

// rejoin waits for the interim heads that are still going out.
func (w *responseWriter) rejoin() {
	if w.leads = false; w.heads != nil {
		close(w.heads)
		w.err = cmp.Or(w.err, <-w.wrote)
		w.heads = nil
	}
}

// Write implements http.ResponseWriter.
func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.bodyless:
		return 0, http.ErrBodyNotAllowed
	case w.left >= 0 && int64(len(p)) > w.left:
		return 0, http.ErrContentLength
	}
	if !w.composed && w.left < 0 && len(w.short)+len(p) <= shortBody {
		w.short = append(w.short, p...)
		return len(p), nil
	}
	w.compose()
	if w.add(p); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// add puts octets of the body behind what is to be written. What would not fit
// goes out without a copy.
func (w *responseWriter) add(p []byte) {
	if len(p) == 0 {
		return
	}
	d := w.c.desk
	if w.chunked {
		d.out = strconv.AppendInt(d.out, int64(len(p)), 16)
		d.out = append(d.out, "\r\n"...)
	}
	if len(d.out)+len(p) <= replyBytes {
		d.out = append(d.out, p...)
	} else if w.flush(); w.err == nil {
		_, w.err = w.c.Write(p)
	}
	if w.chunked {
		d.out = append(d.out, "\r\n"...)
	}
	if w.left >= 0 {
		w.left -= int64(len(p))
	}
}

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.compose()
	w.flush()
	return w.err
}

func (w *responseWriter) flush() {
	d := w.c.desk
	if w.err == nil && len(d.out) > 0 {
		_, w.err = w.c.Write(d.out)
	}
	d.out = d.out[:0]
}

// compose writes the final head down, and what there is of the body.
func (w *responseWriter) compose() {
	if w.composed {
		return
	}
	w.composed = true
	w.chunked = !w.bodyless && w.left < 0
	d := w.c.desk
	d.out = appendStatusLine(d.out, w.status)
	if w.c.last || w.c.s.last() {
		w.Header()["Connection"] = []string{"close"}
	}
	w.appendFields()
	if _, ok := w.header["Date"]; !ok {
		d.out = append(d.out, "Date: "...)
		d.out = w.c.s.e.now().UTC().AppendFormat(d.out, http.TimeFormat)
		d.out = append(d.out, "\r\n"...)
	}
	switch {
	case w.left >= 0:
		d.out = append(d.out, "Content-Length: "...)
		d.out = strconv.AppendInt(d.out, w.left, 10)
		d.out = append(d.out, "\r\n"...)
	case w.chunked:
		d.out = append(d.out, "Transfer-Encoding: chunked\r\n"...)
	}
	d.out = append(d.out, "\r\n"...)
	w.add(w.short)
	w.short = nil
}

// appendFields appends the handler's fields, sorted, but for those that frame and
// the trailer.
func (w *responseWriter) appendFields() {
	var room [32]string
	names := room[:0]
	for name := range w.header {
		switch {
		case name == "Content-Length", name == "Transfer-Encoding", strings.HasPrefix(name, http.TrailerPrefix):
		case w.status == http.StatusNotModified && name == "Content-Type":
		case isToken(name):
			names = append(names, name)
		}
	}
	slices.Sort(names)
	d := w.c.desk
	for _, name := range names {
		for _, v := range w.header[name] {
			d.out = appendField(d.out, name, textproto.TrimString(v))
			w.close = w.close || name == "Connection" && strings.EqualFold(v, "close")
		}
	}
}

// finish ends the answer. It reports whether the connection can carry another.
func (w *responseWriter) finish() bool {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if trailer := w.trailer(); !w.composed && !w.bodyless && w.left < 0 && len(trailer) == 0 {
		w.left = int64(len(w.short))
	}
	w.compose()
	if w.chunked {
		d := w.c.desk
		d.out = append(d.out, "0\r\n"...)
		for _, name := range w.trailer() {
			for _, v := range w.header[http.TrailerPrefix+name] {
				d.out = appendField(d.out, name, textproto.TrimString(v))
			}
		}
		d.out = append(d.out, "\r\n"...)
	}
	w.flush()
	whole := w.err == nil && (w.bodyless || w.left <= 0)
	w.c.lingers = whole && w.close
	return whole && !w.close
}

// trailer returns the names of the trailer's fields, sorted.
func (w *responseWriter) trailer() []string {
	var names []string
	for key := range w.header {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok && isToken(name) && len(w.header[key]) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
