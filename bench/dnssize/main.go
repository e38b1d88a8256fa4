// Command dnssize starts Perigee and the name servers that Debian has, one
// after the other, with equal zones of growing size, and prints how long each
// takes until it answers, and how much CPU time and memory that costs.
//
//	go run ./bench/dnssize -perigee bin/perigee -rounds 3 -sizes 1000000,10000000 -zones 20000
//
// Each server is pinned to one core (-core) and waited for from the others by
// questions for its last name. Ready and CPU are medians over the rounds, which
// are interleaved; memory is the peak (VmHWM) and what is resident a second
// after (VmRSS). A server that is not installed is left out, and said so. It is
// for people: it holds no goal and fails only when a server does not answer.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	perigee := flag.String("perigee", "bin/perigee", "the binary")
	rounds := flag.Int("rounds", 3, "rounds")
	sizes := flag.String("sizes", "1000000", "names of the one zone, several with commas between")
	zones := flag.Int("zones", 20_000, "small zones; 0 leaves them out")
	core := flag.String("core", "0", "the core that servers are pinned to")
	client := flag.String("client", "1", "the core that dnsperf is pinned to")
	only := flag.String("only", "", "servers, with commas between; all by default")
	loss := flag.Bool("loss", false, "compare the cost of an answer from a small and a large zone too")
	flag.Parse()
	bin, err := filepath.Abs(*perigee)
	if err != nil {
		fatal(err)
	}
	b := &bench{bin: bin, rounds: *rounds, core: *core, client: *client, only: *only}
	for _, text := range strings.Split(*sizes, ",") {
		if n, err := strconv.Atoi(text); err == nil && n > 0 {
			b.compare(fmt.Sprintf("one zone of %d names", n), data{names: n})
		} else if text != "" {
			fatal(fmt.Errorf("-sizes: %q is no number of names", text))
		}
	}
	if *zones > 0 {
		b.compare(fmt.Sprintf("%d zones", *zones), data{zones: *zones})
	}
	if *loss {
		if err := b.loss(); err != nil {
			fatal(err)
		}
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "dnssize:", err)
	os.Exit(1)
}

// bench is one run of the program.
type bench struct {
	bin    string
	rounds int
	core   string
	client string
	only   string
}

// data says which zones the servers get: one of so many names, or so many.
type data struct{ names, zones int }

// figures is what one start of a server cost.
type figures struct {
	ready, cpu time.Duration
	peak, rss  int           // KiB
	gc         time.Duration // the longest cycle of the collector: CPU of all its phases
	cycles     int
}

// compare runs every server over the same zones and prints a table.
func (b *bench) compare(title string, d data) {
	root, err := os.MkdirTemp("", "dnssize-")
	if err != nil {
		fatal(err)
	}
	defer os.RemoveAll(root)
	question, err := d.write(filepath.Join(root, "zones"))
	if err != nil {
		fatal(err)
	}
	seen := map[string][]figures{}
	var order []string
	for range b.rounds {
		for _, s := range servers {
			if b.only != "" && !slices.Contains(strings.Split(b.only, ","), s.name) {
				continue
			}
			program := s.program
			if s.name == "perigee" {
				program = b.bin
			}
			if _, err := exec.LookPath(program); err != nil {
				if len(seen[s.name]) == 0 && !slices.Contains(order, s.name) {
					fmt.Fprintf(os.Stderr, "dnssize: %s is not installed and left out\n", s.name)
					order = append(order, s.name)
				}
				continue
			}
			f, err := b.start(root, s, program, d, question)
			if err != nil {
				fmt.Fprintf(os.Stderr, "dnssize: %s: %v\n", s.name, err)
				continue
			}
			if len(seen[s.name]) == 0 && !slices.Contains(order, s.name) {
				order = append(order, s.name)
			}
			seen[s.name] = append(seen[s.name], f)
		}
	}
	show(title, order, seen)
}

func show(title string, order []string, seen map[string][]figures) {
	fmt.Printf("%s\n%-10s %22s %22s %9s %9s  %s\n", title, "", "ready s", "CPU s at ready", "peak MiB", "RSS MiB", "longest GC cycle")
	first := median(seen["perigee"], func(f figures) time.Duration { return f.cpu })
	for _, name := range order {
		list := seen[name]
		if len(list) == 0 {
			continue
		}
		ready := median(list, func(f figures) time.Duration { return f.ready })
		cpu := median(list, func(f figures) time.Duration { return f.cpu })
		ratio := ""
		if name != "perigee" && first > 0 {
			ratio = fmt.Sprintf(" (perigee %.2f)", first.Seconds()/cpu.Seconds())
		}
		gc := ""
		if list[0].cycles > 0 {
			gc = fmt.Sprintf("%.2f ms of CPU, %d cycles", float64(median(list, func(f figures) time.Duration { return f.gc }).Microseconds())/1000, list[0].cycles)
		}
		fmt.Printf("%-10s %22.2f %22s %9d %9d  %s\n", name, ready.Seconds(), fmt.Sprintf("%.2f%s", cpu.Seconds(), ratio),
			median(list, func(f figures) int { return f.peak })>>10, median(list, func(f figures) int { return f.rss })>>10, gc)
	}
	fmt.Println()
}

