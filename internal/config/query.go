package config

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Bounds of what a site says about its keys.
const (
	maxQueryNames = 256 // names of one list; each request tries them one by one
	maxKeyFields  = 8   // fields that every response varies by
)

// ownFields are fields that no site may key by: the edge sets them itself, or
// they concern one connection only.
var ownFields = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Host", "Expect",
	"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Via", "Cdn-Loop",
}

// keys reads what of a request makes a key.
func (t *table) keys(s *Site) {
	s.QuerySort = t.bool("query_sort", false)
	s.QueryKeep = t.queryNames("query_keep")
	s.QueryDrop = t.queryNames("query_drop")
	for _, item := range t.strings("key_fields", "X-Device") {
		name := http.CanonicalHeaderKey(item.text)
		switch {
		case item.text == "" || strings.ContainsFunc(item.text, notInToken):
			t.wrong(item, "key_fields", fmt.Sprintf("%q is no field name", item.text), "")
		case slices.Contains(ownFields, name):
			t.wrong(item, "key_fields", name+" is not the client's to set: the edge sets or removes it", "")
		case slices.Contains(s.KeyFields, name):
			t.wrong(item, "key_fields", name+" stands here twice", "keep one")
		default:
			s.KeyFields = append(s.KeyFields, name)
		}
	}
	if len(s.KeyFields) > maxKeyFields {
		t.wrong(t.n.child("key_fields"), "key_fields", fmt.Sprintf("%d fields; at most %d are allowed: each multiplies what is stored", len(s.KeyFields), maxKeyFields), "")
	}
}

// queryNames reads a list of parameter names, each maybe with a final "*".
func (t *table) queryNames(key string) []string {
	var names []string
	for _, item := range t.strings(key, "utm_*") {
		if i := strings.IndexFunc(item.text, notInQueryName); item.text == "" || i >= 0 {
			t.wrong(item, key, fmt.Sprintf("%q is no parameter name", item.text), `write the name as it stands in URLs, with a final "*" for any rest: "utm_*"`)
			continue
		}
		names = append(names, item.text)
	}
	if len(names) > maxQueryNames {
		t.wrong(t.n.child(key), key, fmt.Sprintf("%d names; at most %d are allowed", len(names), maxQueryNames), "")
	}
	return names
}

// notInQueryName reports a character that no parameter's name holds in a
// query, but for "*", which stands at the end.
func notInQueryName(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`&=#"<>`, r) }

func notInToken(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}
