package origin

import (
	"bytes"
	"hash/fnv"
)

const (
	// MaxPageBytes bounds a page of a manifest.
	MaxPageBytes = 512 << 10
	// pageFiles is about how many files a page has.
	pageFiles = 128
	// MaxPages bounds the pages of a manifest: more than twice what MaxFiles make.
	MaxPages = 4096
)

// Pages cuts a manifest in canonical form into pages, which together are its
// bytes. Where it is cut depends on the paths alone, so that a change of some
// files leaves all but some pages as they were: who has the pages of the release
// before needs only those to have this one.
func Pages(canonical []byte) [][]byte {
	var pages [][]byte
	start := 0
	for at := 0; ; {
		// Between two files stands `},"`; within one, a quote in a string has a
		// backslash before it, and no object is followed by one.
		i := bytes.Index(canonical[at:], []byte(`},"`))
		if i < 0 {
			break
		}
		at += i + 2
		end := bytes.Index(canonical[at+1:], []byte(`":{`))
		if end < 0 {
			break
		}
		h := fnv.New32a()
		h.Write(canonical[at+1 : at+1+end])
		// The longest file of all is a few KiB: MaxPathBytes, and its variants.
		if h.Sum32()%pageFiles == 0 || at-start >= MaxPageBytes/2 {
			pages = append(pages, canonical[start:at])
			start = at
		}
	}
	for rest := canonical[start:]; len(rest) > 0; { // of rules there may be more than a page
		n := min(len(rest), MaxPageBytes)
		pages, rest = append(pages, rest[:n]), rest[n:]
	}
	return pages
}
