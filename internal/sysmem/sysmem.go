// Package sysmem says how much memory a process may have, and how much of that
// is left: by the machine, and by each control group that it is in (cgroup v2
// and v1). It reads files of the system through an fs.FS of its root, os.DirFS("/")
// but in tests; where they are missing, as on systems other than Linux, it
// knows nothing and says 0.
package sysmem

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// unlimited is what cgroup v1 says where there is no limit: about 2^63, rounded
// down to pages. No machine has half of it.
const unlimited = 1 << 62

// Memory is what a process may have, in octets.
type Memory struct {
	Total     int64  // 0: not known
	Available int64  // of it; what the system can take from caches of files counts
	Source    string // what bounds Total: "the machine", or a control group's file
}

// Read asks the system.
func Read(root fs.FS) Memory {
	info := fields(root, "proc/meminfo")
	m := Memory{Total: info["MemTotal:"] << 10, Available: info["MemAvailable:"] << 10, Source: "the machine"}
	if m.Total == 0 {
		return Memory{}
	}
	for _, line := range lines(root, "proc/self/cgroup") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			m.group(root, "sys/fs/cgroup", parts[2], "memory.max", "memory.current", "inactive_file")
		case hasWord(parts[1], "memory"):
			m.group(root, "sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
		}
	}
	return m
}

// group holds m against a control group and those above it. In a container the
// group's own path may lie outside of what is mounted: then the mount is the group.
func (m *Memory) group(root fs.FS, mount, at, limitFile, usageFile, inactive string) {
	for at = path.Clean("/" + at); ; at = path.Dir(at) {
		dir := path.Join(mount, at)
		limit, ok := number(root, path.Join(dir, limitFile))
		if ok && limit < unlimited {
			if limit < m.Total {
				m.Total, m.Source = limit, "/"+path.Join(dir, limitFile)
			}
			if usage, ok := number(root, path.Join(dir, usageFile)); ok {
				usage -= fields(root, path.Join(dir, "memory.stat"))[inactive]
				m.Available = min(m.Available, max(0, limit-usage))
			}
		}
		if at == "/" {
			return
		}
	}
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

func lines(root fs.FS, name string) []string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// number reads a file that is one number; "max" is none.
func number(root fs.FS, name string) (int64, bool) {
	l := lines(root, name)
	if len(l) != 1 {
		return 0, false
	}
	n, err := strconv.ParseInt(l[0], 10, 64)
	return n, err == nil && n >= 0
}

// fields reads lines of a name and a number, whatever follows.
func fields(root fs.FS, name string) map[string]int64 {
	m := map[string]int64{}
	for _, line := range lines(root, name) {
		if f := strings.Fields(line); len(f) >= 2 {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				m[f[0]] = n
			}
		}
	}
	return m
}
