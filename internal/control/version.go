//go:build !next_version

package control

// writtenKind is the kind under which a command goes on the log, readKind what a kind
// on the log means.
func writtenKind(kind string) string { return kind }
func readKind(kind string) string    { return kind }
