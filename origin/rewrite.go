package origin

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"perigee.example/internal/rewrite"
)

const (
	// maxRewrite bounds the pages and style sheets whose references are rewritten:
	// each is held in memory whole, and beyond it is data, not a page.
	maxRewrite = maxCompress
	// maxRewriteFaults bounds what one push tells of: a few screenfuls.
	maxRewriteFaults = 20
	// maxRewriteTexts bounds the different faults that are kept until the first
	// of them in the order of files are known.
	maxRewriteTexts = 10_000
)

// RewriteOptions say how the references in a folder's pages and style sheets are made to
// lead to files that are named by their content. A page changes in its place; a
// file that is referred to gets a second path beside its own, such as
// app-3f9a1c77e05b.js beside app.js. What is under its own path is what is in the
// folder, for all files but pages.
type RewriteOptions struct {
	// Base is a URL of the site at the host of such files, or "/".
	Base string
	// Except are globs, as in ExpiryRule: pages and style sheets that stay as they
	// are, and what references may lead to without it being looked for.
	Except []string
	// Lax: a reference to what is not in the release is a remark, not an error.
	Lax bool
}

// Check says what is wrong with the options.
func (o *RewriteOptions) Check() error {
	for _, glob := range o.Except {
		if _, err := path.Match(glob, ""); err != nil || glob == "" || glob[0] == '/' {
			return fmt.Errorf(`%.100q is no glob: paths begin without a slash, such as "api/**" or "img/*.png"`, glob)
		}
	}
	_, err := rewrite.ParseBase(o.Base)
	return err
}

// Host is that of the Base; "" is the page's own.
func (o *RewriteOptions) Host() string {
	base, err := rewrite.ParseBase(o.Base)
	if err != nil {
		return ""
	}
	return base.Host()
}

// Rewritten is what rewriting did.
type Rewritten struct {
	References int      `json:"references"`        // that lead to a name by content now
	Pages      int      `json:"pages"`             // that changed
	Sheets     int      `json:"sheets"`            // style sheets that changed
	Named      int      `json:"named"`             // files that have a path by their content beside their own
	Remarks    []string `json:"remarks,omitempty"` // references to what is not in the release
}

// RewriteError is every reference that cannot stay as it is, in the order of
// files and lines.
type RewriteError struct {
	List []*rewrite.Fault
	More int // that are like these
}

func (e *RewriteError) Error() string {
	return strings.Join(lines(e.List, e.More), "\n")
}

// Render is every fault with its source line, and the cure.
func (e *RewriteError) Render() string {
	var b strings.Builder
	for i, f := range e.List {
		if i > 0 {
			b.WriteString("error: ")
		}
		b.WriteString(f.Render())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "error: %s\n", more(e.More))
	}
	return b.String()
}

func more(n int) string { return fmt.Sprintf("and %d more like these", n) }

// lines are faults, one a line.
func lines(list []*rewrite.Fault, n int) []string {
	var out []string
	for _, f := range list {
		out = append(out, f.Error())
	}
	if n > 0 {
		out = append(out, more(n))
	}
	return out
}

// rewriter rewrites one folder. It reads every page twice: first to find what is
// wrong, and the style sheets that are referred to; then, when these have their
// names, to change it.
type rewriter struct {
	f     *Folder
	o     *RewriteOptions
	base  rewrite.Base
	dir   string
	files map[string]File // the folder's own

	sheets map[string]rewrite.File // style sheets that have their names

	mu       sync.Mutex // over all below, while files are looked at
	progress func(FolderProgress)
	at       FolderProgress
	named    map[string]File // by their paths by content
	pages    map[string]File // that changed
	sums     map[string][]byte
	folded   map[string]string // for hints; made when there is one to give
	faults   map[string]*seen
	more     int // faults that are only counted
	done     Rewritten
}

// seen is one fault, at the first place of all that have it.
type seen struct {
	fault *rewrite.Fault
	times int
}

