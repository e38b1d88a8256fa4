package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"perigee.example/internal/control"
)

const (
	site = "bench.test"
	// startWait bounds every wait for a process to be there.
	startWait = 2 * time.Minute
	// starting is how many edges start at the same time.
	starting = 10
)

// fleet is everything that runs.
type fleet struct {
	o      options
	config string
	client *control.Client
	admin  string // URL
	socket string
	edges  []*edge
	origin *http.Server
	served atomic.Int64 // responses of the origin: each has its number as its body

	procs     []*exec.Cmd        // the control node's is the first
	stop      context.CancelFunc // of the reporters
	ending    sync.WaitGroup
	reporting time.Time
	reports   atomic.Int64
	lost      atomic.Int64
}

// edge is one edge's listener, as its clients see it.
type edge struct {
	name string
	addr string

	mu   sync.Mutex // of the connection
	conn net.Conn
	in   *bufio.Reader
}

func (f *fleet) start(ctx context.Context) error {
	if err := f.startOrigin(); err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	if err := f.writeConfig(ports); err != nil {
		return err
	}
	if err := f.startControl(ctx, ports[0]); err != nil {
		return err
	}
	var names []string
	for _, e := range f.edges {
		names = append(names, e.name)
	}
	creds := map[string]*control.Credentials{}
	for i := range f.o.reporters {
		names = append(names, fmt.Sprintf("r%03d", i))
	}
	for _, name := range names {
		cred, err := f.addNode(ctx, name)
		if err != nil {
			return err
		}
		creds[name] = cred
	}
	if err := f.startEdges(ctx); err != nil {
		return err
	}
	return f.startReporters(ctx, names[len(f.edges):], creds)
}

// startOrigin answers every request with its number.
func (f *fleet) startOrigin() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f.origin = &http.Server{Addr: ln.Addr().String(), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		fmt.Fprint(w, f.served.Add(1))
	})}
	go func() {
		if err := f.origin.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "origin:", err)
		}
	}()
	return nil
}

// freePorts returns ports that were free a moment ago.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// edgePort is the edges' port; each has an address of its own.
const edgePort = 18080

func (f *fleet) writeConfig(ports []int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "version = 1\n[control]\nlisten = \"127.0.0.1:%d\"\nfeed_listen = \"127.0.0.1:%d\"\nblob_listen = \"127.0.0.1:%d\"\n", ports[0], ports[1], ports[2])
	fmt.Fprintf(&b, "[cache]\nmemory = \"4MiB\"\n[log]\naccess = \"off\"\n")
	fmt.Fprintf(&b, "[site.bench]\nhosts = [%q]\norigins = [\"http://%s\"]\nallow_private = true\n", site, f.origin.Addr)
	for i := range f.o.edges {
		e := &edge{name: fmt.Sprintf("e%03d", i), addr: fmt.Sprintf("127.77.0.%d:%d", i+1, edgePort)}
		f.edges = append(f.edges, e)
		fmt.Fprintf(&b, "[edge.%s]\nlocation = [50.0, 8.0]\naddresses = [\"192.0.2.%d\"]\nlisten = [%q]\n", e.name, i+1, e.addr)
	}
	f.config = filepath.Join(f.o.dir, "perigee.toml")
	return os.WriteFile(f.config, []byte(b.String()), 0o600)
}

// run starts one node; what it says goes to a file in its state folder.
func (f *fleet) run(state string, args ...string) error {
	dir := filepath.Join(f.o.dir, state)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(f.o.perigee, append(args, "--config", f.config, "--state", dir)...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	f.procs = append(f.procs, cmd)
	return nil
}

func (f *fleet) startControl(ctx context.Context, port int) error {
	if err := f.run("control", "serve", "control"); err != nil {
		return err
	}
	f.admin = fmt.Sprintf("https://127.0.0.1:%d", port)
	f.socket = filepath.Join(f.o.dir, "control", "admin.sock")
	return wait(ctx, "the control node", func() (err error) {
		if f.client, err = f.newClient(); err == nil {
			_, err = f.client.Status(ctx)
		}
		return err
	})
}

// newClient makes a client of the API, by TLS with the admin token.
func (f *fleet) newClient() (*control.Client, error) {
	keys := filepath.Join(f.o.dir, "control", "control")
	return control.NewClient(control.ClientConfig{Address: f.admin, TokenFile: filepath.Join(keys, "admin.token"), CAFile: filepath.Join(keys, "ca.pem")})
}

// addNode makes a node, and puts its credentials into its state folder.
func (f *fleet) addNode(ctx context.Context, name string) (*control.Credentials, error) {
	added, err := f.client.NodeAdd(ctx, name, false)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(f.o.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "node.pem")
	if err := os.WriteFile(path, []byte(added.Credentials), 0o600); err != nil {
		return nil, err
	}
	return control.LoadCredentials(path)
}

func (f *fleet) startEdges(ctx context.Context) error {
	for i := 0; i < len(f.edges); i += starting {
		part := f.edges[i:min(i+starting, len(f.edges))]
		for _, e := range part {
			if err := f.run(e.name, "serve", "edge", e.name); err != nil {
				return err
			}
		}
		for _, e := range part {
			if err := wait(ctx, "edge "+e.name, func() error { _, err := e.get(ctx, "/-/ready"); return err }); err != nil {
				return err
			}
		}
	}
	return nil
}

// startReporters has every reporter follow, and waits until the control node
// has heard of all nodes.
func (f *fleet) startReporters(ctx context.Context, names []string, creds map[string]*control.Credentials) error {
	running, stop := context.WithCancel(context.Background())
	f.stop = stop
	for _, name := range names {
		r := &reporter{f: f, cred: creds[name]}
		fo, err := r.dial(ctx)
		if err != nil {
			return err
		}
		f.ending.Go(func() { r.run(running, fo) })
	}
	f.reporting = time.Now()
	return wait(ctx, "all nodes at the control node", func() error {
		st, err := f.client.Status(ctx)
		if err != nil {
			return err
		}
		for _, n := range st.Nodes {
			if n.Silent {
				return fmt.Errorf("node %s is silent", n.Name)
			}
		}
		return nil
	})
}

// wait tries until it works.
func wait(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-tick.C:
		}
	}
}

// close ends what was started, and nothing else.
func (f *fleet) close() {
	if f.stop != nil {
		f.stop()
		f.ending.Wait()
	}
	for _, p := range f.procs {
		_ = p.Process.Kill() // its state is thrown away
	}
	for _, p := range f.procs {
		_ = p.Wait()
	}
	if f.origin != nil {
		_ = f.origin.Close()
	}
}
