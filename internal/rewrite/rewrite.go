// Package rewrite changes the references in pages and style sheets so that they
// lead to files which are named by their content, at another host if that is
// wanted, and says what they must be (W3C Subresource Integrity).
//
//	base, err := rewrite.ParseBase("https://cdn.example.com")
//	r := rewrite.Page("public/index.html", "index.html", src, base, site)
//	r.Out    // <img src="/a.png"> is <img src="https://cdn.example.com/a-3f9a1c77e05b.png">
//	r.Faults // what leads nowhere, with line and column
//
// It is pure: what a site has at a path comes in as a Site, and the same bytes
// and the same Site give the same bytes. A file is edited in place: what is not
// part of a reference that changes stays as it is, byte for byte, mistakes and
// all. It reads HTML as browsers' tokenizers do and CSS as CSS Syntax Level 3
// says, and neither runs scripts nor builds a tree. The source is held in memory
// whole, and what it costs beside is a few dozen bytes a reference.
//
// It does not rewrite: links to pages (<a>, <area>, <form>, <iframe>), which
// people keep; addresses with a host; the inside of scripts, comments, <template
// srcdoc>, and SVG files. Module scripts move only when their name already is
// one by content (see page.go).
package rewrite

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// State is what a reference leads to.
type State int

// What a reference may lead to.
const (
	Missing  State = iota // nothing
	Unknown               // something that is not for us to say: what is excluded, or redirected
	Kept                  // a file that keeps its address: a page, or what page addresses
	Named                 // a file that has, or has got, a name by its content
	Circular              // a style sheet that names the one at hand, on some way
)

// File is what a Site has at a path.
type File struct {
	State   State
	Path    string            // Kept, Named: the file, such as "css/site.css"
	Name    string            // Named: the path from now on, such as "css/site-3f9a1c77e05b.css"
	Sum     [sha256.Size]byte // Named: the SHA-256 of what is at Name
	Changed bool              // Named: that is not what is at Path
	Hint    string            // Missing: what may be meant; Circular: the way round
}

// Site is what references are looked up in.
type Site interface {
	// Find returns what is at a path: decoded, without its leading slash, a
	// folder with its final one; "" is the root.
	Find(path string) File
	// Sum is the digest of a file's own bytes, the one at File.Path, by
	// "sha256", "sha384" or "sha512".
	Sum(path, algorithm string) ([]byte, error)
}

// Base is where files are that have names by content.
type Base struct {
	prefix string // "https://cdn.example.com/www"; "" is the host of the page
}

// ParseBase reads a base: the URL of a host, with a path if need be, or "/",
// which is the page's own host.
func ParseBase(s string) (Base, error) {
	if s == "/" {
		return Base{}, nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return Base{}, fmt.Errorf("%.200q is no URL", s)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return Base{}, fmt.Errorf("%.200q: write https:// and a host, or / for the host of the page", s)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || strings.HasSuffix(s, "#"):
		return Base{}, fmt.Errorf("%.200q: only a scheme, a host and a path may stand there", s)
	}
	for _, r := range u.Host {
		if !plain(r) && !strings.ContainsRune(":[]", r) {
			return Base{}, fmt.Errorf("%.200q: a host has letters, digits, dots and dashes; others are written in their ASCII form (xn--…)", s)
		}
	}
	return Base{u.Scheme + "://" + strings.ToLower(u.Host) + "/" + escape(strings.Trim(u.Path, "/"))}.trimmed(), nil
}

func (b Base) trimmed() Base { return Base{strings.TrimRight(b.prefix, "/")} }

// Elsewhere reports whether the base may be another host than the page's.
func (b Base) Elsewhere() bool { return b.prefix != "" }

// Host is the base's host, without its port; "" is the page's own.
func (b Base) Host() string {
	u, err := url.Parse(b.prefix)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// atRoot reports whether the paths of the base are those of the site.
func (b Base) atRoot() bool { return b.prefix == "" || strings.Count(b.prefix, "/") == 2 }

// url is the address of a path.
func (b Base) url(path string) string { return b.prefix + "/" + escape(path) }

// Result is a file after its references were looked at.
type Result struct {
	Out        []byte // the source itself when nothing changes
	References int    // how many lead to a name by content now
	Used       []File // what they lead to, each as often
	Faults     []*Fault
	More       int // faults beyond maxFaults
}

// maxFaults bounds the faults that one file tells of: a screenful.
const maxFaults = 20

// file is one file whose references are rewritten.
type file struct {
	shown string // the file's name in faults
	src   []byte
	base  Base
	site  Site
	sheet bool // a style sheet: its references count from where it will be
	at    place

	edits []edit
	out   Result
}

// edit puts text in the place of src[from:to].
type edit struct {
	from, to int
	text     string
}

func (f *file) replace(from, to int, text string) {
	f.edits = append(f.edits, edit{from, to, text})
}

// done applies the edits.
func (f *file) done() Result {
	f.out.Out = f.src
	if len(f.edits) == 0 {
		return f.out
	}
	slices.SortStableFunc(f.edits, func(a, b edit) int { return cmp.Compare(a.from, b.from) })
	size := len(f.src)
	for _, e := range f.edits {
		size += len(e.text) - (e.to - e.from)
	}
	out, last := make([]byte, 0, size), 0
	for _, e := range f.edits {
		out = append(append(out, f.src[last:e.from]...), e.text...)
		last = e.to
	}
	f.out.Out = append(out, f.src[last:]...)
	return f.out
}

// use is how a reference is used by who reads the file.
type use struct {
	sameHost bool // what is fetched must be of the page's host: it gets no other
	keep     bool // it keeps its address, and must be there
	optional bool // it may lead to what is not here
	module   bool // a module script: its own references count from where it is
}

// reference looks up one reference and changes it. moved: it leads to File.Name now.
func (f *file) reference(v value, u use) (found File, moved bool) {
	ref, ok := f.at.resolve(v.text)
	if !ok {
		return File{State: Unknown}, false
	}
	found = f.site.Find(ref.path)
	from, to := v.raw(ref.from), v.raw(ref.to)
	switch {
	case found.State == Missing && !u.optional:
		f.fault(from, to, &Fault{Missing: true, Text: fmt.Sprintf("%s is not in the release", shownPath(ref.path)), Hint: found.Hint})
	case found.State == Circular:
		f.fault(from, to, &Fault{Text: fmt.Sprintf("style sheets that name each other have no names by content: %s", found.Hint), Hint: "take one of these references out"})
	}
	if found.State != Named || u.keep || u.module && found.Name != ref.path {
		return found, false
	}
	f.out.References++
	f.out.Used = append(f.out.Used, found)
	if f.sheet && found.Name == ref.path && (!ref.rooted || f.base.atRoot()) {
		return found, true // from where the sheet will be it leads there already
	}
	base := f.base
	if u.sameHost {
		base = Base{}
	}
	f.replace(from, to, base.url(found.Name))
	return found, true
}

// errUTF16 is told of files that browsers read as something else than UTF-8.
var errUTF16 = errors.New("it is UTF-16, and pages are sent as UTF-8: save it as UTF-8")

// checkEncoding finds a byte order mark that no browser takes for UTF-8's.
func (f *file) checkEncoding() bool {
	if len(f.src) > 1 && (f.src[0] == 0xfe && f.src[1] == 0xff || f.src[0] == 0xff && f.src[1] == 0xfe) {
		f.fault(0, 0, &Fault{Text: errUTF16.Error()})
		return false
	}
	return true
}
