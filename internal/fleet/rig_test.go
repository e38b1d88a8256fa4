package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"perigee.example/internal/control"
	"perigee.example/internal/txtest"
)

const (
	// keeps is how long a resolver may go on with an answer: the TTL of a second, which
	// it counts in whole ones of its clock, and the answer's own way to it.
	keeps = 2500 * time.Millisecond
	// asks is how long one request of the rig's own may take.
	asks = 5 * time.Second
)

// places are the hosts of a fleet: region and last octet of the address.
var places = map[string]string{
	self: "eu.5", "ctl1": "eu.10", "ctl2": "us.10", "ctl3": "ap.10",
	"dns1": "eu.53", "dns2": "us.53", "resolver": "ap.54",
	"fra1": "eu.80", "iad1": "us.80", "sin1": "ap.80",
	"origin": "eu.90",
	"cl-eu":  "eu.100", "cl-us": "us.100", "cl-ap": "ap.100",
}

var (
	controls = []string{"ctl1", "ctl2", "ctl3"}
	edges    = []string{"fra1", "iad1", "sin1"}
	shield   = "iad1" // of the second pulled site
	servers  = []string{"dns1", "dns2"}
	clients  = []string{"cl-eu", "cl-us", "cl-ap"}
)

// rig is a fleet of processes in a world, and the history of one round.
type rig struct {
	t    *testing.T
	w    *world
	base string
	bins binaries
	env  []string
	// controls are the control nodes, one or three.
	controls []string
	nodes    map[string]*node
	api      *control.Client
	origin   *originServer
	hot      atomic.Pointer[string] // the URL that is purged twice just now; nil: none
	begun    time.Time

	mu sync.Mutex
	h  History
	// faulty is what is wrong with whom.
	faulty map[string]wrong
	ends   sync.Map // by node, *sync.Mutex: see ending
}

func (r *rig) now() time.Duration { return time.Since(r.begun) }

// note adds to the history.
func (r *rig) note(add func(h *History)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	add(&r.h)
}

// binaries are perigee as it is built for a fleet.
type binaries struct {
	node string // control and edges: with the race detector, if this test has it, or a mutant
	// plain is for DNS nodes and commands: under the race detector a DNS node compiles
	// its policies for half a minute.
	plain string
}

// of is the binary that a node runs.
func (b binaries) of(n *node) string {
	switch n.args[1] {
	case "control", "edge":
		return b.node
	}
	return b.plain
}

// newRig starts a fleet: control first, since it makes the others' credentials.
func newRig(t *testing.T, w *world, base string, bins binaries, c cast) (*rig, error) {
	r := &rig{t: t, w: w, base: base, bins: bins, controls: c.controls, begun: time.Now(), nodes: map[string]*node{}, faulty: map[string]wrong{},
		h: History{Edges: edges, Servers: servers, TTL: keeps, Pushed: pushed}}
	r.environment()
	if err := r.files(); err != nil {
		return r, err
	}
	var err error
	if r.origin, err = startOrigin(w.hosts["origin"], r.now, r.bumped, r.isHot); err != nil {
		return r, err
	}
	for _, name := range r.controls {
		if len(r.controls) == 1 {
			r.define(name, "control")
		} else {
			r.define(name, "control", name)
		}
	}
	for _, name := range servers {
		r.define(name, "dns")
	}
	for _, name := range edges {
		r.define(name, "edge", name)
	}
	for _, name := range c.disks {
		n := r.nodes[name]
		if n.disk, err = txtest.NewDisk(filepath.Join(base, name+".xfs"), n.dir, diskBytes); err != nil {
			return r, err
		}
		if err := n.disk.Proof(); err != nil {
			return r, fmt.Errorf("the disk of %s: %w", name, err)
		}
	}
	if err := r.startControl(); err != nil {
		return r, err
	}
	for _, name := range append(append([]string{}, servers...), edges...) {
		if err := r.credentials(name); err != nil {
			return r, err
		}
		if err := r.start(r.nodes[name]); err != nil {
			return r, err
		}
	}
	for _, n := range r.nodes {
		if err := n.ready(); err != nil {
			return r, err
		}
	}
	// Last: an unbound that finds no server at first is long in looking again.
	if err := r.startResolver(); err != nil {
		return r, err
	}
	return r, r.nodes["resolver"].ready()
}

func (r *rig) start(n *node) error {
	if n.name == "resolver" {
		return n.start("unbound", r.env)
	}
	return n.start(r.bins.of(n), r.env)
}

// define notes a node: name, and what it serves.
func (r *rig) define(name string, serve ...string) {
	n := &node{name: name, host: r.w.hosts[name], dir: filepath.Join(r.base, name), log: filepath.Join(r.base, name+".log")}
	n.args = append(append([]string{"serve"}, serve...), "--state", n.dir)
	switch serve[0] {
	case "control":
		n.up = func() bool { return r.serves(name) }
	case "dns":
		n.up = func() bool {
			_, err := r.ask(r.w.hosts[self], netip.AddrPortFrom(n.host.addr, 53))
			return err == nil
		}
	case "edge":
		n.up = func() bool {
			c := http.Client{Timeout: asks}
			defer c.CloseIdleConnections()
			resp, err := c.Get("http://" + n.host.addr.String() + "/-/ready")
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == 200
		}
	}
	r.nodes[name] = n
	_ = os.MkdirAll(n.dir, 0o700) // the start fails without it
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// environment is what every process of the fleet and every command sees.
func (r *rig) environment() {
	r.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.base, "TMPDIR=" + os.TempDir(),
		"PERIGEE_CONFIG=" + filepath.Join(r.base, "perigee.toml"), "PERIGEE_TOKEN_FILE=" + filepath.Join(r.base, "admin.token"), "GORACE=atexit_sleep_ms=0"}
}

