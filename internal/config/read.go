package config

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxList bounds the items of one list. The longest that make sense are the
// choices of a policy (policy.MaxChoices).
const maxList = 1024

// reader collects the mistakes of one file.
type reader struct {
	src    *source
	dir    string // what relative paths are relative to
	errors []*Error
	zones  map[string]int // origin → index in Config.Zones
	fatal  bool           // nothing after this means what it seems to
}

func (r *reader) fail(at span, path, text, hint string) {
	r.errors = append(r.errors, r.src.error(at, path, text, hint))
}

// table reads the keys of one table. Every key that is asked for is known; done
// reports the rest.
type table struct {
	*reader
	n     *node // nil: the table is not in the file
	path  string
	known []string
}

// named are the tables that hold tables with names of the user's.
var named = map[string]string{"zone": `."NAME"`, "edge": ".NAME", "endpoint": ".NAME", "policy": ".NAME", "site": ".NAME"}

// table opens a table within t. What is not in the file reads as empty.
func (t *table) table(key string) *table {
	sub := &table{reader: t.reader, path: join(t.path, key)}
	if n := t.take(key); n != nil {
		if n.kind != tableKind {
			t.fail(n.at, sub.path, "expected a table, not "+n.kind.String(), "write ["+sub.path+named[sub.path]+"] on a line of its own and its keys below it")
			return sub
		}
		sub.n = n
	}
	return sub
}

// tables opens every table within t, in file order: those that users name.
func (t *table) tables(use func(name string, sub *table)) {
	if t.n == nil {
		return
	}
	for _, c := range t.n.list {
		sub := &table{reader: t.reader, n: c, path: join(t.path, c.key)}
		if c.kind != tableKind {
			t.fail(c.keyAt, sub.path, "expected a table, not "+c.kind.String(), fmt.Sprintf("write [%s.NAME] and the keys of NAME below it", t.path))
			continue
		}
		use(c.key, sub)
	}
}

// take returns the value of a key, or nil, and remembers that the key is known.
func (t *table) take(key string) *node {
	t.known = append(t.known, key)
	if t.n == nil {
		return nil
	}
	return t.n.child(key)
}

func (t *table) has(key string) bool { return t.n != nil && t.n.child(key) != nil }

// want takes a key that must be of a kind; example is a right value.
func (t *table) want(key string, k kind, example string) *node {
	n := t.take(key)
	if n == nil {
		return nil
	}
	if n.kind != k {
		t.fail(n.at, join(t.path, key), fmt.Sprintf("expected %s, not %s", k, n.kind), "write "+key+" = "+example)
		return nil
	}
	return n
}

// wrong reports a value of a key of t.
func (t *table) wrong(n *node, key, text, hint string) {
	t.fail(n.at, join(t.path, key), text, hint)
}

// missing reports something that t as a whole lacks.
func (t *table) missing(text, hint string) {
	at := span{}
	if t.n != nil {
		at = t.n.keyAt
	}
	t.fail(at, t.path, text, hint)
}

func (t *table) string(key, def, example string) string {
	n := t.want(key, stringKind, strconv.Quote(example))
	if n == nil {
		return def
	}
	return n.text
}

func (t *table) bool(key string, def bool) bool {
	n := t.want(key, boolKind, "true")
	if n == nil {
		return def
	}
	return n.text == "true"
}

func (t *table) int(key string, def, least, most int) int {
	n := t.want(key, integerKind, strconv.Itoa(max(def, least)))
	if n == nil {
		return def
	}
	i, ok := integer(n, least, most)
	if !ok {
		t.wrong(n, key, fmt.Sprintf("%s is not between %d and %d", n.text, least, most), "")
		return def
	}
	return i
}

func integer(n *node, least, most int) (int, bool) {
	i, err := strconv.ParseInt(n.text, 0, 64)
	return int(i), err == nil && i >= int64(least) && i <= int64(most)
}

