//go:build next_version

package control

import "os"

// A perigee of the version to come (feed/version_next.go) knows kinds of commands that
// this one does not, and writes them where PERIGEE_NEXT is "kinds".
var nextKinds = map[string]string{KindDrain: "teleport", KindPurge: "purge-region"}

func writtenKind(kind string) string {
	if next, ok := nextKinds[kind]; ok && os.Getenv("PERIGEE_NEXT") == "kinds" {
		return next
	}
	return kind
}

func readKind(kind string) string {
	for known, next := range nextKinds {
		if kind == next {
			return known
		}
	}
	return kind
}