// startControl starts the first control node, which makes the keys, gives them to
// the others, and starts those.
func (r *rig) startControl() error {
	n := r.nodes[r.controls[0]]
	if err := r.start(n); err != nil {
		return err
	}
	var err error
	for end := time.Now().Add(readyWithin); time.Now().Before(end); time.Sleep(lookEvery) {
		if err = r.login(n); err == nil {
			break
		}
		if n.ended() {
			return fmt.Errorf("control ended by itself:\n%s", tail(n.log))
		}
	}
	if err != nil {
		return fmt.Errorf("control: %w\n%s", err, tail(n.log))
	}
	for _, name := range r.controls[1:] {
		other := r.nodes[name]
		if err := copyKeys(n.dir, other.dir); err != nil {
			return err
		}
		if err := r.start(other); err != nil {
			return err
		}
	}
	for _, name := range r.controls {
		if err := r.nodes[name].ready(); err != nil {
			return err
		}
	}
	return nil
}

// copyKeys copies what a control node needs of the one that made the keys.
func copyKeys(from, to string) error {
	dir := filepath.Join(to, "control")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"ca.pem", "ca.key", "tokens.json"} {
		b, err := os.ReadFile(filepath.Join(from, "control", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) login(n *node) error {
	for _, name := range []string{"tokens.json", "admin.token", "ca.pem"} { // the first is the last that it writes
		b, err := os.ReadFile(filepath.Join(n.dir, "control", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.base, name), b, 0o600); err != nil {
			return err
		}
	}
	var err error
	r.api, err = r.client(r.controls)
	return err
}

// admins is how commands name control nodes.
func (r *rig) admins(names []string) string {
	var list []string
	for _, name := range names {
		list = append(list, "https://"+r.w.hosts[name].addr.String()+":7440")
	}
	return strings.Join(list, ",")
}

func (r *rig) client(names []string) (*control.Client, error) {
	return control.NewClient(control.ClientConfig{Address: r.admins(names), TokenFile: filepath.Join(r.base, "admin.token"), CAFile: filepath.Join(r.base, "ca.pem")})
}

// serves reports whether one control node answers.
func (r *rig) serves(name string) bool {
	api, err := r.client([]string{name})
	if err == nil {
		_, err = status(api)
	}
	return err == nil
}

func status(api *control.Client) (control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), asks)
	defer cancel()
	return api.Status(ctx)
}

// credentials writes a node's node.pem, as an operator copies it there.
func (r *rig) credentials(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	added, err := r.api.NodeAdd(ctx, name, false)
	if err != nil {
		return err
	}
	dir := r.nodes[name].dir
	f, err := os.OpenFile(filepath.Join(dir, "node.pem"), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(added.Credentials)
	return errors.Join(err, f.Sync(), f.Close(), syncDir(dir))
}

func (r *rig) startResolver() error {
	n := &node{name: "resolver", host: r.w.hosts["resolver"], dir: r.base, log: filepath.Join(r.base, "resolver.log"), args: []string{"-d", "-c", filepath.Join(r.base, "unbound.conf")}}
	n.up = func() bool {
		_, err := r.ask(r.w.hosts[self], netip.AddrPortFrom(n.host.addr, 53))
		return err == nil
	}
	r.nodes[n.name] = n
	return r.start(n)
}

// ask asks a server or a resolver, from a host, for the addresses of the steered
// name. It returns the names of the edges.
func (r *rig) ask(from *host, at netip.AddrPort) (named []string, err error) {
	var conn net.Conn
	if err := from.do(func() (err error) {
		conn, err = net.Dial("udp", at.String())
		return err
	}); err != nil {
		return nil, err
	}
	defer conn.Close()
	q := new(dns.Msg)
	q.SetQuestion(pushed+".", dns.TypeA)
	q.SetEdns0(1232, false)
	client := dns.Client{Timeout: asks}
	m, _, err := client.ExchangeWithConn(q, &dns.Conn{Conn: conn})
	if err != nil {
		return nil, err
	}
	if m.Rcode != dns.RcodeSuccess {
		return nil, errors.New(dns.RcodeToString[m.Rcode])
	}
	for _, rr := range m.Answer {
		a, ok := rr.(*dns.A)
		if !ok {
			continue
		}
		for _, e := range edges {
			if r.w.hosts[e].addr.String() == a.A.String() {
				named = append(named, e)
			}
		}
	}
	return named, nil
}

// close ends what still runs and says what the logs have that they must not.
func (r *rig) close() {
	for _, n := range r.nodes {
		_ = n.signal(syscall.SIGKILL)
		if n.disk != nil {
			_ = n.disk.Unmount() // the world's end does it, too
		}
		if b, err := os.ReadFile(n.log); err == nil {
			for _, line := range badLog.FindAllString(string(b), 3) {
				r.t.Errorf("%s printed: %s\n%s", n.name, line, tail(n.log))
			}
		}
	}
	if r.origin != nil {
		r.origin.close()
	}
}
