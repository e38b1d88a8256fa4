//go:build !next_version

package feed

const (
	// entryVersion is the format written here, newestEntry the newest that is read:
	// a later one is refused (ErrNewer).
	entryVersion = 1
	newestEntry  = 1
)
