package edge

import (
	"slices"
	"strconv"
	"strings"
)

// normalise brings the value of a selecting field into the form in which it
// is compared (RFC 9111 §4.1): Accept-Encoding and Accept-Language by what
// they mean, other fields by white space around list members alone.
func normalise(name, v string) string {
	switch name {
	case "Accept-Encoding":
		return normaliseEncoding(v)
	case "Accept-Language":
		return normaliseLanguage(v)
	}
	return normaliseList(v)
}

// The content acceptedCodings that are told apart, as bits.
const (
	brBit = 1 << iota
	gzipBit
	zstdBit
)

// acceptedCodings by their bits: what a request's Accept-Encoding becomes, for the key
// and for the origin alike.
var acceptedCodings = [8]string{"identity", "br", "gzip", "br, gzip", "zstd", "br, zstd", "gzip, zstd", "br, gzip, zstd"}

// normaliseEncoding reduces Accept-Encoding to which of br, gzip and zstd it
// accepts: clients write the same in dozens of ways, and each would be a
// variant. How much they prefer one is lost. A value that refuses identity, or
// has "*", is left as it is.
func normaliseEncoding(v string) string {
	set := 0
	for rest := v; ; {
		var m string
		var ok bool
		if m, rest, ok = nextMember(rest); !ok {
			return acceptedCodings[set]
		}
		coding, parameters, _ := strings.Cut(m, ";")
		q, valid := quality(parameters)
		if !valid {
			continue // junk accepts nothing, and makes no variant of its own
		}
		switch coding = trimOWS(coding); {
		case coding == "*", strings.EqualFold(coding, "identity") && q == 0:
			return normaliseList(v)
		case q == 0:
		case strings.EqualFold(coding, "br"):
			set |= brBit
		case strings.EqualFold(coding, "gzip"), strings.EqualFold(coding, "x-gzip"):
			set |= gzipBit
		case strings.EqualFold(coding, "zstd"):
			set |= zstdBit
		}
	}
}

// quality reads the weight of a list member in thousandths (RFC 9110 §12.4.2);
// parameters is what follows its first ";". Without one it is 1000.
func quality(parameters string) (q int, ok bool) {
	parameters = trimOWS(parameters)
	if parameters == "" {
		return 1000, true
	}
	v, ok := strings.CutPrefix(parameters, "q=")
	if !ok {
		if v, ok = strings.CutPrefix(parameters, "Q="); !ok {
			return 0, false
		}
	}
	whole, part, _ := strings.Cut(v, ".")
	if whole != "0" && whole != "1" || len(part) > 3 {
		return 0, false
	}
	for i := range 3 {
		digit := 0
		if i < len(part) {
			if !isDigit(part[i]) {
				return 0, false
			}
			digit = int(part[i] - '0')
		}
		q = 10*q + digit
	}
	if whole == "1" {
		return 1000, q == 0
	}
	return q, true
}

// maxLanguages bounds the languages of one Accept-Language that are put in
// order. Browsers send up to ten or so.
const maxLanguages = 32

// normaliseLanguage writes Accept-Language in lower case, the most preferred
// first: the order of equally preferred ones means nothing (RFC 9110 §12.5.4).
// A value of another form is left as it is.
func normaliseLanguage(v string) string {
	type language struct {
		tag string
		q   int
	}
	var list []language
	for rest := v; ; {
		var m string
		var ok bool
		if m, rest, ok = nextMember(rest); !ok {
			break
		}
		tag, parameters, _ := strings.Cut(m, ";")
		q, valid := quality(parameters)
		if !valid || len(list) == maxLanguages {
			return normaliseList(v)
		}
		list = append(list, language{lower(trimOWS(tag)), q})
	}
	slices.SortFunc(list, func(a, b language) int {
		if a.q != b.q {
			return b.q - a.q
		}
		return strings.Compare(a.tag, b.tag)
	})
	var b []byte
	for i, l := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, l.tag...)
		if l.q < 1000 {
			b = append(b, ";q="...)
			b = strconv.AppendInt(b, int64(l.q), 10)
		}
	}
	return string(b)
}
