package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// How much the tests of an upgrade and of an end ask. `make test-upgrade` asks
// for a million queries and 40,000 requests (reliability F38, F39).
const (
	envQueries  = "PERIGEE_TEST_QUERIES"
	envRequests = "PERIGEE_TEST_REQUESTS"
	fewQueries  = 40_000
	fewRequests = 4_000
)

func sizeFromEnv(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// upgradable is a perigee of its own copy of the binary, in a folder of its own.
type upgradable struct {
	t    *testing.T
	dir  string
	name string // of the process, for its log and its state
	bin  string
	pid  int
	dies bool // a new process of it is made to die, which is an error
	*process
}

// startUpgradable starts perigee serve with these arguments, in dir.
func startUpgradable(t *testing.T, dir, name string, args ...string) *upgradable {
	t.Helper()
	self, err := exec.LookPath("perigee")
	if err != nil {
		t.Fatal(err)
	}
	u := &upgradable{t: t, dir: dir, name: name, bin: filepath.Join(dir, name+"-bin", "perigee")}
	if err := os.MkdirAll(filepath.Dir(u.bin), 0o755); err != nil {
		t.Fatal(err)
	}
	u.install(self)
	cmd := exec.Command(u.bin, append([]string{"serve"}, append(args, "--state", u.state())...)...)
	cmd.Dir = dir
	if u.process, err = startProcess(name, filepath.Join(dir, name+".log"), cmd); err != nil {
		t.Fatal(err)
	}
	u.pid = cmd.Process.Pid
	t.Cleanup(u.finish)
	u.waitReady(1)
	return u
}

func (u *upgradable) state() string { return filepath.Join(u.dir, u.name+"-state") }

// install puts a program in the place of the binary. install(1) writes it: what
// this process had open to write, a child that it starts meanwhile would hold open
// too, and nothing can be executed that somebody holds so (text file busy).
func (u *upgradable) install(program string) {
	u.t.Helper()
	if out, err := exec.Command("install", "-m", "755", program, u.bin+".new").CombinedOutput(); err != nil {
		u.t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(u.bin+".new", u.bin); err != nil {
		u.t.Fatal(err)
	}
}

func (u *upgradable) write(program string) {
	u.t.Helper()
	name := filepath.Join(u.t.TempDir(), "program")
	writeFile(u.t, name, program)
	u.install(name)
}

// waitReady waits for the n-th process to be ready.
func (u *upgradable) waitReady(n int) {
	u.t.Helper()
	if !poll(eventuallyScript, func() bool { return strings.Count(u.text(), "msg=ready") >= n }) {
		u.t.Fatalf("%s is not ready:\n%s", u.name, u.text())
	}
}

// perigee runs a command against the process.
func (u *upgradable) perigee(args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command("perigee", append(args, "--state", u.state())...)
	cmd.Dir = u.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// upgrade has the binary replace itself.
func (u *upgradable) upgrade() {
	u.t.Helper()
	out, errs, err := u.perigee("upgrade", "--json")
	var r upgradeResult
	if err == nil {
		err = json.Unmarshal([]byte(out), &r)
	}
	if err != nil || r.Old != u.pid || r.New == r.Old || r.New == 0 {
		u.t.Fatalf("upgrade of pid %d: %v: %+v\n%s\n%s", u.pid, err, r, errs, u.text())
	}
	u.pid = r.New
}

// finish ends the last process, and waits until it has let go of its folder.
func (u *upgradable) finish() {
	syscall.Kill(u.pid, syscall.SIGTERM)
	var err error
	if !poll(eventuallyScript, func() bool {
		lock, lockErr := lockState(u.state())
		if err = lockErr; err == nil {
			lock.Close()
		}
		return err == nil
	}) {
		syscall.Kill(u.pid, syscall.SIGKILL)
		u.t.Errorf("%s does not end: %v", u.name, err)
	}
	if text := u.text(); u.t.Failed() || strings.Contains(text, raceReport) || strings.Contains(text, "level=ERROR") && !u.dies {
		u.t.Errorf("%s printed:\n%s", u.name, text)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// freeAddr is an address of loopback that nothing listens on, by UDP or TCP, and
// that no other test uses.
func freeAddr(t *testing.T) string {
	t.Helper()
	hosts, err := loopbackHosts(1)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(hosts, 1)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(hosts[0], strconv.Itoa(ports[0]))
}

const upgradeZone = "$TTL 300\n@ SOA ns1 hostmaster 1 7200 900 1209600 60\n@ NS ns1\nns1 A 192.0.2.53\nwww A 192.0.2.1\n"

// dnsQuery asks for www.example.test A.
var dnsQuery = []byte("\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x04test\x00\x00\x01\x00\x01")

// dnsLoad asks over and over until stop, and counts. Each of its sockets has a
// few queries under way and repeats none.
type dnsLoad struct {
	addr           string
	asked, missing atomic.Int64
	bad            atomic.Pointer[string]
}

// answerWithin is when a query counts as lost.
const answerWithin = 5 * time.Second

func (l *dnsLoad) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.bad.CompareAndSwap(nil, &text)
}

// udp asks n queries from one socket, window at a time.
func (l *dnsLoad) udp(n, window int) {
	conn, err := net.Dial("udp", l.addr)
	if err != nil {
		l.note("%v", err)
		return
	}
	defer conn.Close()
	q, reply := bytes.Clone(dnsQuery), make([]byte, 2048)
	open := map[uint16]bool{}
	ask := func(id uint16) {
		binary.BigEndian.PutUint16(q, id)
		open[id] = true
		l.asked.Add(1)
		if _, err := conn.Write(q); err != nil {
			l.note("write: %v", err)
		}
	}
	next := 0
	for ; next < min(window, n); next++ {
		ask(uint16(next))
	}
	for len(open) > 0 {
		conn.SetReadDeadline(time.Now().Add(answerWithin))
		size, err := conn.Read(reply)
		if err != nil {
			l.missing.Add(int64(len(open)))
			l.note("read: %v", err)
			clear(open)
			for i := 0; i < window && next < n; i++ {
				ask(uint16(next))
				next++
			}
			continue
		}
		id := binary.BigEndian.Uint16(reply)
		if size < 12 || !open[id] || reply[3]&15 != 0 || reply[7] != 1 {
			l.note("a wrong reply: % x", reply[:size])
			continue
		}
		delete(open, id)
		if next < n {
			ask(uint16(next))
			next++
		}
	}
}

// tcp asks n queries, each on a connection of its own.
func (l *dnsLoad) tcp(n int) {
	for range n {
		l.asked.Add(1)
		if err := l.tcpOnce(); err != nil {
			l.missing.Add(1)
			l.note("tcp: %v", err)
		}
	}
}

func (l *dnsLoad) tcpOnce() error {
	conn, err := net.Dial("tcp", l.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(answerWithin))
	if _, err := conn.Write(append([]byte{0, byte(len(dnsQuery))}, dnsQuery...)); err != nil {
		return err
	}
	head := make([]byte, 14)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	if head[5]&15 != 0 {
		return fmt.Errorf("rcode %d", head[5]&15)
	}
	return nil
}

// TestUpgradeDNS: upgrade after upgrade under load, and every query is answered.
func TestUpgradeDNS(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	writeFile(t, filepath.Join(dir, "perigee.toml"), "version = 1\n[dns]\nlisten = [\""+addr+"\"]\nzone_files = [\"zones/*.zone\"]\n")
	writeFile(t, filepath.Join(dir, "zones", "example.test.zone"), upgradeZone)
	u := startUpgradable(t, dir, "dns", "dns")
	n := sizeFromEnv(t, envQueries, fewQueries)
	const sockets, window, byTCP = 4, 16, 100 // one in byTCP
	l := &dnsLoad{addr: addr}
	var wg sync.WaitGroup
	for range sockets {
		wg.Go(func() { l.udp(n/sockets, window) })
	}
	wg.Go(func() { l.tcp(n / byTCP) })
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	upgrades := 0
	for running := true; running; {
		u.upgrade()
		upgrades++
		u.waitReady(upgrades + 1)
		select {
		case <-done:
			running = false
		default:
		}
	}
	t.Logf("%d queries (%d by TCP), %d upgrades, %d not answered", l.asked.Load(), n/byTCP, upgrades, l.missing.Load())
	if bad := l.bad.Load(); bad != nil || l.missing.Load() != 0 {
		t.Errorf("%d of %d queries not answered; first: %v", l.missing.Load(), l.asked.Load(), *bad)
	}
	if want := int64(n/sockets*sockets + n/byTCP); l.asked.Load() != want {
		t.Errorf("%d queries asked, want %d", l.asked.Load(), want)
	}
}

// TestUpgradeFails: a new binary that does not like perigee.toml, or that
// crashes, leaves the old process serving, and the command says why.
func TestUpgradeFails(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	toml := "version = 1\n[dns]\nlisten = [\"" + addr + "\"]\nzone_files = [\"zones/*.zone\"]\n"
	writeFile(t, filepath.Join(dir, "perigee.toml"), toml)
	writeFile(t, filepath.Join(dir, "zones", "example.test.zone"), upgradeZone)
	u := startUpgradable(t, dir, "dns", "dns")
	refused := func(want string) {
		t.Helper()
		out, errs, err := u.perigee("upgrade")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(errs, want) {
			t.Errorf("upgrade: %v, want exit 1 and %q\n%s%s", err, want, out, errs)
		}
		if err := (&dnsLoad{addr: addr}).tcpOnce(); err != nil || u.ended() {
			t.Errorf("the old process does not serve: %v", err)
		}
	}
	writeFile(t, filepath.Join(dir, "perigee.toml"), toml+"[health]\nrise = true\n")
	refused("perigee.toml:6: health.rise: ")
	writeFile(t, filepath.Join(dir, "perigee.toml"), toml)
	u.write("#!/bin/sh\nexit 3\n")
	refused("exit status 3, before it was ready")
	u.write("#!/bin/sh\nkill -SEGV $$\n")
	refused("signal: segmentation fault")
	u.write("no program")
	refused("exec format error")
	if strings.Count(u.text(), "msg=ready") != 1 {
		t.Errorf("more than one process was ready:\n%s", u.text())
	}
	self, _ := exec.LookPath("perigee")
	u.install(self)
	u.upgrade()
	<-u.done
	if code := u.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the old process: exit %d", code)
	}
	if err := (&dnsLoad{addr: addr}).tcpOnce(); err != nil {
		t.Errorf("the new process: %v", err)
	}
}

// TestUpgradeOnce: a process that is told twice to upgrade gives its place away
// once.
func TestUpgradeOnce(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	writeFile(t, filepath.Join(dir, "perigee.toml"), "version = 1\n[dns]\nlisten = [\""+addr+"\"]\nzone_files = [\"zones/*.zone\"]\n")
	writeFile(t, filepath.Join(dir, "zones", "example.test.zone"), upgradeZone)
	u := startUpgradable(t, dir, "dns", "dns")
	const starting = "msg=\"upgrade: starting the new process\""
	if !poll(eventuallyScript, func() bool {
		begun := strings.Contains(u.text(), starting)
		if !begun {
			syscall.Kill(u.pid, syscall.SIGUSR2)
		}
		return begun
	}) {
		t.Fatalf("the upgrade does not start:\n%s", u.text())
	}
	syscall.Kill(u.pid, syscall.SIGUSR2) // waits until the first is done
	<-u.done
	if n := strings.Count(u.text(), starting); n != 1 {
		t.Errorf("%d new processes were started:\n%s", n, u.text())
	}
	status, _, err := u.perigee("status", "--json")
	var st localStatus
	if err == nil {
		err = json.Unmarshal([]byte(status), &st)
	}
	if err != nil || st.PID == u.pid {
		t.Errorf("status: %v: %s", err, status)
	}
	u.pid = st.PID
}

// TestUpgradeThenEnd: a process that is told to end while the new one starts
// leaves nobody behind; finish sees the state folder's lock go.
func TestUpgradeThenEnd(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	writeFile(t, filepath.Join(dir, "perigee.toml"), "version = 1\n[dns]\nlisten = [\""+addr+"\"]\nzone_files = [\"zones/*.zone\"]\n")
	writeFile(t, filepath.Join(dir, "zones", "example.test.zone"), upgradeZone)
	u := startUpgradable(t, dir, "dns", "dns")
	self, _ := exec.LookPath("perigee")
	u.write("#!/bin/sh\n: >started\nuntil [ -e go ]; do sleep 0.05; done\nexec " + self + " \"$@\"\n")
	until := func(what string, is func() bool) {
		t.Helper()
		if !poll(eventuallyScript, is) {
			t.Fatalf("%s: not so:\n%s", what, u.text())
		}
	}
	syscall.Kill(u.pid, syscall.SIGUSR2)
	until("the new process starts", func() bool { _, err := os.Stat(filepath.Join(dir, "started")); return err == nil })
	syscall.Kill(u.pid, syscall.SIGTERM)
	until("the old process ends", func() bool { _, _, err := u.perigee("status"); return err != nil })
	writeFile(t, filepath.Join(dir, "go"), "")
	<-u.done
}
