package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	nats "github.com/nats-io/nats-server/v2/server"
	"github.com/rogpeppe/go-internal/testscript"

	"perigee.example/internal/txtest"
)

// TestMain lets scripts run this test binary as perigee: the real main, under
// the race detector when the tests are.
func TestMain(m *testing.M) {
	testscript.Main(manyAtOnce{m}, map[string]func(){"perigee": main, "nats-server": natsServer})
}

// natsServer is nats-server -c FILE.
func natsServer() {
	opts, err := nats.ProcessConfigFile(os.Args[1])
	if err == nil {
		opts.NoSigs, opts.NoLog = true, true
		var ns *nats.Server
		if ns, err = nats.NewServer(opts); err == nil {
			ns.Start()
			ns.WaitForShutdown()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// manyAtOnce runs more tests at a time than there are processors: nearly all
// that those of this package do is wait for processes, drains and disks.
type manyAtOnce struct{ *testing.M }

func (m manyAtOnce) Run() int {
	if err := flag.Set("test.parallel", "4"); err != nil { // before flags are read: who says -parallel has it
		panic(err)
	}
	return m.M.Run()
}

// TestScript runs testdata/cli: the whole program from outside. Beside
// testscript's own commands the scripts have
//
//	needs TOOL…                  skip the script when a tool is not installed
//	fails CODE PROGRAM [ARG…]    the program must end with exactly this exit code
//	waitfor REGEXP PROGRAM [ARG…] run it again and again until it succeeds and
//	                             its output matches (bounded by eventuallyScript)
//	start NAME PROGRAM [ARG…]    run it in the background; output goes to NAME.log
//	log NAME REGEXP              wait until NAME.log matches
//	signal NAME HUP|TERM|INT     send a signal
//	end NAME [TERM|INT]          send it, and expect exit 0 within endWithin
//	kill9 NAME                   end it as a power cut would
//	replace FILE OLD NEW         replace every OLD in a file; there must be one;
//	                             \n in NEW is a new line
//	append FILE LINE…            add lines at its end
//	build TAG FILE               build perigee with a build tag
//	bucket start|holds|FAULT     a bucket that fails as it is told (see scriptBucket)
//	json PATH [REGEXP]           stdout is JSON, has something at PATH (a.0.b),
//	                             and it matches
//
// and the variables HOST, HOST2, HOST3, HOST4: loopback addresses of their own, and DNS,
// HTTP, HTTPS, ADMIN, FEED, BLOB, ORIGIN: ports that are free on each of them;
// TESTDATA: the folder of that name.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "cli"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"needs": scriptNeeds, "fails": scriptFails, "waitfor": scriptWaitFor,
			"start": scriptStart, "log": scriptLog, "signal": scriptSignal, "end": scriptEnd, "kill9": scriptKill,
			"replace": scriptReplace, "append": scriptAppend, "json": scriptJSON, "build": scriptBuild, "bucket": scriptBucket,
		},
	})
}

const (
	// eventuallyScript is how long a script waits for what takes a few probes
	// or a rebuild: far more than it takes, so that a slow machine passes.
	eventuallyScript = 2 * time.Minute
	// endWithin is how long a process may take to end when it is told to.
	endWithin = 30 * time.Second
	pollEvery = 50 * time.Millisecond
)

// scriptHosts are the loopback addresses of one script, below a /24 of its own.
const scriptHosts = 4

// scriptPorts are the variables that hold a free port.
var scriptPorts = []string{"DNS", "HTTP", "HTTPS", "ADMIN", "FEED", "BLOB", "ORIGIN"}

func setupScript(e *testscript.Env) error {
	hosts, err := loopbackHosts(scriptHosts)
	if err != nil {
		return err
	}
	for i, h := range hosts {
		name := "HOST"
		if i > 0 {
			name = fmt.Sprint("HOST", i+1)
		}
		e.Setenv(name, h)
	}
	ports, err := freePorts(hosts, len(scriptPorts))
	if err != nil {
		return err
	}
	for i, name := range scriptPorts {
		e.Setenv(name, fmt.Sprint(ports[i]))
	}
	testdata, err := filepath.Abs(filepath.Join("..", "..", "testdata"))
	if err != nil {
		return err
	}
	e.Setenv("TESTDATA", testdata)
	home := filepath.Join(e.WorkDir, ".home")
	e.Setenv("HOME", home)
	e.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
	e.Setenv("TZ", "UTC")
	for _, name := range []string{"STATE_DIRECTORY", "PERIGEE_CONFIG", "PERIGEE_CONTROL", "PERIGEE_TOKEN_FILE"} {
		e.Setenv(name, "")
	}
	b := &background{tb: e.T().(testing.TB), dir: e.WorkDir, byName: map[string]*process{}}
	e.Values[backgroundKey{}] = b
	e.Defer(b.endAll)
	return os.MkdirAll(home, 0o700)
}

