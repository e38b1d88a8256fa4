// Package conformance holds perigee against the world outside: the same
// questions asked of it, of Knot DNS, NSD and BIND, over the same zones
// (TestPeers, make conformance-dns), and zones signed by the tools of others,
// whose every answer Unbound and delv validate (TestResolvers).
//
// It has tests only. They run the perigee binary as an operator would, and
// import none of its packages.
package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	// startWithin is how long a server may take to answer its first question.
	startWithin = 30 * time.Second
	// startTries is how often a server is started when its port was taken
	// between the look and the start.
	startTries = 3
	// lastLines is how much of what a server printed is shown when a test fails.
	lastLines = 30
	pollEvery = 20 * time.Millisecond
	// askWithin is how long an answer may take on a machine with much to do.
	askWithin = 10 * time.Second
)

// server is a name server of a test, in the foreground of its own process.
type server struct {
	name string
	addr string // host:port
}

// program says how a name server is started: files to write into its folder,
// and the command line, both for the address that it is to listen on.
type program struct {
	name  string
	files func(dir, host, port string) map[string]string
	args  func(dir string) []string
	ready func(addr string) bool
	host  string // "" is an address of the test's own
	port  string // "" is one that is free
}

// start runs a name server until the test ends. Its folder holds its
// configuration and what it prints, which is shown when the test fails.
func start(t *testing.T, p program) *server {
	t.Helper()
	for try := 1; ; try++ {
		s, err := startOnce(t, p)
		if err == nil {
			return s
		}
		if try == startTries {
			t.Fatalf("%s: %v", p.name, err)
		}
	}
}

func startOnce(t *testing.T, p program) (*server, error) {
	dir := t.TempDir()
	host, port := p.host, p.port
	if port == "" {
		host, port = freeAddress(t, p.host)
	}
	for name, text := range p.files(dir, host, port) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	args := p.args(dir)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed, or it says in its log why it ended
		close(done)
	}()
	end := func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-done
	}
	printed := func() string {
		text, err := os.ReadFile(logFile.Name())
		if err != nil {
			return err.Error()
		}
		lines := strings.SplitAfter(string(text), "\n")
		return strings.Join(lines[max(0, len(lines)-lastLines):], "")
	}
	s := &server{name: p.name, addr: net.JoinHostPort(host, port)}
	for deadline := time.Now().Add(startWithin); !p.ready(s.addr); {
		select {
		case <-done:
			return nil, fmt.Errorf("ended at once:\n%s", printed())
		case <-time.After(pollEvery):
		}
		if time.Now().After(deadline) {
			end()
			return nil, fmt.Errorf("does not answer:\n%s", printed())
		}
	}
	t.Cleanup(func() {
		end()
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.name, printed())
		}
	})
	return s, nil
}

// serves reports, for use as ready, whether every one of these zones is
// answered for.
func serves(origins []string) func(addr string) bool {
	return func(addr string) bool {
		for _, origin := range origins {
			q := new(dns.Msg)
			q.SetQuestion(origin, dns.TypeSOA)
			q.RecursionDesired = false
			c := dns.Client{Timeout: time.Second}
			r, _, err := c.Exchange(q, addr)
			if err != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 {
				return false
			}
		}
		return true
	}
}

// freeAddress is an address and a port that is free on it: without one given, a
// loopback address of the test's own, so that what is free there stays free.
// Systems without 127/8 have one for all.
func freeAddress(t *testing.T, given string) (host, port string) {
	t.Helper()
	host = given
	if given == "" {
		host = fmt.Sprintf("127.%d.%d.%d", 16+rand.IntN(200), rand.IntN(256), 1+rand.IntN(250))
	}
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		host = "127.0.0.1"
		if l, err = net.Listen("tcp", host+":0"); err != nil {
			t.Fatal(err)
		}
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// binDir is where the program is, once it is built.
var binDir string

// perigee builds the program once for all tests of the package.
var perigee = sync.OnceValues(func() (string, error) {
	var err error
	if binDir, err = os.MkdirTemp("", "conformance"); err != nil {
		return "", err
	}
	bin := filepath.Join(binDir, "perigee")
	out, err := exec.Command("go", "build", "-o", bin, "perigee.example/cmd/perigee").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if binDir != "" {
		os.RemoveAll(binDir)
	}
	os.Exit(code)
}

// run runs a program to its end in a folder and returns what it printed.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
