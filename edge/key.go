package edge

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

const (
	// maxTargetBytes bounds a request target (RFC 9112 §3 asks for 8,000).
	maxTargetBytes = 8192
	// maxHostBytes bounds an authority: the longest domain name and a port.
	maxHostBytes = 253 + 6
)

// target is what a request asks for, from one parse: routing, key, log and the
// request to the origin all read it, so that no two of them can differ.
type target struct {
	tls       bool
	host      string // lower case, no port, no trailing dot
	authority string // host, and the port when it is not the scheme's own
	path      string // as sent: starts with "/", never decoded (but see escapeStray)
	query     string // as sent, with its "?"; "" for none
}

// leavePreview makes t one of the site that the preview is of: what a preview
// does not have itself comes from the same origin and the same store.
func (t *target) leavePreview(channel string) {
	t.host, t.authority = t.host[len(channel)+1:], t.authority[len(channel)+1:]
}

// refused is a request that is answered with an error of our own.
type refused struct {
	status int
	why    string
}

func (r *refused) Error() string { return r.why }

func refuse(status int, format string, args ...any) error {
	return &refused{status, fmt.Sprintf(format, args...)}
}

// parseTarget makes a target of the request line's target and the Host field
// (RFC 9112 §3.2). The authority of an absolute-form wins over Host.
func parseTarget(raw, host string, tls bool) (target, error) {
	if len(raw) > maxTargetBytes {
		return target{}, refuse(http.StatusRequestURITooLong, "the request target has more than %d bytes", maxTargetBytes)
	}
	t := target{tls: tls}
	if raw != "" && raw[0] != '/' {
		rest, isTLS, ok := cutScheme(raw)
		if !ok {
			return target{}, refuse(http.StatusBadRequest, "the request target is no path and no http URI")
		}
		if isTLS != tls {
			return target{}, refuse(http.StatusMisdirectedRequest, "the scheme of the request target is not that of the connection")
		}
		i := strings.IndexAny(rest, "/?")
		if i < 0 {
			i = len(rest)
		}
		host, raw = rest[:i], rest[i:]
		if raw == "" || raw[0] == '?' {
			raw = "/" + raw
		}
	}
	if err := t.setAuthority(host); err != nil {
		return target{}, err
	}
	if err := t.setResource(raw); err != nil {
		return target{}, err
	}
	return t, nil
}

// setResource checks path and query; t has none yet.
func (t *target) setResource(raw string) error {
	if i := strings.IndexByte(raw, '?'); i >= 0 {
		raw, t.query = raw[:i], raw[i:]
	}
	strays, err := checkPath(raw)
	if err != nil {
		return err
	}
	if t.path = raw; strays {
		t.path = escapeStray(raw)
	}
	for i := range len(t.query) {
		if c := t.query[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return refuse(http.StatusBadRequest, "the query holds a byte that a URI cannot hold")
		}
	}
	return nil
}

func cutScheme(raw string) (rest string, tls, ok bool) {
	if len(raw) >= 7 && strings.EqualFold(raw[:7], "http://") {
		return raw[7:], false, true
	}
	if len(raw) >= 8 && strings.EqualFold(raw[:8], "https://") {
		return raw[8:], true, true
	}
	return "", false, false
}

// setAuthority checks and normalises host[:port] (RFC 9110 §4.2.3, §7.2).
// User information is refused (§4.2.4).
func (t *target) setAuthority(s string) error {
	if s == "" || len(s) > maxHostBytes {
		return refuse(http.StatusBadRequest, "the host is empty or too long")
	}
	host, port := s, ""
	if s[0] == '[' {
		i := strings.IndexByte(s, ']')
		if i < 0 {
			return refuse(http.StatusBadRequest, "the host is malformed")
		}
		if a, err := netip.ParseAddr(s[1:i]); err != nil || !a.Is6() || a.Zone() != "" {
			return refuse(http.StatusBadRequest, "the host is malformed")
		}
		host, port = s[:i+1], s[i+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i:]
	}
	if port != "" {
		n, ok := parsePort(port[1:])
		if port[0] != ':' || !ok {
			return refuse(http.StatusBadRequest, "the port is malformed")
		}
		if n == 0 || n == 80 && !t.tls || n == 443 && t.tls {
			port = ""
		}
	}
	host = strings.TrimSuffix(lower(host), ".")
	if host == "" || host[0] != '[' && !validHostName(host) {
		return refuse(http.StatusBadRequest, "the host is malformed")
	}
	t.host = host
	if port == "" {
		t.authority = host
	} else {
		t.authority = host + port
	}
	return nil
}

