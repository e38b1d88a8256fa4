package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"perigee.example/internal/txtest"
)

const (
	// inWorld is set in a test process that is the first one of a world: of
	// network, mount and process namespaces that end with it.
	inWorld = "PERIGEE_FLEET_WORLD"
	// maxHosts bounds the namespaces of a world.
	maxHosts = 24
	// maxKept bounds what is kept of what the inner run prints.
	maxKept = 256 << 10
)

// The process's first thread stays as it is: it cannot be thrown away, and its
// namespace is what others see as the process's.
func init() { runtime.LockOSThread() }

// region is a place: its hosts are near each other and far from others.
type region struct {
	name string
	net  byte // 10.net.0.0/24
}

var regions = []region{{"eu", 1}, {"us", 2}, {"ap", 3}}

// far is the time that a packet needs between two places, one way.
func far(a, b byte) time.Duration {
	if a == b {
		return 0
	}
	return map[byte]time.Duration{1 + 2: 15, 1 + 3: 25, 2 + 3: 20}[a+b] * time.Millisecond
}

// host is a machine of the world: a network namespace with an address of its own.
type host struct {
	name string
	addr netip.Addr
	ns   *os.File
}

// do runs f on a thread that is in the host's namespace. Sockets that it makes
// and processes that it starts are the host's. f must not start goroutines that do.
func (h *host) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", h.name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// run runs a program on the host.
func (h *host) run(stdin, program string, args ...string) error {
	return h.do(func() error {
		cmd := exec.Command(program, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %s %s: %w\n%s", h.name, program, strings.Join(args, " "), err, out)
		}
		return nil
	})
}

// world is the hosts of a fleet and the lines between them. The test's own
// namespace is a host in the first region: from there the operators work.
type world struct {
	hosts map[string]*host
	lines *lines
}

// ownWorld runs the calling test once more in namespaces of its own, which the
// kernel takes down with that process, whatever becomes of it; true is the inner run.
func ownWorld(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inWorld) != "" {
		return true
	}
	txtest.Need(t, "ip", "nft", "unbound")
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	defer runtime.UnlockOSThread()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+innerTimeout(t).String())
	cmd.Env = append(os.Environ(), inWorld+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out := &indented{to: os.Stdout, live: testing.Verbose()}
	cmd.Stdout, cmd.Stderr = out, out
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w} // the inner run says there why it cannot be
	err = cmd.Start()
	w.Close()
	if err != nil {
		notHere(t, err)
	}
	why := make([]byte, 4096)
	n, _ := r.Read(why) // nothing at its end
	err = cmd.Wait()
	if n > 0 {
		notHere(t, errors.New(string(why[:n])))
	}
	if err != nil {
		if !out.live {
			t.Log(out.all.String())
		}
		t.Fatalf("in its namespaces: %v", err)
	}
	return false
}

// indented passes on what the inner run prints line by line and indented, since the
// go command would take its lines for those of the outer run; or keeps the last of it.
type indented struct {
	to   io.Writer
	live bool
	all  bytes.Buffer
	line []byte
}

func (w *indented) Write(b []byte) (int, error) {
	for _, c := range b {
		if w.line = append(w.line, c); c != '\n' {
			continue
		}
		if w.live {
			if _, err := fmt.Fprintf(w.to, "    | %s", w.line); err != nil {
				return 0, err
			}
		} else if w.all.Write(w.line); w.all.Len() > maxKept {
			w.all.Next(w.all.Len() - maxKept)
		}
		w.line = w.line[:0]
	}
	return len(b), nil
}

// innerTimeout leaves the outer test a moment to tell.
func innerTimeout(t *testing.T) time.Duration {
	if end, ok := t.Deadline(); ok {
		return time.Until(end) - 5*time.Second
	}
	return 0
}

// notHere skips the test where namespaces are not allowed; in CI they must be.
func notHere(t *testing.T, why error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs network namespaces and /dev/net/tun: %v", why)
	}
	t.Skipf("needs network namespaces and /dev/net/tun (run as root): %v", why)
}

// newWorld makes the world of a test in its own namespaces. It tells the outer
// run when that is not possible.
func newWorld(t *testing.T, hosts map[string]string) *world {
	t.Helper()
	outer := os.NewFile(3, "outer")
	defer outer.Close()
	w := &world{hosts: map[string]*host{}}
	if err := w.build(hosts); err != nil {
		fmt.Fprint(outer, err)
		t.Skip(err) // the outer run decides what that means
	}
	t.Cleanup(w.lines.close)
	return w
}

