package origin

import (
	"path"
	"strings"
)

// minFingerprint is the shortest content hash in a file name that we trust:
// the default length of the common bundlers. Six hex digits are a colour.
const minFingerprint = 8

// Classify returns the expiry class of a path by its name alone:
//
//   - Document: HTML, JSON, web app manifests and service workers, which name
//     other files and so must be revalidated. HTML and service workers are
//     documents whatever their name looks like.
//   - Immutable: the name carries a fingerprint of the content, so other
//     content would have another name.
//   - Asset: everything else.
//
// A path is fingerprinted if, after a stem and one of ".-_", the last part
// before the extension is 8 or more hex digits with both a letter and a digit,
// or 8 or more of [0-9A-Za-z] with lower case, upper case and digit that are
// not just words and a number ("Photo2024"). Bundlers that draw hashes from
// [0-9A-Za-z_-] make exactly 8, so there the part may hold "_" and "-" too.
// The rule errs towards Asset: that costs a validation, while a wrong
// Immutable would pin old bytes in browsers for a year.
func Classify(name string) string {
	base := path.Base(name)
	ext := path.Ext(base)
	stem := strings.TrimSuffix(base, ext)
	ext = strings.ToLower(ext)
	switch {
	case ext == ".html" || ext == ".htm" || ext == ".xhtml" || isServiceWorker(strings.ToLower(base)):
		return Document
	case len(ext) > 1 && fingerprinted(stem):
		return Immutable
	case ext == ".json" || ext == ".webmanifest":
		return Document
	}
	return Asset
}

// isServiceWorker knows the names under which service workers are usually
// installed. Their URL cannot carry a fingerprint: it is their identity.
func isServiceWorker(base string) bool {
	switch base {
	case "sw.js", "service-worker.js", "service_worker.js", "serviceworker.js", "ngsw-worker.js", "onesignalsdkworker.js":
		return true
	}
	return strings.HasSuffix(base, "-sw.js") || strings.HasSuffix(base, ".sw.js")
}

func fingerprinted(stem string) bool {
	if i := strings.LastIndexAny(stem, ".-_"); i > 0 && isFingerprint(stem[i+1:], false) {
		return true
	}
	// The hash itself may hold "-" and "_": look at exactly the last 8.
	i := len(stem) - minFingerprint
	return i >= 2 && strings.IndexByte(".-_", stem[i-1]) >= 0 && isFingerprint(stem[i:], true)
}

// isFingerprint reports whether part looks like a content hash. inner allows
// "-" and "_" within it.
func isFingerprint(part string, inner bool) bool {
	if len(part) < minFingerprint {
		return false
	}
	var lower, upper, digit bool
	hex := true
	for i := range len(part) {
		switch c := part[i]; {
		case '0' <= c && c <= '9':
			digit = true
		case 'a' <= c && c <= 'z':
			lower = true
			hex = hex && c <= 'f'
		case 'A' <= c && c <= 'Z':
			upper = true
			hex = hex && c <= 'F'
		case inner && (c == '-' || c == '_'):
			hex = false
		default:
			return false
		}
	}
	if hex {
		return digit && (lower || upper)
	}
	return lower && upper && digit && !wordsAndNumber(part)
}

// wordsAndNumber reports whether part is one or more words, each of a capital
// and small letters (the first may lack the capital), with a number behind:
// "Photo2024", "releaseNotes12", "Final-Draft3".
func wordsAndNumber(part string) bool {
	s := strings.TrimRight(part, "0123456789")
	if len(s) == len(part) {
		return false
	}
	run := 0 // small letters since the last capital or separator
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z':
			run++
		case 'A' <= c && c <= 'Z', c == '-', c == '_':
			if i > 0 && run < 2 && !(run == 0 && (s[i-1] == '-' || s[i-1] == '_')) {
				return false
			}
			run = 0
		default:
			return false // a digit inside
		}
	}
	return run >= 2
}