// loopbackHosts chooses n loopback addresses that no other test uses, so that
// a port which is free on them stays free. Systems without 127/8 have one for
// all.
func loopbackHosts(n int) ([]string, error) {
	var list []string
	net24 := fmt.Sprintf("127.%d.%d.", 16+rand.IntN(200), rand.IntN(256))
	for i := range n {
		host := fmt.Sprint(net24, i+1)
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			return slices.Repeat([]string{"127.0.0.1"}, n), nil
		}
		l.Close()
		list = append(list, host)
	}
	return list, nil
}

// freePorts chooses ports that are free by UDP and TCP on every host.
func freePorts(hosts []string, n int) ([]int, error) {
	var list []int
	for range maxPortTries * n {
		if len(list) == n {
			return list, nil
		}
		l, err := net.Listen("tcp", hosts[0]+":0")
		if err != nil {
			return nil, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if !slices.Contains(list, port) && portFree(port, hosts, true) == nil {
			list = append(list, port)
		}
	}
	return nil, fmt.Errorf("no %d free ports on %v", n, hosts)
}

func scriptNeeds(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) == 0, "needs TOOL…")
	txtest.Need(backgroundOf(ts).tb, args...)
}

func scriptBuild(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) != 2, "build TAG FILE")
	out, err := exec.Command("go", "build", "-tags", args[0], "-o", ts.MkAbs(args[1]), "perigee.example/cmd/perigee").CombinedOutput()
	if err != nil {
		ts.Fatalf("go build: %v\n%s", err, out)
	}
}

func wrongUse(ts *testscript.TestScript, wrong bool, usage string) {
	if wrong {
		ts.Fatalf("usage: %s", usage)
	}
}

func scriptFails(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) < 2, "fails CODE PROGRAM [ARG…]")
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("%s: want exit %s, got %v", args[1], args[0], err)
	}
	if got := fmt.Sprint(exit.ExitCode()); got != args[0] {
		ts.Fatalf("%s: exit %s, want %s", args[1], got, args[0])
	}
}

func scriptWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) < 2, "waitfor REGEXP PROGRAM [ARG…]")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var last error
	ok := poll(eventuallyScript, func() bool {
		last = ts.Exec(args[1], args[2:]...)
		return last == nil && re.MatchString(ts.ReadFile("stdout")+ts.ReadFile("stderr"))
	})
	if !ok {
		ts.Fatalf("%s never printed %q (the last exit: %v)", strings.Join(args[1:], " "), args[0], last)
	}
}

// poll calls f until it is true or the time is up.
func poll(within time.Duration, f func() bool) bool {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if f() {
			return true
		}
		select {
		case <-deadline.C:
			return f()
		case <-tick.C:
		}
	}
}

func scriptReplace(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) != 3, "replace FILE OLD NEW")
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	text = strings.ReplaceAll(text, args[1], strings.ReplaceAll(args[2], `\n`, "\n"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

func scriptAppend(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) < 2, "append FILE LINE…")
	text := ts.ReadFile(args[0]) + strings.Join(args[1:], "\n") + "\n"
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, len(args) < 1 || len(args) > 2, "json PATH [REGEXP]")
	var v any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	d.UseNumber()
	ts.Check(d.Decode(&v))
	if d.More() {
		ts.Fatalf("stdout holds more than one JSON value")
	}
	found, ok := jsonAt(v, args[0])
	if ok && len(args) == 2 {
		ok = regexp.MustCompile(args[1]).MatchString(fmt.Sprint(found))
	}
	if ok == neg {
		ts.Fatalf("%s is %v", args[0], found)
	}
}

// jsonAt follows a path such as "nodes.0.name"; "." is the whole value.
func jsonAt(v any, path string) (any, bool) {
	for word := range strings.SplitSeq(strings.Trim(path, "."), ".") {
		if word == "" {
			return v, true
		}
		switch x := v.(type) {
		case map[string]any:
			if v = x[word]; v == nil {
				return nil, false
			}
		case []any:
			n, err := strconv.Atoi(word)
			if err != nil || n < 0 || n >= len(x) {
				return nil, false
			}
			v = x[n]
		default:
			return nil, false
		}
	}
	return v, true
}