// build makes the regions, their hosts ("eu.53" by name) and the lines.
func (w *world) build(hosts map[string]string) error {
	if len(hosts)+len(regions) > maxHosts {
		return fmt.Errorf("%d hosts, more than %d", len(hosts), maxHosts)
	}
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""), unix.Mount("tmpfs", "/run", "tmpfs", 0, "size=1m")); err != nil {
		return err
	}
	if err := run("ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	for _, r := range regions {
		if err := w.router(r); err != nil {
			return err
		}
	}
	for name, place := range hosts {
		if err := w.plug(name, place); err != nil {
			return err
		}
	}
	var err error
	w.lines, err = openLines(w)
	return err
}

func run(program string, args ...string) error {
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// namespace makes a network namespace and notes it as a host.
func (w *world) namespace(name string, addr netip.Addr) (*host, error) {
	if err := run("ip", "netns", "add", name); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join("/run/netns", name))
	if err != nil {
		return nil, err
	}
	h := &host{name, addr, f}
	w.hosts[name] = h
	return h, nil
}

// router makes a region: a bridge for its hosts.
func (w *world) router(r region) error {
	gate := netip.AddrFrom4([4]byte{10, r.net, 0, 1})
	h, err := w.namespace(r.name, gate)
	if err != nil {
		return err
	}
	batch := fmt.Sprintf("link set lo up\nlink add br0 type bridge\naddr add %s/24 dev br0\nlink set br0 up\n", gate)
	return errors.Join(h.run(batch, "ip", "-batch", "-"),
		h.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1\n"), 0o644) }))
}

// self is the test's own namespace.
const self = "ops"

// plug makes a host and its cable to its region's bridge.
func (w *world) plug(name, place string) error {
	place, number, _ := strings.Cut(place, ".")
	router := w.hosts[place]
	addr := router.addr.As4()
	if _, err := fmt.Sscan(number, &addr[3]); err != nil {
		return fmt.Errorf("host %s: %q: %w", name, number, err)
	}
	port := "p-" + name
	create := []string{"link", "add", port, "netns", place, "type", "veth", "peer", "name", "eth0"}
	up := fmt.Sprintf("link set lo up\nlink set eth0 up\naddr add %s/24 dev eth0\nroute add default via %s\n", netip.AddrFrom4(addr), router.addr)
	if name == self {
		if err := run("ip", append(create, "netns", strconv.Itoa(os.Getpid()))...); err != nil {
			return err
		}
		f, err := os.Open("/proc/self/ns/net")
		if err != nil {
			return err
		}
		w.hosts[name] = &host{name, netip.AddrFrom4(addr), f}
	} else {
		if _, err := w.namespace(name, netip.AddrFrom4(addr)); err != nil {
			return err
		}
		if err := run("ip", append(create, "netns", name)...); err != nil {
			return err
		}
	}
	return errors.Join(w.hosts[name].run(up, "ip", "-batch", "-"),
		router.run(fmt.Sprintf("link set %s master br0\nlink set %s up\n", port, port), "ip", "-batch", "-"))
}

// listen opens a TCP socket on the host.
func (h *host) listen(port int) (ln net.Listener, err error) {
	err = h.do(func() error {
		ln, err = net.Listen("tcp", netip.AddrPortFrom(h.addr, uint16(port)).String())
		return err
	})
	return ln, err
}

// cut drops what goes between the host and the peers, both ways, with nft in its
// namespace; lossy drops that share of its packets, in percent. mend ends all that.
func (h *host) cut(peers ...*host) error {
	rules := firewall
	for _, p := range peers {
		rules += fmt.Sprintf("add rule inet fault in ip saddr %s drop\nadd rule inet fault out ip daddr %s drop\n", p.addr, p.addr)
	}
	return h.run(rules, "nft", "-f", "-")
}

func (h *host) lossy(percent int) error {
	rule := fmt.Sprintf(" meta iifname != \"lo\" numgen random mod 100 < %d drop\n", percent)
	return h.run(firewall+"add rule inet fault in"+rule+"add rule inet fault out"+strings.Replace(rule, "iif", "oif", 1), "nft", "-f", "-")
}

func (h *host) mend() error {
	return h.run("add table inet fault\ndelete table inet fault\n", "nft", "-f", "-")
}

const firewall = `add table inet fault
flush table inet fault
add chain inet fault in { type filter hook input priority 0; }
add chain inet fault out { type filter hook output priority 0; }
`
