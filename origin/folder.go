package origin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/text/unicode/norm"
)

// maxHashers bounds the files that are read at a time: more than this gains
// nothing on the disks we know, and costs memory and seeks.
const maxHashers = 8

// Folder is a folder of files as a release in the making.
type Folder struct {
	Manifest *Manifest
	Skipped  []Skipped // in order of paths

	Rewritten *Rewritten // nil: nothing was to be rewritten

	root      *os.Root
	local     map[Digest]string // where each blob can be read
	rewritten map[Digest]string // the path of which each is the changed file
	variant   map[Digest]string // the path of which each variant is one

	madeMu sync.Mutex
	made   string // temporary folder of what was made; "" when there is nothing
}

// Skipped is a file or folder that ManifestOf left out on purpose.
type Skipped struct {
	Path string
	Why  string
}

// The stages of ManifestOf.
const (
	StageHash     = "hash"
	StageRewrite  = "rewrite" // each page is read twice, and counts twice
	StageCompress = "compress"
)

// FolderProgress is how far a stage of ManifestOf is.
type FolderProgress struct {
	Stage             string
	Files, TotalFiles int
	Bytes, TotalBytes int64
}

// FolderOptions adjust ManifestOf.
type FolderOptions struct {
	// Rewrite, if not nil, gives what pages refer to names by content.
	Rewrite *RewriteOptions
	// Progress, if not nil, is called after each file, never twice at a time.
	Progress func(FolderProgress)
}

// ManifestOf walks dir and hashes what it finds, several files at a time. The
// caller closes the Folder.
//
// Names that begin with a dot are left out and listed in Skipped, all but
// .well-known at the top (RFC 8615): what tools and editors keep there (.git,
// .env, .DS_Store) was rarely meant to be published. A symbolic link is
// followed when it leads to a file below dir; to a folder, or out of dir, it is
// an error, and so is a socket, pipe or device, a name that no manifest may
// hold, and a folder without any file: an empty release is hardly ever meant.
func ManifestOf(ctx context.Context, dir string, o FolderOptions) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{
		Manifest: &Manifest{Version: ManifestVersion, Files: map[string]File{}}, root: root,
		local: map[Digest]string{}, rewritten: map[Digest]string{}, variant: map[Digest]string{},
	}
	if err := f.fill(ctx, dir, o); err != nil {
		f.Close()
		return nil, fmt.Errorf("folder %s: %w", dir, err)
	}
	return f, nil
}

// Open opens a blob of the manifest for reading. The file may have changed
// since it was hashed: who stores it must check the digest, as Blobs.Put does. One that
// is no file any more is an error.
func (f *Folder) Open(d Digest) (*os.File, error) {
	if name, ok := f.local[d]; ok {
		return openRegular(f.root, name)
	}
	if f.made != "" {
		return os.Open(f.madeName(d))
	}
	return nil, fmt.Errorf("blob %s: %w", d, fs.ErrNotExist)
}

// Path returns where, below the folder, a blob was found; for a variant, the
// coding behind the name of its file.
func (f *Folder) Path(d Digest) string {
	if name, ok := f.local[d]; ok {
		return name
	}
	if name, ok := f.rewritten[d]; ok {
		return name
	}
	name := f.variant[d]
	for _, v := range f.Manifest.Files[name].Variants {
		if v.Digest == d {
			return name + " (" + v.Coding + ")"
		}
	}
	return ""
}

// Made reports whether a blob is a variant that was made here, not a file.
func (f *Folder) Made(d Digest) bool {
	_, file := f.local[d]
	_, changed := f.rewritten[d]
	return !file && !changed
}

// Close releases the folder, and removes what was made of it.
// Files that Open returned stay readable.
func (f *Folder) Close() error {
	err := f.root.Close()
	if f.made != "" {
		err = errors.Join(err, os.RemoveAll(f.made))
	}
	return err
}

// found is one file of the walk.
type found struct {
	name string // below the root, as the disk has it
	path string // in the manifest
	size int64  // at the time of the walk
}

