package origin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"perigee.example/internal/txtest"
)

// TestRewriteConversations plays testdata/rewrite. The files are a folder, site,
// and the commands:
//
//	rewrite BASE [except GLOB]… [warn]  what changed, the paths by content, what is wrong
//	show PATH                           what is at a path of the manifest
func TestRewriteConversations(t *testing.T) {
	txtest.Run(t, "../testdata/rewrite/*.txtar", func(t testing.TB, files map[string][]byte) txtest.Session {
		dir := filepath.Join(t.TempDir(), "site")
		for name, data := range files {
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		return &rewriteTalk{t: t, dir: dir}
	})
}

type rewriteTalk struct {
	t      testing.TB
	dir    string
	folder *Folder
}

func (k *rewriteTalk) Close() error {
	if k.folder == nil {
		return nil
	}
	return k.folder.Close()
}

func (k *rewriteTalk) Do(cmd string) (string, error) {
	words := strings.Fields(cmd)
	switch words[0] {
	case "rewrite":
		out, err := k.rewrite(words[1], words[2:])
		var wrong *RewriteError
		if errors.As(err, &wrong) {
			return strings.ReplaceAll("error: "+wrong.Render(), k.dir, "site"), nil
		}
		return out, err
	case "show":
		file, ok := k.folder.Manifest.Files[words[1]]
		if !ok {
			return "", fmt.Errorf("no %s in the manifest", words[1])
		}
		b, err := read(k.folder, file.Digest)
		return string(b), err
	}
	return "", fmt.Errorf("%s is not a command of these conversations", words[0])
}

func read(f *Folder, d Digest) ([]byte, error) {
	in, err := f.Open(d)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(in)
}

func (k *rewriteTalk) rewrite(base string, words []string) (string, error) {
	o := &RewriteOptions{Base: base}
	for len(words) > 0 {
		if words[0] == "warn" {
			o.Lax, words = true, words[1:]
		} else {
			o.Except, words = append(o.Except, words[1]), words[2:]
		}
	}
	if err := k.Close(); err != nil {
		return "", err
	}
	var err error
	if k.folder, err = ManifestOf(k.t.Context(), k.dir, FolderOptions{Rewrite: o}); err != nil {
		return "", err
	}
	plain, err := ManifestOf(k.t.Context(), k.dir, FolderOptions{})
	if err != nil {
		return "", err
	}
	defer plain.Close()
	var lines []string
	for name, file := range k.folder.Manifest.Files {
		if have, ok := plain.Manifest.Files[name]; !ok {
			lines = append(lines, fmt.Sprintf("%s (%s)", name, file.Class))
		} else if have.Digest != file.Digest {
			lines = append(lines, name+" changed")
		}
	}
	slices.Sort(lines)
	done := k.folder.Rewritten
	lines = append(lines, fmt.Sprintf("%d references, %d pages, %d sheets, %d named", done.References, done.Pages, done.Sheets, done.Named))
	for _, remark := range done.Remarks {
		lines = append(lines, "warning: "+strings.ReplaceAll(remark, k.dir, "site"))
	}
	return strings.Join(lines, "\n"), nil
}
