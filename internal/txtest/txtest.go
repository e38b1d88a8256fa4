// Package txtest runs txtar conversations: files that an operator can read
// and that "go test -update" rewrites. It also knows which outside programs
// tests need, and says by name which tests were skipped for want of one.
//
// It is for tests only, and it is the one place beside zones that may use
// miekg/dns: what our own code writes is read back here by another's.
package txtest

import (
	"os"
	"os/exec"
	"testing"
)

// Need skips the test when one of tools is not on the PATH. Under CI=true it
// fails instead, so that a build machine cannot lose a test in silence.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs %s: install it with make tools", tool)
		}
		t.Skipf("needs %s: install it with make tools", tool)
	}
}
