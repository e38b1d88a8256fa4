package edge

import "strings"

// staticExtensions are of files that are nobody's account page.
var staticExtensions = map[string]bool{
	"css": true, "js": true, "mjs": true, "map": true, "wasm": true, "json": true, "xml": true, "txt": true, "csv": true, "pdf": true,
	"png": true, "jpg": true, "jpeg": true, "gif": true, "webp": true, "avif": true, "svg": true, "ico": true, "bmp": true,
	"woff": true, "woff2": true, "ttf": true, "otf": true, "eot": true,
	"mp3": true, "mp4": true, "webm": true, "ogg": true, "m3u8": true, "ts": true,
	"zip": true, "gz": true, "bz2": true, "xz": true, "7z": true, "exe": true, "dmg": true, "iso": true,
}

// deceptive reports a page in the clothes of a file: a path that seems to name
// one (/account/x.css, /account;x.css, /account%2fx.css), answered with HTML.
// Origins that ignore what follows a page's path answer so, and whoever makes
// a victim follow such a link would read the victim's page from the cache. A
// response that says it is for all, by public, s-maxage or a targeted field, is
// taken at its word.
func deceptive(path string, o *stored) bool {
	if o.status != 200 || o.targeted || o.cc.public || o.cc.sMaxAge != noDelta || !namesFile(path) {
		return false
	}
	v, _ := headerFields(o.header).combined("Content-Type")
	kind, _, _ := strings.Cut(v, ";")
	kind = trimOWS(lower(kind))
	return kind == "text/html" || kind == "application/xhtml+xml"
}

// namesFile reports whether the last segment of a path, read in whatever way,
// ends in an extension of a static file.
func namesFile(path string) bool {
	segment := path[strings.LastIndexByte(path, '/')+1:]
	for {
		i := strings.IndexByte(segment, '.')
		if i < 0 {
			return false
		}
		segment = segment[i+1:]
		n := 0
		for n < len(segment) && (isAlpha(segment[n]) || isDigit(segment[n])) {
			n++
		}
		if staticExtensions[lower(segment[:n])] {
			return true
		}
	}
}
