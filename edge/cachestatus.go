package edge

import (
	"strconv"
	"strings"
	"time"
)

// cacheStatus is our member of Cache-Status (RFC 9211).
type cacheStatus struct {
	hit       bool
	ttl       time.Duration // freshness left; negative when stale
	hasTTL    bool
	fwd       string // why the request went to the origin (§2.2); "" when it did not
	fwdStatus int
	stored    bool
	collapsed bool
	detail    string // a token
}

// appendTo appends the member. Without full it holds what a client may know:
// a key and the origin's status would help whoever probes the cache.
func (c *cacheStatus) appendTo(dst []byte, name string, full bool, key string) []byte {
	dst = append(dst, name...)
	if c.hit {
		dst = append(dst, "; hit"...)
	}
	if c.fwd != "" {
		dst = append(dst, "; fwd="...)
		dst = append(dst, c.fwd...)
	}
	if full && c.fwdStatus != 0 {
		dst = append(dst, "; fwd-status="...)
		dst = strconv.AppendInt(dst, int64(c.fwdStatus), 10)
	}
	if c.hasTTL {
		dst = append(dst, "; ttl="...)
		dst = strconv.AppendInt(dst, floorSeconds(c.ttl), 10)
	}
	if c.stored {
		dst = append(dst, "; stored"...)
	}
	if c.collapsed {
		dst = append(dst, "; collapsed"...)
	}
	if full && key != "" {
		dst = append(dst, "; key="...)
		dst = appendSFString(dst, key)
	}
	if full && c.detail != "" {
		dst = append(dst, "; detail="...)
		dst = append(dst, c.detail...)
	}
	return dst
}

// loggedStatus is a hit's member for the log: without the key, whose query may
// hold secrets.
func loggedStatus(member string) string {
	member, _, _ = strings.Cut(member, "; key=")
	return member
}

// floorSeconds rounds down, so that a response stale by a moment has ttl=-1.
func floorSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d < 0 && d%time.Second != 0 {
		s--
	}
	return s
}

// appendSFString appends a string of RFC 9651 §3.3.3. Bytes it cannot hold are
// not in any key.
func appendSFString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}
