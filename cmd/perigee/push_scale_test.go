//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pushSize is how large TestPushScale is.
type pushSize struct {
	files int
	film  int64 // bytes of one large file
	most  int64 // KiB of memory that no process may pass
}

// In CI a few seconds; `make test-push-big` has the sizes that users have.
var (
	smallPush = pushSize{files: 600, film: 400 << 20, most: 350 << 10}
	bigPush   = pushSize{files: 60_000, film: 5 << 30, most: 1 << 20}
)

// TestPushScale: a push of many files and of one that is larger than the memory
// that anybody may use for it; then again, with one file changed. The bound
// on memory is what is tested, of the command, the control node and the edge.
func TestPushScale(t *testing.T) {
	t.Parallel()
	size := smallPush
	if os.Getenv("PERIGEE_BIG") != "" {
		size = bigPush
	}
	f := newPushFleet(t)
	rng := rand.New(rand.NewPCG(3, 4))
	site := filepath.Join(f.dir, "site")
	for i := range size.files {
		path := filepath.Join(site, fmt.Sprintf("docs/part-%03d/page-%05d.html", i/200, i))
		if i%200 == 0 {
			f.check(os.MkdirAll(filepath.Dir(path), 0o755))
		}
		text := []byte("<!doctype html>\n<p>")
		for range 100 + rng.IntN(200) {
			text = strconv.AppendUint(append(text, ' '), uint64(rng.IntN(3000)), 36)
		}
		f.check(os.WriteFile(path, text, 0o644))
	}
	film, err := os.Create(filepath.Join(site, "film.mp4"))
	f.check(err)
	f.check(film.Truncate(size.film))
	_, err = film.WriteAt([]byte("the end"), size.film-7)
	f.check(err)
	f.check(film.Close())

	first := f.push(site)
	f.match(first, fmt.Sprintf(`^sent %d files of %d and \d+ compressed variants .*applied on 1 of 1 node`, size.files+1, size.files+1))
	f.check(os.WriteFile(filepath.Join(site, "docs/part-001/page-00222.html"), []byte("another"), 0o644))
	f.match(f.push(site), fmt.Sprintf(`^sent 1 file of %d \(7 B of `, size.files+1))
	for name, kib := range map[string]int64{"push": f.pushed, "control": peakKiB(t, f.control), "edge": peakKiB(t, f.edge)} {
		t.Logf("%s: at most %d MiB of memory", name, kib>>10)
		if kib > size.most {
			t.Errorf("%s took %d MiB, more than %d", name, kib>>10, size.most>>10)
		}
	}
}

// pushFleet is a control node and an edge, each a process.
type pushFleet struct {
	t             *testing.T
	dir           string
	env           []string
	control, edge *process
	pushed        int64 // KiB that a push took at most
}

func newPushFleet(t *testing.T) *pushFleet {
	f := &pushFleet{t: t, dir: t.TempDir()}
	hosts, err := loopbackHosts(1)
	f.check(err)
	ports, err := freePorts(hosts, 4)
	f.check(err)
	toml := fmt.Sprintf("version = 1\n[control]\nlisten = \"%[1]s:%[2]d\"\naddresses = [\"https://%[1]s:%[2]d\"]\nfeed_listen = \"%[1]s:%[3]d\"\nblob_listen = \"%[1]s:%[4]d\"\n"+
		"[edge.fra1]\naddresses = [%[1]q]\nlisten = [\"%[1]s:%[5]d\"]\n[site.www]\nhosts = [\"www.scale.test\"]\npush = true\n", hosts[0], ports[0], ports[1], ports[2], ports[3])
	f.check(os.WriteFile(filepath.Join(f.dir, "perigee.toml"), []byte(toml), 0o644))
	f.env = append(os.Environ(), "PERIGEE_TOKEN_FILE="+filepath.Join(f.dir, "ctl/control/admin.token"))
	f.control = f.start("control", "serve", "control", "--state", "ctl")
	f.check(os.Mkdir(filepath.Join(f.dir, "fra1"), 0o755))
	f.run("node", "add", "fra1", "--out", "fra1/node.pem")
	f.edge = f.start("edge", "serve", "edge", "fra1", "--state", "fra1")
	return f
}

func (f *pushFleet) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *pushFleet) match(out, re string) {
	f.t.Helper()
	if !regexp.MustCompile(re).MatchString(out) {
		f.t.Fatalf("%q does not match %q", out, re)
	}
}

func (f *pushFleet) start(name string, args ...string) *process {
	f.t.Helper()
	cmd := exec.Command("perigee", args...)
	cmd.Dir, cmd.Env = f.dir, f.env
	p, err := startProcess(name, filepath.Join(f.dir, name+".log"), cmd)
	f.check(err)
	f.t.Cleanup(func() {
		p.kill()
		if text := p.text(); strings.Contains(text, raceReport) || f.t.Failed() {
			f.t.Errorf("%s printed\n%s", name, text[:min(len(text), 4000)])
		}
	})
	for !strings.Contains(p.text(), "msg=ready") {
		if p.ended() {
			f.t.Fatalf("%s ended", name)
		}
		time.Sleep(pollEvery)
	}
	return p
}

// run runs a command to its end, and returns what it printed as its result: how
// far it is goes to standard error.
func (f *pushFleet) run(args ...string) string {
	f.t.Helper()
	cmd := exec.Command("perigee", args...)
	cmd.Dir, cmd.Env = f.dir, f.env
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	f.check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				f.t.Fatalf("perigee %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), stderr.String())
			}
			return out.String()
		case <-time.After(pollEvery):
			// Not what wait4 tells: that begins with the memory of this very process.
			if kib, ok := peakOf(cmd.Process.Pid); ok {
				f.pushed = max(f.pushed, kib)
			}
		}
	}
}

func (f *pushFleet) push(site string) string {
	f.t.Helper()
	return f.run("push", site, "www", "--wait", "all", "--within", "20m")
}

// peakKiB is the most memory that a process had.
func peakKiB(t *testing.T, p *process) int64 {
	t.Helper()
	kib, ok := peakOf(p.cmd.Process.Pid)
	if !ok {
		t.Fatalf("no VmHWM of process %d", p.cmd.Process.Pid)
	}
	return kib
}

// peakOf is peakKiB; false for a process that has ended.
func peakOf(pid int) (kib int64, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		return 0, false
	}
	kib, err = strconv.ParseInt(string(m[1]), 10, 64)
	return kib, err == nil
}
