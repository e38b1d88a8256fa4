package origin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	pointerExt     = ".json"
	pointerVersion = 1
	// maxPointerBytes bounds a site's file: MaxKeep releases of about 150
	// bytes each.
	maxPointerBytes = 64 << 10
)

// pointer is a site's file: one line of JSON, and one with the line's digest
// (its newline not counted), so that rot is seen.
type pointer struct {
	Version    int            `json:"version"`
	Site       string         `json:"site"`
	Active     Digest         `json:"active"`
	Generation uint64         `json:"generation"`
	At         int64          `json:"at"` // of the flip, Unix milliseconds
	Grace      []gracePointer `json:"grace"`
}

type gracePointer struct {
	Release Digest `json:"release"`
	Until   int64  `json:"until"` // Unix milliseconds
}

// flip returns the pointer after an activation. Activating the active release
// again leaves the grace list alone; a rollback takes its release out of it.
func (p pointer) flip(site string, release Digest, generation uint64, at time.Time, keep int) pointer {
	next := pointer{Version: pointerVersion, Site: site, Active: release, Generation: generation, At: at.UnixMilli(), Grace: []gracePointer{}}
	if !p.Active.IsZero() && p.Active != release {
		next.Grace = append(next.Grace, gracePointer{p.Active, at.Add(GraceTime).UnixMilli()})
	}
	for _, g := range p.Grace {
		if g.Release != release {
			next.Grace = append(next.Grace, g)
		}
	}
	next.Grace = next.Grace[:min(len(next.Grace), keep)]
	return next
}

// write saves p durably.
func (p pointer) write(d disk) error {
	line, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return save(d, p.Site+pointerExt, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n%s\n", line, DigestOf(line))
		return err
	})
}

// readPointer reads a site's file and checks it.
func readPointer(root *os.Root, site string) (pointer, error) {
	var p pointer
	f, err := root.Open(site + pointerExt)
	if err != nil {
		return p, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxPointerBytes+1))
	if err != nil {
		return p, err
	}
	return parsePointer(content, site)
}

// parsePointer reads the content of a site's file.
func parsePointer(content []byte, site string) (pointer, error) {
	var p pointer
	if len(content) > maxPointerBytes {
		return p, fmt.Errorf("%s%s: over %d bytes", site, pointerExt, maxPointerBytes)
	}
	line, sum, _ := bytes.Cut(content, []byte("\n"))
	if string(sum) != DigestOf(line).String()+"\n" {
		return p, fmt.Errorf("%s%s: damaged: the digest in its second line is not that of the first", site, pointerExt)
	}
	if err := json.Unmarshal(line, &p); err != nil {
		return pointer{}, fmt.Errorf("%s%s: %w", site, pointerExt, err)
	}
	switch {
	case p.Version != pointerVersion:
		return pointer{}, fmt.Errorf("%s%s: format version %d, this program reads %d", site, pointerExt, p.Version, pointerVersion)
	case p.Site != site || checkPlace(site) != nil:
		return pointer{}, fmt.Errorf("%s%s: is the file of site %.120q", site, pointerExt, p.Site)
	case p.Active.IsZero():
		return pointer{}, errors.New(site + pointerExt + ": names no release")
	case len(p.Grace) > MaxKeep:
		return pointer{}, fmt.Errorf("%s%s: %d releases in grace, the limit is %d", site, pointerExt, len(p.Grace), MaxKeep)
	}
	return p, nil
}