func float(n *node) (float64, bool) {
	if n.kind == integerKind {
		i, ok := integer(n, math.MinInt32, math.MaxInt32)
		return float64(i), ok
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(n.text, "_", ""), 64)
	return f, n.kind == floatKind && err == nil
}

func (t *table) duration(key string, def, least, most time.Duration) time.Duration {
	n := t.take(key)
	if n == nil {
		return def
	}
	d, text, hint := durationOf(n, least, most)
	if text != "" {
		t.wrong(n, key, text, hint)
		return def
	}
	return d
}

// durationOrNone is duration, where "0" has a meaning of its own.
func (t *table) durationOrNone(key string, def, least, most time.Duration) time.Duration {
	if n := t.n.child(key); t.has(key) && n.kind == stringKind && n.text == "0" {
		t.take(key)
		return 0
	}
	return t.duration(key, def, least, most)
}

func durationOf(n *node, least, most time.Duration) (d time.Duration, text, hint string) {
	switch n.kind {
	case stringKind:
		var v Duration
		if err := v.UnmarshalText([]byte(n.text)); err != nil {
			return 0, err.Error(), `write a number and ms, s, m or h: "30s"`
		}
		d = time.Duration(v)
	case integerKind, floatKind:
		return 0, "a duration needs its unit", fmt.Sprintf("write \"%ss\" for seconds, \"%sms\" for milliseconds", n.text, n.text)
	default:
		return 0, "expected a duration, not " + n.kind.String(), `write a number and ms, s, m or h in quotes: "30s"`
	}
	if d < least || d > most {
		return 0, fmt.Sprintf("%s is not between %s and %s", n.text, Duration(least), Duration(most)), ""
	}
	return d, "", ""
}

// sizeOrNone is a size, or 0 for "0".
func (t *table) sizeOrNone(key string, def, least, most int64) int64 {
	if t.has(key) {
		if n := t.n.child(key); n.kind == stringKind && n.text == "0" {
			t.take(key)
			return 0
		}
	}
	return t.size(key, def, least, most)
}

func (t *table) size(key string, def, least, most int64) int64 {
	n := t.take(key)
	if n == nil {
		return def
	}
	switch n.kind {
	case stringKind:
		var v Size
		if err := v.UnmarshalText([]byte(n.text)); err != nil {
			t.wrong(n, key, err.Error(), `write a number and KiB, MiB, GiB or TiB: "256MiB"`)
			return def
		}
		if int64(v) < least || int64(v) > most {
			t.wrong(n, key, fmt.Sprintf("%s is not between %s and %s", n.text, Size(least), Size(most)), "")
			return def
		}
		return int64(v)
	case integerKind, floatKind:
		t.wrong(n, key, "a size needs its unit", `write KiB, MiB, GiB or TiB: "256MiB"`)
	default:
		t.wrong(n, key, "expected a size, not "+n.kind.String(), `write a number and its unit in quotes: "256MiB"`)
	}
	return def
}

// word is a string that must be one of words.
func (t *table) word(key, def string, words, later []string) string {
	n := t.want(key, stringKind, strconv.Quote(words[0]))
	if n == nil {
		return def
	}
	if slices.Contains(words, n.text) {
		return n.text
	}
	if slices.Contains(later, n.text) {
		t.wrong(n, key, strconv.Quote(n.text)+" is not there yet", "use one of: "+strings.Join(words, ", "))
		return def
	}
	t.wrong(n, key, fmt.Sprintf("%q is none of: %s", n.text, strings.Join(words, ", ")), didYouMean(n.text, words))
	return def
}

