package edge

import (
	"net/http"
	"slices"
	"strconv"
)

// pack writes down the heads of the answers that Hit gives with o: status
// line and fields, without Age, Cache-Status, Content-Length and the end.
func (o *stored) pack() {
	var some [32]string
	names, length := some[:0], 64
	for name, lines := range o.header {
		for _, v := range lines {
			length += len(name) + len(v) + 4
		}
		names = append(names, name)
	}
	slices.Sort(names)
	both := make([]byte, 2*length)
	o.head = appendStatusLine(both[:0:length], o.status)
	o.head304 = appendStatusLine(both[length:length], http.StatusNotModified)
	for _, name := range names {
		if name == vendorControl {
			continue
		}
		if name == "Accept-Ranges" && o.status == http.StatusOK {
			continue // ranges of what is stored are ours to answer (RFC 9110 §14.3)
		}
		for _, v := range o.header[name] {
			o.head = appendField(o.head, name, v)
			if !slices.Contains(contentFields, name) && (name != "Last-Modified" || o.etag == "") {
				o.head304 = appendField(o.head304, name, v)
			}
		}
	}
	if o.status == http.StatusOK {
		o.head = appendField(o.head, "Accept-Ranges", "bytes")
	}
}

// statusLine200 is the status line of most answers.
const statusLine200 = "HTTP/1.1 200 OK\r\n"

func appendStatusLine(dst []byte, status int) []byte {
	if status == http.StatusOK {
		return append(dst, statusLine200...)
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(status)...)
	return append(dst, "\r\n"...)
}

// appendField appends a field line. A byte that would end it early, which
// net/http does not let through either, becomes a space.
func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	for i := range len(value) {
		c := value[i]
		if c == '\r' || c == '\n' || c == 0 {
			c = ' '
		}
		dst = append(dst, c)
	}
	return append(dst, "\r\n"...)
}
