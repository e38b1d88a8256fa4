package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that reads "30s", "1m30s", "250ms".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration reads, except signs.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 || b[0] == '+' || b[0] == '-' {
		return fmt.Errorf("%q is not a duration", b)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Size is a number of bytes that reads "256MiB", "1.5GiB" or "0".
type Size int64

// units are the binary ones; the decimal kB and MB are refused, since half of
// those who write them mean the binary ones.
var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText reads a number followed by a unit; "0" needs none.
func (s *Size) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "0" {
		*s = 0
		return nil
	}
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		number = strings.TrimRight(number, " ")
		if number == "" || strings.Trim(number, "0123456789.") != "" {
			break
		}
		f, err := strconv.ParseFloat(number, 64)
		bytes := f * float64(u.bytes)
		if err != nil || bytes >= math.MaxInt64 || bytes != math.Trunc(bytes) {
			break
		}
		*s = Size(bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size", text)
}

func (s Size) String() string {
	for _, u := range units {
		if int64(s) >= u.bytes && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0"
}

func listenAddress(text string) (ap netip.AddrPort, wrong, hint string) {
	ap, err := netip.ParseAddrPort(text)
	switch {
	case err == nil && ap.Addr().IsMulticast():
		return ap, text + " is a multicast address", ""
	case err == nil:
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), "", ""
	case strings.HasPrefix(text, ":"):
		return ap, fmt.Sprintf("%q is not an address and a port", text), fmt.Sprintf("write \"0.0.0.0%s\" for all IPv4 addresses, \"[::]%s\" for all IPv6 addresses", text, text)
	}
	hint = `write an IP address, a colon and a port: "192.0.2.53:53", "[2001:db8::53]:53"`
	if a, err := netip.ParseAddr(text); err == nil && a.Is6() {
		hint = fmt.Sprintf("write the port too: \"[%s]:53\"", text)
	}
	return ap, fmt.Sprintf("%q is not an address and a port", text), hint
}

// handedOut reads an address that DNS answers with.
func handedOut(text string) (a netip.Addr, wrong, hint string) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		hint = `write an IP address without port: "192.0.2.10", "2001:db8:1::10"`
		if ap, err := netip.ParseAddrPort(text); err == nil {
			hint = fmt.Sprintf("DNS hands out no port: write %q", ap.Addr())
		}
		return a, fmt.Sprintf("%q is not an IP address", text), hint
	}
	switch {
	case a.Zone() != "":
		return a, text + " has a zone, which means nothing to clients", ""
	case a.Is4In6():
		return a, text + " is an IPv4 address in IPv6 form", fmt.Sprintf("write %q", a.Unmap())
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, "clients cannot connect to " + text, ""
	}
	return a, "", ""
}

const urlSecretHint = "no secret stands in perigee.toml, which every node has: let the other side know Perigee by its address"

// serverURL reads the address of a server: scheme and host, nothing behind.
func serverURL(text, example string, schemes []string) (u *url.URL, wrong, hint string) {
	if strings.Contains(text, "@") {
		return nil, "a URL here carries no user and no password", urlSecretHint
	}
	example = fmt.Sprintf("write %q", example)
	u, err := url.Parse(text)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Sprintf("%q is not a URL: %v", text, err), example
	}
	switch {
	case u.Scheme == "" || u.Opaque != "" || !strings.Contains(text, "://"):
		return nil, fmt.Sprintf("%q has no scheme", text), example
	case !slices.Contains(schemes, u.Scheme):
		return nil, fmt.Sprintf("the scheme %q is not one of: %s", u.Scheme, strings.Join(schemes, ", ")), ""
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, strings.Contains(text, "#"):
		return nil, fmt.Sprintf("%q has more than scheme, host and port", text), fmt.Sprintf("write %q", u.Scheme+"://"+u.Host)
	}
	host, port := u.Hostname(), u.Port()
	if host == "" {
		return nil, fmt.Sprintf("%q has no host", text), example
	}
	if _, err := netip.ParseAddr(host); err != nil {
		if text := hostName(host, false); text != "" {
			return nil, text, ""
		}
	}
	if n, err := strconv.Atoi(port); (port != "" && (err != nil || n < 1 || n > 65535)) || strings.HasSuffix(u.Host, ":") {
		return nil, fmt.Sprintf("%q is not a port", port), ""
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host)}, "", ""
}

// hostName says what is wrong with a host name as HTTP uses it: letters,
// digits, hyphens (RFC 1123 §2.1), and the underscore that some use.
func hostName(name string, wildcard bool) string {
	bare := name
	if wildcard {
		bare = strings.TrimPrefix(name, "*.")
	}
	if bare == "" || len(bare) > maxNameText {
		return fmt.Sprintf("%q is not a host name", name)
	}
	for label := range strings.SplitSeq(bare, ".") {
		if text := labelText(label, false); text != "" {
			return fmt.Sprintf("%q is not a host name: %s", name, text)
		}
	}
	return ""
}

// maxNameText bounds a domain name in text without its final dot: 255 octets in
// wire form (RFC 1035 §2.3.4) leave 253 characters.
const maxNameText = 253

func labelText(label string, dns bool) string {
	switch {
	case label == "":
		return "it has an empty label"
	case len(label) > 63: // RFC 1035 §2.3.4
		return fmt.Sprintf("the label %q is longer than 63 octets", label)
	case !dns && (label[0] == '-' || label[len(label)-1] == '-'):
		return fmt.Sprintf("the label %q begins or ends with a hyphen", label)
	}
	for _, c := range []byte(label) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
		if !letter && !(dns && c == '/') { // RFC 2317 §4 has "0/25" in reverse zones
			if c >= 0x80 {
				return "write names beyond ASCII in their xn-- form"
			}
			return fmt.Sprintf("%q may not stand in it", c)
		}
	}
	return ""
}

// domainName puts a domain name into lower case with a final dot, or says what
// is wrong with it. A leading "*" label is allowed on request.
func domainName(name string, wildcard bool) (fqdn, wrong string) {
	bare := strings.TrimSuffix(name, ".")
	if bare == "" || len(bare) > maxNameText {
		return "", fmt.Sprintf("%q is not a domain name", name)
	}
	labels := strings.Split(bare, ".")
	for i, label := range labels {
		if label == "*" && i == 0 && wildcard {
			continue
		}
		if text := labelText(label, true); text != "" {
			return "", fmt.Sprintf("%q is not a domain name: %s", name, text)
		}
	}
	return strings.ToLower(bare) + ".", ""
}

// checkURL reads a URL to probe.
func checkURL(text string) (canonical, wrong, hint string) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Hostname() == "" {
		return "", "this is not a URL to probe", `write "http://192.0.2.10/-/ready", or "" for no probes`
	}
	if u.User != nil {
		return "", "a URL here carries no user and no password", urlSecretHint
	}
	if u.Fragment != "" {
		return "", "a fragment is never sent", "leave out everything from #"
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), "", ""
}

// urlPath says what is wrong with an absolute path that we send.
func urlPath(text string) string {
	if !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") {
		return fmt.Sprintf("%q is not a path: it begins with one slash", text)
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return fmt.Sprintf("%q may not stand in a path as it is; percent-encode it", c)
		}
	}
	return ""
}

// globPattern says what is wrong with a glob.
func globPattern(text string) string {
	if _, err := path.Match(text, ""); err != nil {
		return fmt.Sprintf("%q is not a glob: a [ is not closed, or a backslash ends it", text)
	}
	return ""
}