func median[T cmp.Ordered](list []figures, of func(figures) T) T {
	var all []T
	for _, f := range list {
		all = append(all, of(f))
	}
	slices.Sort(all)
	if len(all) == 0 {
		var none T
		return none
	}
	return all[len(all)/2]
}

const head = "$TTL 3600\n@ IN SOA ns1 hostmaster 1 7200 900 1209600 300\n@ IN NS ns1\nns1 IN A 192.0.2.53\n"

// write makes the zone files, and returns the last name in them.
func (d data) write(dir string) (question string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for i := range d.zones {
		text := head + "www IN A 192.0.2.1\nmail IN A 192.0.2.2\n@ IN MX 10 mail\n"
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("zone%05d.test.zone", i)), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	if d.zones > 0 {
		return fmt.Sprintf("www.zone%05d.test.", d.zones-1), nil
	}
	f, err := os.Create(filepath.Join(dir, "zone00000.test.zone"))
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(f)
	fmt.Fprint(w, head)
	for i := range d.names { // names in no order, addresses that differ
		fmt.Fprintf(w, "host%08d A 10.%d.%d.%d\n", i*7919%d.names, i>>16&255, i>>8&255, i&255)
	}
	return fmt.Sprintf("host%08d.zone00000.test.", (d.names-1)*7919%d.names), errors.Join(w.Flush(), f.Close())
}

func (d data) origins() []string {
	var list []string
	for i := range max(1, d.zones) {
		list = append(list, fmt.Sprintf("zone%05d.test", i))
	}
	return list
}

// start starts one server, waits for its answer and measures.
func (b *bench) start(root string, s server, program string, d data, question string) (f figures, err error) {
	dir, err := os.MkdirTemp(root, s.name)
	if err != nil {
		return f, err
	}
	port, err := freePort()
	if err != nil {
		return f, err
	}
	args, err := s.configure(dir, filepath.Join(root, "zones"), port, d)
	if err != nil {
		return f, err
	}
	var out bytes.Buffer
	cmd := exec.Command("taskset", append([]string{"-c", b.core, program}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	cmd.Dir = dir
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return f, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		f.gc, f.cycles = collections(out.String())
	}()
	for !answers(port, question) {
		select {
		case err := <-ended:
			ended <- err
			return f, fmt.Errorf("it ended (%v): %s", err, out.String())
		default:
		}
		if time.Since(begin) > 5*time.Minute {
			return f, fmt.Errorf("no answer in five minutes: %s", out.String())
		}
	}
	f.ready = time.Since(begin)
	f.cpu, err = cpuOf(cmd.Process.Pid)
	time.Sleep(time.Second)
	f.peak, f.rss = memoryOf(cmd.Process.Pid)
	return f, err
}

func freePort() (int, error) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port, nil
}

// answers asks for the address of a name once.
func answers(port int, name string) bool {
	q := []byte{1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0, 0, 1, 0, 1)
	c, err := net.Dial("udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	defer c.Close()
	if _, err := c.Write(q); err != nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil {
		time.Sleep(10 * time.Millisecond)
		return false
	}
	return n > 12 && buf[3]&0xF == 0 && binary.BigEndian.Uint16(buf[6:]) > 0
}

// cpuOf is the CPU time of a process and of its children, ended threads too.
func cpuOf(pid int) (time.Duration, error) {
	sum := time.Duration(0)
	for _, p := range family(pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		user, err1 := strconv.Atoi(f[11])
		system, err2 := strconv.Atoi(f[12])
		if err := errors.Join(err1, err2); err != nil {
			return 0, err
		}
		sum += time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
	}
	return sum, nil
}

// family is a process and its children.
func family(pid int) []int {
	list := []int{pid}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(text)) {
		if child, err := strconv.Atoi(f); err == nil {
			list = append(list, family(child)...)
		}
	}
	return list
}

func memoryOf(pid int) (peak, rss int) {
	for _, p := range family(pid) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		peak += field(text, "VmHWM:")
		rss += field(text, "VmRSS:")
	}
	return peak, rss
}

func field(text []byte, name string) int {
	_, after, _ := strings.Cut(string(text), name)
	var n int
	fmt.Sscan(after, &n)
	return n
}

// gcLine is the CPU part of what GODEBUG=gctrace=1 prints: sweep termination,
// mark (assist/background/idle), mark termination.
var gcLine = regexp.MustCompile(`(?m)^gc \d+ @.* ms clock, ([0-9.]+)\+([0-9.]+)/([0-9.]+)/([0-9.]+)\+([0-9.]+) ms cpu`)

// collections finds the longest cycle of the garbage collector, its idle work
// left out.
func collections(out string) (longest time.Duration, n int) {
	for _, m := range gcLine.FindAllStringSubmatch(out, -1) {
		sum := 0.0
		for _, i := range []int{1, 2, 3, 5} {
			v, _ := strconv.ParseFloat(m[i], 64)
			sum += v
		}
		longest = max(longest, time.Duration(sum*float64(time.Millisecond)))
		n++
	}
	return longest, n
}