// rewrite rewrites the references of the folder's pages and style sheets.
func (f *Folder) rewrite(ctx context.Context, dir string, o *RewriteOptions, progress func(FolderProgress)) error {
	if err := o.Check(); err != nil {
		return err
	}
	base, err := rewrite.ParseBase(o.Base)
	if err != nil {
		return err
	}
	m := f.Manifest
	m.forced = slices.ContainsFunc(m.Redirects, func(r Redirect) bool { return r.Force })
	r := &rewriter{
		f: f, o: o, base: base, dir: dir, files: m.Files, sheets: map[string]rewrite.File{}, progress: progress,
		named: map[string]File{}, pages: map[string]File{}, sums: map[string][]byte{}, faults: map[string]*seen{},
	}
	var pages []string
	for name, file := range r.files {
		if isPage(file.Type) && !r.excepted(name) {
			pages = append(pages, name)
		}
	}
	slices.Sort(pages)
	if err := r.run(ctx, pages); err != nil {
		return err
	}
	for name, file := range r.named {
		if have, ok := m.Files[name]; ok && have.Digest != file.Digest {
			return &PathError{name, "is the name that another file gets by its content: give this one another"}
		} else if !ok {
			r.done.Named++
		}
		m.Files[name] = file
	}
	maps.Copy(m.Files, r.pages)
	f.Rewritten = &r.done
	return nil
}

func isPage(contentType string) bool {
	return strings.HasPrefix(contentType, "text/html") || strings.HasPrefix(contentType, "application/xhtml+xml")
}

func isSheet(contentType string) bool { return strings.HasPrefix(contentType, "text/css") }

func (r *rewriter) excepted(name string) bool {
	return slices.ContainsFunc(r.o.Except, func(glob string) bool { return (&ExpiryRule{Glob: glob}).matches(name) })
}

func (r *rewriter) run(ctx context.Context, pages []string) error {
	r.at = FolderProgress{Stage: StageRewrite, TotalFiles: 2 * len(pages)}
	for _, page := range pages {
		r.at.TotalBytes += 2 * r.files[page].Size
	}
	uses, err := r.look(ctx, pages)
	if err != nil {
		return err
	}
	order, circle := inOrder(uses)
	if circle != nil {
		if err := r.round(circle); err != nil {
			return err
		}
	}
	if err := r.verdict(); err != nil {
		return err
	}
	for _, name := range order {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.sheet(name); err != nil {
			return err
		}
	}
	return inParallel(ctx, pages, r.page)
}

