//go:build unix

package zones

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNamedPipe: a pipe is refused, not waited for.
func TestNamedPipe(t *testing.T) {
	dir := t.TempDir()
	pipe, path := filepath.Join(dir, "pipe.zone"), filepath.Join(dir, "x.test.zone")
	must(t, syscall.Mkfifo(pipe, 0o600))
	put(t, path, zoneText(1, 1)+"$INCLUDE pipe.zone\n")
	for _, p := range []string{pipe, path, dir} {
		z, findings := Load(p, Options{Origin: "x.test"})
		if got := show(findings); z != nil || !strings.Contains(got, "not a regular file") {
			t.Errorf("%s: %s", p, got)
		}
	}
}
