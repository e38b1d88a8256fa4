package sysmem

import (
	"os"
	"runtime"
	"testing"
	"testing/fstest"
	"time"
)

const meminfo = "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    3000000 kB\n"

func system(files map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

func TestRead(t *testing.T) {
	const mib = 1 << 20
	for name, test := range map[string]struct {
		files map[string]string
		want  Memory
	}{
		"no Linux":   {nil, Memory{}},
		"no cgroups": {map[string]string{"proc/meminfo": meminfo}, Memory{8000000 << 10, 3000000 << 10, "the machine"}},
		"v2, the limit is that of the group above": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/system.slice/perigee.service\n",
			"sys/fs/cgroup/system.slice/perigee.service/memory.max": "max\n",
			"sys/fs/cgroup/system.slice/memory.max":                 "1073741824\n",
			"sys/fs/cgroup/system.slice/memory.current":             "943718400\n",
			"sys/fs/cgroup/system.slice/memory.stat":                "anon 5\ninactive_file 104857600\n"},
			Memory{1024 * mib, 224 * mib, "/sys/fs/cgroup/system.slice/memory.max"}},
		"v2, more than the machine has": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "99999999999999\n"},
			Memory{8000000 << 10, 3000000 << 10, "the machine"}},
		"v1 in a container, where the path is another": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "9:cpu:/x\n4:hugetlb,memory:/docker/abc\n0::/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "600000000\n"},
			Memory{512 * mib, 0, "/sys/fs/cgroup/memory/memory.limit_in_bytes"}},
		"v1 without limit": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
			Memory{8000000 << 10, 3000000 << 10, "the machine"}},
		"nonsense": {map[string]string{"proc/meminfo": "MemTotal: x\n", "proc/self/cgroup": "\n:\n"}, Memory{}},
	} {
		if got := Read(system(test.files)); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
	if m := Read(os.DirFS("/")); runtime.GOOS == "linux" && (m.Total < 64*mib || m.Available <= 0 || m.Available > m.Total) {
		t.Errorf("this machine: %+v", m)
	}
}

// TestPressure: a cache gives up a step at each look while there is too little,
// keeps a little in any case, and gets back step by step when it has been calm.
func TestPressure(t *testing.T) {
	const gib = 1 << 30
	p := NewPressure(8 * gib)
	at := time.Unix(0, 0)
	next := func(available int64, after time.Duration) int64 {
		at = at.Add(after)
		return p.Next(Memory{Total: 16 * gib, Available: available}, at)
	}
	if n := next(4*gib, 0); n != 8*gib {
		t.Errorf("enough: %d", n)
	}
	if n := next(gib/2, time.Second); n != 7*gib {
		t.Errorf("too little: %d", n)
	}
	if n := next(gib, time.Second); n != 7*gib {
		t.Errorf("just enough: %d", n)
	}
	if n := next(4*gib, time.Second); n != 7*gib {
		t.Errorf("a moment ago too little: %d", n)
	}
	if n := next(4*gib, calm-1); n != 7*gib {
		t.Errorf("not calm yet: %d", n)
	}
	if n := next(4*gib, 1); n != 8*gib {
		t.Errorf("calm: %d", n)
	}
	for range 20 {
		next(0, time.Second)
	}
	if n := next(0, time.Second); n != minCache {
		t.Errorf("no end: %d", n)
	}
	if n := NewPressure(100).Next(Memory{}, at); n != 100 {
		t.Errorf("nothing is known: %d", n)
	}
}
