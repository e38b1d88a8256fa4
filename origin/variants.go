package origin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// minCompress and maxCompress bound the files that get encoded variants.
	// Below, the fields cost more than is saved; above, it is data, not a page,
	// and one file would hold up a push for minutes.
	minCompress = 512
	maxCompress = 16 << 20
	// A variant is kept when it saves at least one part in minSaving.
	minSaving = 20
	// brotliLevel: the highest levels cost five times the time for a percent.
	brotliLevel = 9
)

// Variant is a file's content in a content coding (RFC 9110 §8.4.1). It is a
// blob of its own; the file's digest stays that of the content itself.
type Variant struct {
	Coding string `json:"coding"`
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"` // in bytes
}

// Codings are the content codings that a push makes, the best first.
var Codings = []string{"br", "zstd", "gzip"}

// compressible reports whether content of a type is worth compressing.
func compressible(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	if strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml") {
		return true
	}
	switch t {
	case "application/json", "application/javascript", "application/xml", "application/wasm", "application/manifest+json",
		"application/vnd.ms-fontobject", "font/ttf", "font/otf", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon":
		return true
	}
	return false
}

// smallWindow is up to where content is compressed by brotli with a window of
// its own size: tables for a page are a twentieth of those for a book.
const smallWindow = 16

// hugeSize is from where brotli searches by other tables. It chooses them for the
// first content that it gets and keeps them, so that each kind has an encoder of
// its own: else a variant would depend on what was compressed before it.
const hugeSize = 1 << 20

// encoders are the compressors of one goroutine. Each is used again for every
// file: making one takes a hundred times as long as compressing a page.
type encoders struct {
	small, large, huge *brotli.Writer
	gzip               *gzip.Writer
	zstd               *zstd.Encoder
	out                bytes.Buffer
}

func newEncoders() (e *encoders, err error) {
	e = &encoders{
		small: brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: brotliLevel, LGWin: smallWindow}),
		large: brotli.NewWriterLevel(nil, brotliLevel),
		huge:  brotli.NewWriterLevel(nil, brotliLevel), // its tables are made when there is such a file
	}
	if e.gzip, err = gzip.NewWriterLevel(nil, gzip.BestCompression); err != nil {
		return nil, err
	}
	// A window within RFC 9659's 8 MiB.
	e.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	return e, err
}

// encode returns b in a content coding, valid until the next call. The outcome
// depends on b alone.
func (e *encoders) encode(coding string, b []byte) ([]byte, error) {
	e.out.Reset()
	var w interface {
		io.WriteCloser
		Reset(io.Writer)
	}
	switch coding {
	case "br":
		switch {
		case len(b) >= hugeSize:
			w = e.huge
		case len(b) > 1<<smallWindow:
			w = e.large
		default:
			w = e.small
		}
	case "gzip":
		w = e.gzip
	case "zstd":
		return e.zstd.EncodeAll(b, e.out.AvailableBuffer()), nil
	default:
		return nil, fmt.Errorf("content coding %q", coding)
	}
	w.Reset(&e.out)
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return e.out.Bytes(), nil
}

