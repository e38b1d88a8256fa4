package zones

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
)

// A version that loses more than a fifth of the names of the one before, and
// not just a few, is more often half a file than an intention.
const (
	shrinkShare = 5
	shrinkNames = 20
)

// shrinkage says what a zone would lose, if that is so much that somebody must
// accept it first; else it is empty. The loss of apex SOA or NS is an error of
// the zone itself.
func shrinkage(old, new *Zone) string {
	lost := 0
	var examples []string
	for name := range old.Names() {
		if _, ok := new.Find(name); ok {
			continue
		}
		if lost++; len(examples) < 3 {
			examples = append(examples, FormatName(name))
		}
	}
	if lost < shrinkNames || lost*shrinkShare <= old.Len() {
		return ""
	}
	return fmt.Sprintf("%d of its %d names (%s, …)", lost, old.Len(), strings.Join(examples, ", "))
}

// unchanged reports whether all files of a zone have the text that they had
// when they were read.
func unchanged(files []seenFile) bool {
	for _, f := range files {
		if f.sum == (textHash{}) {
			return false
		}
		sum, err := hashFile(f.path)
		if err != nil || sum != f.sum {
			return false
		}
	}
	return len(files) > 0
}

// hashFile is the hash of a file's text, which is not kept in memory for it.
func hashFile(path string) (sum textHash, err error) {
	f, _, err := openRegular(path, os.Stat, openFile)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxZoneBytes)); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}
