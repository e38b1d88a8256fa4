package origin

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// noFiles makes what is in a file system and is no file, by name; devices need the right
// to make them. One of them has no end, one waits for somebody at the other end.
var noFiles = map[string]func(path string) error{
	"null":  func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
	"zero":  func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
	"block": func(path string) error { return unix.Mknod(path, unix.S_IFBLK|0o666, int(unix.Mkdev(7, 250))) },
	"pipe":  func(path string) error { return syscall.Mkfifo(path, 0o666) },
	"socket": func(path string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		return l.Close()
	},
}

// TestFolderDevices: a device, a pipe or a socket in a folder is refused by its name,
// wherever it is, in the place of a rule file and behind a link too, without being read.
func TestFolderDevices(t *testing.T) {
	for kind, create := range noFiles {
		for _, at := range []string{"bad", "sub/bad", ".well-known/bad", "_headers", "_redirects", "link"} {
			dir := tree(t, "good.txt", "x", "sub/good.txt", "x", ".well-known/good.txt", "x")
			path := at
			if at == "link" {
				path = ".hidden"
				if err := os.Symlink(".hidden", filepath.Join(dir, "link")); err != nil {
					t.Fatal(err)
				}
			}
			if err := create(filepath.Join(dir, path)); err != nil {
				if kind != "null" && kind != "zero" && kind != "block" || os.Getenv("CI") == "true" && os.Getuid() == 0 {
					t.Fatalf("%s: %v", kind, err)
				}
				t.Logf("%s: cannot be made here: %v", kind, err)
				continue
			}
			f, err := ManifestOf(t.Context(), dir, FolderOptions{})
			if err == nil {
				f.Close()
				t.Errorf("%s as %s: accepted", kind, at)
				continue
			}
			if !strings.Contains(err.Error(), at) {
				t.Errorf("%s as %s: the error does not name it: %v", kind, at, err)
			}
		}
	}
}

// TestFileBecomesADevice: a file that was hashed and is something else when it is to be
// sent is an error, and nobody waits for the other end of a pipe.
func TestFileBecomesADevice(t *testing.T) {
	for kind, create := range noFiles {
		dir := tree(t, "a.txt", "x")
		f, err := ManifestOf(t.Context(), dir, FolderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "a.txt")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := create(path); err != nil {
			t.Logf("%s: cannot be made here: %v", kind, err)
		} else if r, err := f.Open(DigestOf([]byte("x"))); err == nil {
			t.Errorf("%s: opened", kind)
			r.Close()
		}
		f.Close()
	}
}
