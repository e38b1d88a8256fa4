//go:build next_version

package feed

import "os"

// This is a perigee of the version to come, for tests of fleets with two versions
// (testdata/cli/versions.txtar): it reads entries of version 2, and writes them where
// PERIGEE_NEXT is "entries".

const newestEntry = 2

var entryVersion = nextOf(os.Getenv("PERIGEE_NEXT"))

func nextOf(what string) int {
	if what == "entries" {
		return 2
	}
	return 1
}
