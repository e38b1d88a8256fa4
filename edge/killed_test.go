package edge

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// asKilled copies a folder in use into one below base, as a kill leaves it at this
// moment. A file that is renamed while it is copied has the copy begun anew.
func asKilled(t testing.TB, dir, base string) string {
	t.Helper()
	for {
		next, err := os.MkdirTemp(base, "killed")
		if err != nil {
			t.Fatal(err)
		}
		if err = os.CopyFS(next, os.DirFS(dir)); err == nil {
			return next
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}
