package origin

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/text/cases"

	"perigee.example/internal/rewrite"
)

// looking is the site while nothing has its name yet.
type looking struct{ *rewriter }

func (l looking) Find(name string) rewrite.File { return l.find(name) }

// Find implements rewrite.Site.
func (r *rewriter) Find(name string) rewrite.File {
	found := r.find(name)
	if found.State == rewrite.Named && isSheet(r.files[found.Path].Type) {
		return r.sheets[found.Path]
	}
	return found
}

// use notes that files have names by content now. The caller holds mu.
func (r *rewriter) use(files []rewrite.File) {
	for _, f := range files {
		if file := r.files[f.Path]; f.Name != f.Path && !f.Changed {
			file.Class = Immutable
			r.named[f.Name] = file
		}
	}
}

// find is what an edge answers to a path, in its order; of a style sheet, as if
// nothing changed in it.
func (r *rewriter) find(name string) rewrite.File {
	m := r.f.Manifest
	var c Captures
	if r.excepted(name) || m.Redirect(Forced, "/"+name, &c) != nil {
		return rewrite.File{State: rewrite.Unknown}
	}
	path := name
	if name == "" || strings.HasSuffix(name, "/") {
		path += "index.html"
	}
	if file, ok := r.files[path]; ok {
		return fileAt(path, file)
	}
	if file, ok := r.files[name+"/index.html"]; ok {
		return fileAt(name+"/index.html", file)
	}
	if m.Redirect(Unforced, "/"+name, &c) != nil {
		return rewrite.File{State: rewrite.Unknown}
	}
	if to := m.Redirect(Rewriting, "/"+name, &c); to != nil {
		if file, ok := r.files[strings.TrimPrefix(c.Expand(to.To, false), "/")]; ok && file.Class != Document {
			return rewrite.File{State: rewrite.Unknown}
		}
	}
	return rewrite.File{State: rewrite.Missing, Hint: r.hint(name)}
}

// fileAt is a file of the folder: a document keeps its path, and so does what
// would not be known by its name.
func fileAt(path string, file File) rewrite.File {
	to := path
	if file.Class != Immutable {
		to = nameOf(path, &file)
	}
	if file.Class == Document || to == "" {
		return rewrite.File{State: rewrite.Kept, Path: path}
	}
	return rewrite.File{State: rewrite.Named, Path: path, Name: to, Sum: file.Digest}
}

// nameOf is the path by content that a file gets; "" when it can have none.
func nameOf(path string, file *File) string {
	to := rewrite.NameOf(path, file.Digest)
	if Classify(to) != Immutable || TypeOf(to) != file.Type || len(to) > MaxPathBytes {
		return ""
	}
	return to
}

// hint is the cure for a reference to nothing.
func (r *rewriter) hint(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	fold := cases.Fold()
	if r.folded == nil {
		r.folded = make(map[string]string, len(r.files))
		for path := range r.files {
			r.folded[foldPath(fold, path)] = path
		}
	}
	if twin, ok := r.folded[foldPath(fold, name)]; ok {
		return fmt.Sprintf("did you mean /%s? Paths differ by case", twin)
	}
	if name == "" || strings.ContainsAny(name, "*?[") {
		name = "GLOB"
	}
	return fmt.Sprintf("put the file there, or leave it: --rewrite-except %q for this one, --rewrite-missing warn for all", name)
}

// Sum implements rewrite.Site.
func (r *rewriter) Sum(path, algorithm string) ([]byte, error) {
	file, ok := r.files[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	var h hash.Hash
	switch algorithm {
	case "sha256":
		return file.Digest[:], nil
	case "sha384":
		h = sha512.New384()
	case "sha512":
		h = sha512.New()
	default:
		return nil, fmt.Errorf("hash function %q", algorithm)
	}
	r.mu.Lock()
	sum, ok := r.sums[algorithm+" "+path]
	r.mu.Unlock()
	if ok {
		return sum, nil
	}
	in, err := r.f.Open(file.Digest)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	own := sha256.New()
	if _, err := io.Copy(io.MultiWriter(h, own), in); err != nil {
		return nil, err
	}
	if Digest(own.Sum(nil)) != file.Digest {
		return nil, fmt.Errorf("%s changed while it was read: push again", path)
	}
	sum = h.Sum(nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sums[algorithm+" "+path] = sum
	return sum, nil
}

// inOrder sorts style sheets so that each comes behind those that it uses. When
// some use each other, circle is one way round: its first is its last.
func inOrder(uses map[string][]string) (order, circle []string) {
	waits, users := map[string]int{}, map[string][]string{}
	var ready []string
	for name, used := range uses {
		if waits[name] = len(used); len(used) == 0 {
			ready = append(ready, name)
		}
		for _, u := range used {
			users[u] = append(users[u], name)
		}
	}
	slices.Sort(ready)
	for len(ready) > 0 {
		name := ready[0]
		order, ready = append(order, name), ready[1:]
		delete(waits, name)
		for _, user := range users[name] {
			if waits[user]--; waits[user] == 0 {
				ready = append(ready, user)
			}
		}
	}
	if len(waits) == 0 {
		return order, nil
	}
	// Each of the rest waits for another of it: following that comes round.
	next := func(name string) string {
		return uses[name][slices.IndexFunc(uses[name], func(u string) bool { _, ok := waits[u]; return ok })]
	}
	first := ""
	for name := range waits {
		if first == "" || name < first {
			first = name
		}
	}
	at := map[string]int{}
	for name := first; ; name = next(name) {
		if i, ok := at[name]; ok {
			return order, append(circle[i:], name)
		}
		at[name] = len(circle)
		circle = append(circle, name)
	}
}

// turning is the site of a style sheet that is on a way round.
type turning struct {
	*rewriter
	to, way string
}

func (t *turning) Find(name string) rewrite.File {
	found := t.find(name)
	if found.Path == t.to {
		return rewrite.File{State: rewrite.Circular, Hint: t.way}
	}
	return found
}

// round notes that style sheets use each other, where the first does.
func (r *rewriter) round(circle []string) error {
	res, err := r.one(circle[0], &turning{r, circle[1], strings.Join(circle, " → ")})
	for _, fault := range res.Faults {
		if !fault.Missing {
			r.note(rewrite.Result{Faults: []*rewrite.Fault{fault}})
		}
	}
	return err
}