// compress makes the variants of every file that is worth it, into a temporary
// folder. Each is checked by its digest when it is stored, like any blob.
func (f *Folder) compress(ctx context.Context, progress func(FolderProgress)) error {
	contents := f.toCompress()
	p := FolderProgress{Stage: StageCompress, TotalFiles: len(contents)}
	for _, paths := range contents {
		p.TotalBytes += f.Manifest.Files[paths[0]].Size
	}
	work := make(chan []string)
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range min(maxHashers, max(2, runtime.GOMAXPROCS(0))) {
		wg.Go(func() {
			enc, err := newEncoders()
			for paths := range work {
				path := paths[0]
				mu.Lock()
				file := f.Manifest.Files[path]
				mu.Unlock()
				var variants []Variant
				if err == nil {
					variants, err = f.variantsOf(enc, &file)
				}
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: compress: %w", path, err))
					cancel()
				}
				for _, name := range paths {
					same := f.Manifest.Files[name]
					same.Variants = variants
					f.Manifest.Files[name] = same
				}
				for _, v := range variants {
					f.variant[v.Digest] = path
				}
				p.Files++
				p.Bytes += file.Size
				if progress != nil {
					progress(p)
				}
				mu.Unlock()
			}
		})
	}
	for _, paths := range contents {
		select {
		case work <- paths:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	return errors.Join(append(errs, context.Cause(ctx))...)
}

// toCompress are the paths of files that are worth it, those of the same content
// together, in order.
func (f *Folder) toCompress() [][]string {
	byContent := map[Digest][]string{}
	for path, file := range f.Manifest.Files {
		if file.Size >= minCompress && file.Size <= maxCompress && compressible(file.Type) {
			byContent[file.Digest] = append(byContent[file.Digest], path)
		}
	}
	contents := make([][]string, 0, len(byContent))
	for _, paths := range byContent {
		slices.Sort(paths)
		contents = append(contents, paths)
	}
	slices.SortFunc(contents, slices.Compare)
	return contents
}

// variantsOf makes the variants of one file that are smaller enough.
func (f *Folder) variantsOf(enc *encoders, file *File) ([]Variant, error) {
	src, err := f.Open(file.Digest)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	content, err := io.ReadAll(io.LimitReader(src, maxCompress+1))
	if err != nil {
		return nil, err
	}
	if DigestOf(content) != file.Digest {
		return nil, errors.New("the file changed while it was read: push again")
	}
	var variants []Variant
	for _, coding := range Codings {
		b, err := enc.encode(coding, content)
		if err != nil {
			return nil, err
		}
		if int64(len(b)) > file.Size-file.Size/minSaving {
			continue
		}
		d := Digest(sha256.Sum256(b))
		if err := f.keepMade(d, b); err != nil {
			return nil, err
		}
		variants = append(variants, Variant{coding, d, int64(len(b))})
	}
	return variants, nil
}

// keepMade puts a blob into the temporary folder, made at the first one.
func (f *Folder) keepMade(d Digest, b []byte) error {
	f.madeMu.Lock()
	if f.made == "" {
		dir, err := os.MkdirTemp("", "perigee-push-")
		if err != nil {
			f.madeMu.Unlock()
			return err
		}
		f.made = dir
	}
	f.madeMu.Unlock()
	return os.WriteFile(f.madeName(d), b, 0o600)
}

func (f *Folder) madeName(d Digest) string { return f.made + string(os.PathSeparator) + d.String() }

// checkVariants says what is wrong with a file's variants, or nothing.
func checkVariants(f *File) string {
	last := -1
	for _, v := range f.Variants {
		at := slices.Index(Codings, v.Coding)
		switch {
		case at < 0:
			return fmt.Sprintf("coding %.40q: want %s", v.Coding, strings.Join(Codings, ", "))
		case at <= last:
			return fmt.Sprintf("coding %s is out of order or there twice", v.Coding)
		case v.Digest.IsZero() || v.Size <= 0 || v.Size >= f.Size:
			return fmt.Sprintf("the %s variant has no digest, or is not smaller than the file", v.Coding)
		}
		last = at
	}
	return ""
}

// Variant returns the variant for a request's Accept-Encoding (RFC 9110
// §12.5.3): of the codings with the highest weight the first of Codings; nil
// when the content itself is to be sent.
func (f *File) Variant(accept string) *Variant {
	if len(f.Variants) == 0 || accept == "" {
		return nil
	}
	best, bestWeight := (*Variant)(nil), 0
	for i := range f.Variants {
		if w := weightOf(accept, f.Variants[i].Coding); w > bestWeight {
			best, bestWeight = &f.Variants[i], w
		}
	}
	if best != nil && weightOf(accept, "identity") > bestWeight {
		return nil
	}
	return best
}

// weightOf returns a coding's weight in thousandths; 0 is not acceptable. A
// field that cannot be read accepts nothing, so that junk gets the content itself.
func weightOf(accept, coding string) int {
	star, found := 0, -1
	for member := range strings.SplitSeq(accept, ",") {
		name, params, _ := strings.Cut(member, ";")
		name = strings.Trim(name, " \t")
		w, ok := qvalue(strings.Trim(params, " \t"))
		switch {
		case !ok || name != "" && !isToken(name):
			return 0
		case strings.EqualFold(name, coding) || coding == "gzip" && strings.EqualFold(name, "x-gzip"):
			found = max(found, w)
		case name == "*":
			star = w
		}
	}
	if found >= 0 {
		return found
	}
	if coding == "identity" {
		return 0 // acceptable, but nobody asked for it
	}
	return star
}

// qvalue reads "q=0.5" in thousandths; an empty text is 1.
func qvalue(s string) (int, bool) {
	if s == "" {
		return 1000, true
	}
	if len(s) < 3 || s[0]|0x20 != 'q' || s[1] != '=' || len(s) > 7 {
		return 0, false
	}
	s = s[2:]
	if s[0] != '0' && s[0] != '1' || len(s) > 1 && s[1] != '.' {
		return 0, false
	}
	w, scale := int(s[0]-'0')*1000, 100
	for i := 2; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		w += int(s[i]-'0') * scale
		scale /= 10
	}
	return w, w <= 1000
}