// strings returns the items of a list of strings.
func (t *table) strings(key, example string) []*node {
	n := t.want(key, arrayKind, "["+strconv.Quote(example)+"]")
	if n == nil {
		return nil
	}
	if len(n.list) > maxList {
		t.wrong(n, key, fmt.Sprintf("a list of %d; at most %d are allowed", len(n.list), maxList), "")
		return nil
	}
	items := make([]*node, 0, len(n.list))
	for _, item := range n.list {
		if item.kind != stringKind {
			t.wrong(item, key, "expected a string, not "+item.kind.String(), "write "+key+" = ["+strconv.Quote(example)+"]")
			continue
		}
		items = append(items, item)
	}
	return items
}

// file is a path, resolved against the folder of the file.
func (t *table) file(key, example string) string {
	n := t.want(key, stringKind, strconv.Quote(example))
	if n == nil || n.text == "" {
		return ""
	}
	return t.resolve(n, key)
}

func (t *table) resolve(n *node, key string) string {
	switch {
	case strings.ContainsRune(n.text, 0):
		t.wrong(n, key, "a path holds no zero byte", "")
		return ""
	case strings.Contains(n.text, pemMark):
		t.fail(t.n.child(key).keyAt, join(t.path, key), "this is the text of a key or certificate", secretHint)
		return ""
	case filepath.IsAbs(n.text):
		return filepath.Clean(n.text)
	}
	return filepath.Join(t.dir, n.text)
}

func (t *table) addrPort(key, def string) netip.AddrPort {
	n := t.want(key, stringKind, strconv.Quote(def))
	if n == nil {
		return netip.MustParseAddrPort(def)
	}
	ap, text, hint := listenAddress(n.text)
	if text != "" {
		t.wrong(n, key, text, hint)
		return netip.MustParseAddrPort(def)
	}
	return ap
}

func (t *table) addrPorts(key, example string) []netip.AddrPort {
	var list []netip.AddrPort
	for _, item := range t.strings(key, example) {
		ap, text, hint := listenAddress(item.text)
		if text != "" {
			t.wrong(item, key, text, hint)
			continue
		}
		if slices.Contains(list, ap) && ap.Port() != 0 {
			t.wrong(item, key, ap.String()+" stands here twice", "")
			continue
		}
		list = append(list, ap)
	}
	return list
}

func (t *table) addrs(key string) []netip.Addr {
	var list []netip.Addr
	for _, item := range t.strings(key, "192.0.2.10") {
		a, text, hint := handedOut(item.text)
		if text == "" && slices.Contains(list, a) {
			text = a.String() + " stands here twice"
		}
		if text != "" {
			t.wrong(item, key, text, hint)
			continue
		}
		list = append(list, a)
	}
	return list
}

func (t *table) location() (lat, lon float64, ok bool) {
	const key, hint = "location", "write degrees north, degrees east: location = [50.11, 8.68]"
	n := t.take(key)
	if n == nil {
		return 0, 0, false
	}
	if n.kind != arrayKind || len(n.list) != 2 {
		t.wrong(n, key, "expected two numbers", hint)
		return 0, 0, false
	}
	var v [2]float64
	for i, most := range [2]float64{90, 180} {
		f, ok := float(n.list[i])
		if !ok {
			t.wrong(n.list[i], key, "expected a number, not "+n.list[i].kind.String(), hint)
			return 0, 0, false
		}
		if !(f >= -most && f <= most) { // written so that NaN fails
			t.wrong(n.list[i], key, fmt.Sprintf("%s is not between -%v and %v degrees", n.list[i].text, most, most), hint)
			return 0, 0, false
		}
		v[i] = f
	}
	return v[0], v[1], true
}

// urls is a list of http and https addresses of servers.
func (t *table) urls(key, example string, schemes ...string) []*url.URL {
	var list []*url.URL
	for _, item := range t.strings(key, example) {
		u, text, hint := serverURL(item.text, example, schemes)
		if text == "" && slices.ContainsFunc(list, func(o *url.URL) bool { return o.String() == u.String() }) {
			text = u.String() + " stands here twice"
		}
		if text != "" {
			t.wrong(item, key, text, hint)
			continue
		}
		list = append(list, u)
	}
	return list
}