// parsePort reads a port; the empty one is 0 (RFC 3986 §3.2.3). A leading
// zero is refused: it would be a second spelling of the same authority.
func parsePort(s string) (int, bool) {
	if s == "" {
		return 0, true
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || i == 0 && s[i] == '0' || i > 4 {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, n <= 65535
}

func validHostName(s string) bool {
	label := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '.':
			if label == 0 {
				return false
			}
			label = -1
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return true
}

// lower is strings.ToLower for ASCII; it allocates only when it must.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

// checkPath refuses a path that two parsers could read differently: bytes
// that a URI cannot hold, a broken escape, an encoded NUL, and dot segments,
// plain or encoded. Clients remove dot segments before they ask (RFC 3986
// §5.2.4); what still has them means harm. "%2F" is never decoded. strays says
// that there is something for escapeStray.
func checkPath(p string) (strays bool, err error) {
	if p == "" || p[0] != '/' {
		return false, refuse(http.StatusBadRequest, "the path is empty")
	}
	dots, plain := 0, true // of the segment so far: its dots, and that it has nothing else
	for i := 1; i <= len(p); i++ {
		for i < len(p) && pathOctets[p[i]] == ordinary { // nearly all are
			i, plain = i+1, false
		}
		c := byte('/') // the end ends a segment too
		if i < len(p) {
			c = p[i]
		}
		switch {
		case c == '%':
			if i+2 >= len(p) || unhex(p[i+1]) < 0 || unhex(p[i+2]) < 0 {
				return false, refuse(http.StatusBadRequest, "the path has a broken %% escape")
			}
			c = byte(unhex(p[i+1])<<4 | unhex(p[i+2]))
			i += 2
			if c == 0 {
				return false, refuse(http.StatusBadRequest, "the path has an encoded NUL")
			}
		case c <= ' ', c >= 0x7f, c == '#', c == '\\':
			return false, refuse(http.StatusBadRequest, "the path holds a byte that a URI cannot hold")
		case pathOctets[c] == stray:
			strays = true
		}
		switch c {
		case '/', '\\', ';':
			// Origins that decode a separator, or cut parameters off a segment,
			// see the segment end here.
			if plain && (dots == 1 || dots == 2) {
				return false, refuse(http.StatusBadRequest, "the path has a dot segment")
			}
			dots, plain = 0, true
		case '.':
			dots++
		default:
			plain = false
		}
	}
	return strays, nil
}

// Kinds of octets in a path, for those who pass the ordinary ones quickly.
const (
	special  = iota // checkPath looks closer
	ordinary        // it stands for itself, and ends nothing
	stray           // escapeStray's, and special
)

var pathOctets = func() (t [256]uint8) {
	for c := '!'; c < 0x7f; c++ {
		switch {
		case strings.ContainsRune("\"<>^`{|}", c):
			t[c] = stray
		case !strings.ContainsRune("/.%;#\\", c):
			t[c] = ordinary
		}
	}
	return t
}()

// escapeStray percent-encodes what RFC 3986 allows in no path and clients send
// all the same, as net/url would on the way to the origin: so that key and
// origin see one spelling.
func escapeStray(p string) string {
	var b strings.Builder
	for i := range len(p) {
		if c := p[i]; pathOctets[c] == stray {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// scheme of the target's URI.
func (t *target) scheme() string {
	if t.tls {
		return "https"
	}
	return "http"
}

// origin of the target's URI (RFC 6454): scheme and authority.
func (t *target) origin() string { return t.scheme() + "://" + t.authority }

// appendKey appends the primary cache key (RFC 9111 §2): the target's URI,
// exactly as the origin will see it. The method is not in it: only what GET
// brought is stored.
func (t *target) appendKey(dst []byte) []byte {
	dst = append(dst, t.scheme()...)
	dst = append(dst, "://"...)
	dst = append(dst, t.authority...)
	dst = append(dst, t.path...)
	return append(dst, t.query...)
}

func (t *target) key() string {
	return string(t.appendKey(make([]byte, 0, 8+len(t.authority)+len(t.path)+len(t.query))))
}

// resource names what a purge by URL hits: host, path and query, whatever
// the scheme and port.
func (t *target) appendResource(dst []byte) []byte {
	dst = append(dst, t.host...)
	dst = append(dst, t.path...)
	return append(dst, t.query...)
}

// url is the target for net/http's client side. Opaque keeps the path and
// query byte for byte.
func (t *target) url() *url.URL {
	u := &url.URL{Scheme: t.scheme(), Host: t.authority, RawQuery: strings.TrimPrefix(t.query, "?")}
	u.ForceQuery = t.query == "?"
	path, err := url.PathUnescape(t.path)
	if err != nil { // checkPath has seen to it
		path = t.path
	}
	u.Path, u.RawPath = path, t.path
	return u
}

// parseURL makes a target of a URL that an operator typed, for a purge.
func parseURL(s string) (target, error) {
	_, tls, ok := cutScheme(s)
	if !ok {
		return target{}, fmt.Errorf("purge: %q is no http or https URL: write it as http://host/path", s)
	}
	s, _, _ = strings.Cut(s, "#")
	t, err := parseTarget(s, "", tls)
	if err != nil {
		return target{}, fmt.Errorf("purge: %q: %w", s, err)
	}
	return t, nil
}
