package config

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// globEscape takes the meaning from a folder's characters that a glob would read.
var globEscape = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// maxGlobbed bounds how many files zone_files may find, over all its globs.
const maxGlobbed = 1_000_000

// readBounded reads a file of at most maxFileBytes, and one byte more if there is more.
func readBounded(r io.Reader) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, maxFileBytes+1))
}

// ExpandZones returns the zones of the [zone."…"] tables, in file order, and
// after them those that zone_files finds now, in order of the globs and their
// files' names. A table without file gets the file that zone_files found for
// it. Names that begin with a dot are passed over. Load has done this once; a
// watcher calls it again when a folder changes. The error is of type *Errors.
func (c *Config) ExpandZones() ([]Zone, error) {
	var zones []Zone
	at := map[string]int{} // origin → index in zones
	for _, z := range c.tables {
		at[z.Origin] = len(zones)
		zones = append(zones, z)
	}
	var found []*Error
	seen := 0
	for i, glob := range c.DNS.ZoneFiles {
		fail := func(text, hint string) {
			found = append(found, c.src.error(c.globs[i], "dns.zone_files", text, hint))
		}
		files, err := filepath.Glob(glob)
		if err != nil {
			fail(err.Error(), "")
			continue
		}
		if seen += len(files); seen > maxGlobbed {
			fail(fmt.Sprintf("finds more than %d files", maxGlobbed), "")
			break
		}
		if len(files) == 0 && !strings.ContainsAny(glob, `*?[\`) {
			fail("there is no file "+glob, "")
		}
		for _, file := range files {
			if strings.HasPrefix(filepath.Base(file), ".") {
				continue // an editor's lock, or a ConfigMap's inner link
			}
			origin, wrong := domainName(strings.TrimSuffix(filepath.Base(file), zoneSuffix), false)
			if wrong != "" {
				fail(fmt.Sprintf("%s: a zone file's name is the zone's: %s", file, wrong), "rename the file, or let the glob end in *"+zoneSuffix)
				continue
			}
			j, twice := at[origin]
			switch {
			case !twice:
				at[origin] = len(zones)
				zones = append(zones, Zone{Origin: origin, File: file, Pos: c.src.position(c.globs[i])})
			case zones[j].File == "":
				zones[j].File = file
			case zones[j].File != file:
				fail(fmt.Sprintf("finds %s for the zone %s, which is also in %s (line %d)", file, origin, zones[j].File, zones[j].Pos.Line), "take one of the files away")
			}
		}
	}
	for _, z := range zones {
		if z.File == "" {
			e := c.ErrorAt(join("zone", strings.TrimSuffix(z.Origin, ".")), "has no file, and zone_files finds none called "+strings.TrimSuffix(z.Origin, ".")+zoneSuffix, fmt.Sprintf("write file = %q", "zones/"+strings.TrimSuffix(z.Origin, ".")+zoneSuffix))
			e.Line, e.Col, e.EndCol = z.Pos.Line, z.Pos.Col, z.Pos.EndCol
			e.line = string(c.src.line(e.Line))
			found = append(found, e)
		}
	}
	return zones, report(found)
}