func (f *Folder) fill(ctx context.Context, dir string, o FolderOptions) error {
	files, err := f.walk(ctx)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("no files to publish")
	}
	if err := f.rules(); err != nil {
		return err
	}
	if err := f.hash(ctx, files, o.Progress); err != nil {
		return err
	}
	if o.Rewrite != nil {
		if err := f.rewrite(ctx, dir, o.Rewrite, o.Progress); err != nil {
			return err
		}
	}
	if err := f.compress(ctx, o.Progress); err != nil {
		return err
	}
	_, _, err = f.Manifest.Canonical()
	return err
}

// walk lists the files to publish, and refuses what must not be.
func (f *Folder) walk(ctx context.Context) ([]found, error) {
	var files []found
	var errs []error
	byPath := map[string]string{}
	err := fs.WalkDir(f.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if name == "." {
			return nil
		}
		if strings.HasPrefix(e.Name(), ".") && name != ".well-known" {
			f.Skipped = append(f.Skipped, Skipped{name, "its name begins with a dot"})
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.IsDir() || name == headersFile || name == redirectsFile {
			return nil
		}
		size, err := f.examine(name, e)
		p := norm.NFC.String(name)
		if twin, ok := byPath[p]; err == nil && ok {
			err = &PathError{name, fmt.Sprintf("is %q in another Unicode form: rename one", twin)}
		}
		byPath[p] = name
		if err != nil {
			if errs = append(errs, err); len(errs) == maxPathErrors {
				return fs.SkipAll
			}
			return nil
		}
		if files = append(files, found{name, p, size}); len(files) > MaxFiles {
			return fmt.Errorf("over %d files: split the site", MaxFiles)
		}
		return nil
	})
	return files, errors.Join(append(errs, err)...)
}

// examine returns the size of a file that may be published.
func (f *Folder) examine(name string, e fs.DirEntry) (int64, error) {
	if text := checkPath(norm.NFC.String(name)); text != "" {
		return 0, &PathError{name, text}
	}
	st, err := f.root.Stat(name) // follows links, never out of the root
	link := e.Type()&fs.ModeSymlink != 0
	switch {
	case err != nil && link:
		return 0, &PathError{name, "a symbolic link that leads out of the folder or to nothing: put the file itself there"}
	case err != nil:
		return 0, err
	case st.IsDir():
		return 0, &PathError{name, "a symbolic link to a folder: put the folder itself there"}
	case !st.Mode().IsRegular():
		return 0, &PathError{name, fmt.Sprintf("not a file (%s)", st.Mode().Type())}
	}
	return st.Size(), nil
}

// hash fills the manifest.
func (f *Folder) hash(ctx context.Context, files []found, progress func(FolderProgress)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := FolderProgress{Stage: StageHash, TotalFiles: len(files)}
	for _, file := range files {
		p.TotalBytes += file.size
	}
	work := make(chan found)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range min(maxHashers, max(2, runtime.GOMAXPROCS(0)), len(files)) {
		wg.Go(func() {
			for file := range work {
				d, size, err := f.hashOne(ctx, file.name)
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				f.Manifest.Files[file.path] = File{Digest: d, Size: size, Type: TypeOf(file.path), Class: Classify(file.path)}
				f.local[d] = file.name
				p.Files++
				p.Bytes += size
				p.TotalBytes += size - file.size // it grew or shrank since the walk
				if progress != nil {
					progress(p)
				}
				mu.Unlock()
			}
		})
	}
	for _, file := range files {
		select {
		case work <- file:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

func (f *Folder) hashOne(ctx context.Context, name string) (Digest, int64, error) {
	file, err := openRegular(f.root, name)
	if err != nil {
		return Digest{}, 0, err
	}
	defer file.Close()
	h := sha256.New()
	n, err := io.Copy(h, &contextReader{ctx, file})
	if err != nil {
		return Digest{}, 0, fmt.Errorf("%s: %w", name, err)
	}
	return Digest(h.Sum(nil)), n, nil
}

// openRegular opens a file below root, and nothing but a file: opening a pipe
// would wait for a writer, so it is done without waiting and then looked at.
func openRegular(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &PathError{path.Clean(name), "not a file"}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// contextReader ends a long read when ctx does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