// look reads all pages, and the style sheets that they lead to. It notes what is
// wrong, and returns which style sheets each of these uses.
func (r *rewriter) look(ctx context.Context, pages []string) (uses map[string][]string, err error) {
	uses = map[string][]string{}
	for wave := pages; len(wave) > 0; {
		var mu sync.Mutex
		next := map[string]bool{}
		err := inParallel(ctx, wave, func(name string) error {
			res, err := r.one(name, looking{r})
			if err != nil {
				return err
			}
			r.note(res)
			sheets := map[string]bool{}
			for _, f := range res.Used {
				if isSheet(r.files[f.Path].Type) {
					sheets[f.Path] = true
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if isSheet(r.files[name].Type) {
				uses[name] = slices.Sorted(maps.Keys(sheets))
			}
			maps.Copy(next, sheets)
			return nil
		})
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(next, func(name string, _ bool) bool { _, have := uses[name]; return have })
		wave = slices.Sorted(maps.Keys(next))
	}
	return uses, nil
}

// one rewrites one page or style sheet, as it is in the folder.
func (r *rewriter) one(name string, site rewrite.Site) (rewrite.Result, error) {
	file := r.files[name]
	shown := filepath.Join(r.dir, filepath.FromSlash(name))
	if file.Size > maxRewrite {
		return rewrite.Result{}, fmt.Errorf("%s: %d bytes, and references are rewritten in files up to %d: leave it alone with --rewrite-except %q", shown, file.Size, maxRewrite, name)
	}
	in, err := r.f.Open(file.Digest)
	if err != nil {
		return rewrite.Result{}, err
	}
	defer in.Close()
	src, err := io.ReadAll(io.LimitReader(in, maxRewrite+1))
	if err != nil {
		return rewrite.Result{}, fmt.Errorf("%s: %w", shown, err)
	}
	if DigestOf(src) != file.Digest {
		return rewrite.Result{}, fmt.Errorf("%s: the file changed while it was read: push again", shown)
	}
	if isSheet(file.Type) {
		return rewrite.Sheet(shown, name, src, r.base, site), nil
	}
	r.mu.Lock()
	r.at.Files, r.at.Bytes = r.at.Files+1, r.at.Bytes+file.Size
	if r.progress != nil {
		r.progress(r.at)
	}
	r.mu.Unlock()
	return rewrite.Page(shown, name, src, r.base, site), nil
}

// note keeps what is wrong: each fault once, with how often it is there.
func (r *rewriter) note(res rewrite.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.more += res.More
	for _, fault := range res.Faults {
		have, ok := r.faults[fault.Text]
		switch {
		case ok:
			have.times++
			if before(fault, have.fault) < 0 {
				have.fault = fault
			}
		case len(r.faults) < maxRewriteTexts:
			r.faults[fault.Text] = &seen{fault, 1}
		default:
			r.more++
		}
	}
}

func before(a, b *rewrite.Fault) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
}

// verdict is the error over all that is wrong; what is only missing is a remark
// where that is wanted.
func (r *rewriter) verdict() error {
	var errs, remarks []*rewrite.Fault
	for _, s := range r.faults {
		if s.times > 1 {
			s.fault.Text += fmt.Sprintf(" (%d references)", s.times)
		}
		if s.fault.Missing && r.o.Lax {
			remarks = append(remarks, s.fault)
		} else {
			errs = append(errs, s.fault)
		}
	}
	first := func(list []*rewrite.Fault) ([]*rewrite.Fault, int) {
		slices.SortFunc(list, before)
		n := min(len(list), maxRewriteFaults)
		return list[:n], len(list) - n + r.more
	}
	if len(errs) > 0 {
		few, n := first(errs)
		return &RewriteError{few, n}
	}
	r.done.Remarks = lines(first(remarks))
	return nil
}

// sheet gives a style sheet its name. Those that it refers to have theirs.
func (r *rewriter) sheet(name string) error {
	res, err := r.one(name, r)
	if err != nil {
		return err
	}
	r.use(res.Used)
	file := r.files[name]
	own := file.Digest
	file.Digest, file.Size = DigestOf(res.Out), int64(len(res.Out))
	found := rewrite.File{State: rewrite.Named, Path: name, Name: name, Sum: file.Digest, Changed: file.Digest != own}
	if found.Changed || file.Class != Immutable {
		if found.Name = nameOf(name, &file); found.Name == "" {
			r.sheets[name] = rewrite.File{State: rewrite.Kept, Path: name}
			return nil
		}
	}
	r.sheets[name] = found
	if found.Changed {
		r.done.Sheets++
		r.done.References += res.References
		r.f.rewritten[file.Digest] = name
		if err := r.f.keepMade(file.Digest, res.Out); err != nil {
			return err
		}
	}
	file.Class = Immutable
	r.named[found.Name] = file
	return nil
}

// page changes one page.
func (r *rewriter) page(name string) error {
	res, err := r.one(name, r)
	if err != nil {
		return err
	}
	file := r.files[name]
	d := DigestOf(res.Out)
	if d != file.Digest {
		if err := r.f.keepMade(d, res.Out); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.use(res.Used)
	r.done.References += res.References
	if d != file.Digest {
		r.done.Pages++
		file.Digest, file.Size = d, int64(len(res.Out))
		r.pages[name], r.f.rewritten[d] = file, name
	}
	return nil
}

// inParallel calls f for every name, several at a time, until one fails.
func inParallel(ctx context.Context, names []string, f func(string) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan string)
	var wg sync.WaitGroup
	for range min(maxHashers, max(2, runtime.GOMAXPROCS(0)), len(names)) {
		wg.Go(func() {
			for name := range work {
				if ctx.Err() != nil {
					continue
				}
				if err := f(name); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, name := range names {
		select {
		case work <- name:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}
