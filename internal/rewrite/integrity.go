package rewrite

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// algorithms are the hash functions of W3C Subresource Integrity, the weakest
// first: of several, browsers look at the strongest alone.
var algorithms = []string{"sha256", "sha384", "sha512"}

// checked rewrites a reference whose element can carry integrity, and gives it.
// One that is there must be that of the file.
func (p *page) checked(t *tag, a *attr, u use) {
	u = p.credentials(t, u)
	file, moved := p.reference(p.value(a), u)
	if file.State != Named && file.State != Kept {
		return
	}
	have := t.get("integrity")
	blank := have == nil || strings.TrimSpace(p.value(have).text) == ""
	if !blank && !p.verify(have, &file) {
		return
	}
	if !moved {
		return
	}
	text := "sha256-" + base64.StdEncoding.EncodeToString(file.Sum[:])
	switch {
	case have == nil:
		p.replace(a.end, a.end, fmt.Sprintf(" integrity=%q", text))
	case !blank && !file.Changed:
	case !have.valued:
		p.replace(have.end, have.end, fmt.Sprintf("=%q", text))
	case have.quoted:
		p.replace(have.from, have.to, text)
	default:
		p.replace(have.from, have.to, fmt.Sprintf("%q", text))
	}
	if p.base.Elsewhere() && !u.sameHost && t.get("crossorigin") == nil {
		p.replace(a.end, a.end, ` crossorigin="anonymous"`)
	}
}

// verify looks whether integrity that is there is that of the file, as browsers
// do: of the strongest algorithm it names, one digest must be right.
func (p *page) verify(a *attr, file *File) bool {
	v := p.value(a)
	best, digests := -1, [][]byte(nil)
	for word := range strings.FieldsSeq(v.text) {
		word, _, _ = strings.Cut(word, "?")
		name, text, _ := strings.Cut(word, "-")
		rank := slices.Index(algorithms, strings.ToLower(name))
		if rank < 0 || rank < best {
			continue
		}
		if rank > best {
			best, digests = rank, nil
		}
		text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
		if d, err := base64.RawStdEncoding.DecodeString(text); err == nil {
			digests = append(digests, d)
		}
	}
	if best < 0 {
		p.fault(v.raw(0), v.raw(len(v.text)), &Fault{Text: "integrity that no browser knows", Hint: "write sha256-, sha384- or sha512- and the digest in Base64, or leave integrity out: it is given"})
		return false
	}
	sum, err := p.site.Sum(file.Path, algorithms[best])
	if err != nil {
		p.fault(v.raw(0), v.raw(len(v.text)), &Fault{Text: fmt.Sprintf("integrity of %s cannot be looked at: %v", shownPath(file.Path), err)})
		return false
	}
	if !slices.ContainsFunc(digests, func(d []byte) bool { return bytes.Equal(d, sum) }) {
		p.fault(v.raw(0), v.raw(len(v.text)), &Fault{
			Text: fmt.Sprintf("%s has another %s than integrity says: browsers would refuse it", shownPath(file.Path), algorithms[best]),
			Hint: fmt.Sprintf("write %s-%s if the file is right, or leave integrity out: it is given", algorithms[best], base64.StdEncoding.EncodeToString(sum)),
		})
		return false
	}
	return true
}
