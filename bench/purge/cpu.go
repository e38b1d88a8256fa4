package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// usage is processor time: what the scheduler gave to the processes of the
// control node, of all edges, and of this one (origin, clients and reporters).
type usage struct {
	at                   time.Time
	control, edges, here time.Duration
}

func (f *fleet) cpu() usage {
	u := usage{at: time.Now(), here: cpuOf(os.Getpid())}
	for i, p := range f.procs {
		if i == 0 {
			u.control = cpuOf(p.Process.Pid)
		} else {
			u.edges += cpuOf(p.Process.Pid)
		}
	}
	return u
}

// tick is the unit of /proc/PID/stat: USER_HZ, 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// cpuOf reads utime and stime (proc_pid_stat(5)); 0 for a process that is gone.
func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(b, []byte(") ")) // after the name
	fields := bytes.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * tick
}

func (u usage) since(before usage) string {
	return fmt.Sprintf("%.1f s; processor time: control node %.1f s, all edges %.1f s, clients, origin and reporters %.1f s\n",
		u.at.Sub(before.at).Seconds(), (u.control - before.control).Seconds(), (u.edges - before.edges).Seconds(), (u.here - before.here).Seconds())
}
