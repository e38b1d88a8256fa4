package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// httpLoad asks over kept connections, repeats nothing, and counts what breaks:
// every error but a connection that could not be made to begin with.
type httpLoad struct {
	where          func() string // the edge to ask now
	asked, refused atomic.Int64
	broken         atomic.Int64
	first          atomic.Pointer[string]
}

func (l *httpLoad) client(n int) {
	var conn net.Conn
	var r *bufio.Reader
	at := ""
	drop := func() {
		if conn != nil {
			conn.Close()
			conn = nil
		}
	}
	defer drop()
	for i := 0; i < n; {
		if to := l.where(); to != at {
			drop()
			at = to
		}
		if conn == nil {
			c, err := net.Dial("tcp", at)
			if err != nil {
				l.refused.Add(1) // nothing was asked yet: a client goes elsewhere
				continue
			}
			conn, r = c, bufio.NewReader(c)
		}
		i++
		l.asked.Add(1)
		more, err := exchangeOnce(conn, r, i)
		if err != nil {
			l.broken.Add(1)
			text := err.Error()
			l.first.CompareAndSwap(nil, &text)
		}
		if err != nil || !more {
			drop()
		}
	}
}

// exchangeOnce asks by every path of the edge: hits, and what is not stored.
func exchangeOnce(conn net.Conn, r *bufio.Reader, i int) (more bool, err error) {
	path := "/cached"
	if i%4 == 0 {
		path = "/private"
	}
	conn.SetDeadline(time.Now().Add(eventuallyScript))
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: www.example.test\r\n\r\n"); err != nil {
		return false, fmt.Errorf("write: %w", err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != upgradeBody {
		return false, fmt.Errorf("%s: status %d, %d octets, %v", path, resp.StatusCode, len(body), err)
	}
	return !resp.Close, nil
}

var upgradeBody = strings.Repeat("perigee ", 500)

// upgradeOrigin is the origin of both edges.
func upgradeOrigin(t *testing.T) string {
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		if r.URL.Path == "/private" {
			w.Header().Set("Cache-Control", "private")
		}
		io.WriteString(w, upgradeBody)
	}))
	t.Cleanup(o.Close)
	return o.URL
}

func edgesTOML(origin string, edges map[string]string) string {
	s := "version = 1\n[log]\naccess = \"off\"\n[site.www]\nhosts = [\"www.example.test\"]\norigins = [\"" + origin + "\"]\n"
	for name, addr := range edges {
		s += "[edge." + name + "]\naddresses = [\"" + map[string]string{"a": "192.0.2.1", "b": "192.0.2.2"}[name] + "\"]\nlisten = [\"" + addr + "\"]\n"
	}
	return s
}

const httpClients = 8

// TestUpgradeEdge: upgrade after upgrade under load, and no request breaks.
func TestUpgradeEdge(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	writeFile(t, filepath.Join(dir, "perigee.toml"), edgesTOML(upgradeOrigin(t), map[string]string{"a": addr}))
	u := startUpgradable(t, dir, "a", "edge", "a")
	n := sizeFromEnv(t, envRequests, fewRequests)
	l := &httpLoad{where: func() string { return addr }}
	var wg sync.WaitGroup
	for range httpClients {
		wg.Go(func() { l.client(n / httpClients) })
	}
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
	l.judge(t, n, fmt.Sprintf("%d upgrades", upgrades))
	if r := l.refused.Load(); r != 0 {
		t.Errorf("%d connections were refused: the new process had the socket", r)
	}
}

// TestUpgradeDies: a new process that dies while the old one drains costs
// nothing: the old one goes on, is asked again by its admin socket, and gives its
// place to the next.
func TestUpgradeDies(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	writeFile(t, filepath.Join(dir, "perigee.toml"), edgesTOML(upgradeOrigin(t), map[string]string{"a": addr})+"[health]\ndrain = \"60s\"\n[cache]\ndisk = \"256MiB\"\n")
	u := startUpgradable(t, dir, "a", "edge", "a")
	u.dies = true
	old := u.pid
	serves := func(what string) {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for i := range 8 {
			if more, err := exchangeOnce(conn, r, i); err != nil || !more {
				t.Fatalf("%s: request %d: %v, the connection stays: %v", what, i, err, more)
			}
		}
	}
	for n := 1; n <= 2; n++ {
		u.upgrade()
		syscall.Kill(u.pid, syscall.SIGKILL)
		if !poll(eventuallyScript, func() bool { return strings.Count(u.text(), "taken its place back") == n }) {
			t.Fatalf("the old process does not see that the new one died:\n%s", u.text())
		}
		u.pid = old
		if !poll(eventuallyScript, func() bool { return strings.Count(u.text(), "what it holds is validated before it is used") == n }) {
			t.Fatalf("the old process does not take its disk back:\n%s", u.text())
		}
		if !poll(eventuallyScript, func() bool {
			out, _, err := u.perigee("status", "--json")
			return err == nil && strings.Contains(out, fmt.Sprintf(`"pid": %d`, old))
		}) {
			t.Fatalf("status does not reach the old process:\n%s", u.text())
		}
		serves("the old process")
	}
	u.upgrade()
	if err := u.end(syscall.SIGTERM); err != nil { // it does not wait for its drain
		t.Error(err)
	}
	serves("the new process")
	syscall.Kill(u.pid, syscall.SIGKILL) // nor does this test
}

func (l *httpLoad) judge(t *testing.T, n int, what string) {
	t.Helper()
	t.Logf("%d requests, %s, %d broken, %d connections refused", l.asked.Load(), what, l.broken.Load(), l.refused.Load())
	if b := l.broken.Load(); b != 0 {
		t.Errorf("%d of %d requests broke; first: %s", b, l.asked.Load(), *l.first.Load())
	}
	if want := int64(n / httpClients * httpClients); l.asked.Load() != want {
		t.Errorf("%d requests asked, want %d", l.asked.Load(), want)
	}
}

// TestEndEdge: SIGTERM under load. Clients go where /-/ready is 200, as those
// that follow DNS or a balancer do, and none of their requests breaks.
func TestEndEdge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	addrs := map[string]string{"a": freeAddr(t), "b": freeAddr(t)}
	writeFile(t, filepath.Join(dir, "perigee.toml"), edgesTOML(upgradeOrigin(t), addrs))
	edges := map[string]*upgradable{}
	for name := range addrs {
		edges[name] = startUpgradable(t, dir, name, "edge", name)
	}
	n := sizeFromEnv(t, envRequests, fewRequests)
	var now atomic.Pointer[string]
	use := func(name string) { a := addrs[name]; now.Store(&a) }
	use("a")
	l := &httpLoad{where: func() string { return *now.Load() }}
	var wg sync.WaitGroup
	for range httpClients {
		wg.Go(func() { l.client(n / httpClients) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	ends, names := 0, []string{"a", "b"}
	for running := true; running; ends++ {
		old, next := names[ends%2], names[(ends+1)%2]
		edges[old].cmd.Process.Signal(syscall.SIGTERM)
		waitNotReady(t, addrs[old])
		use(next)
		<-edges[old].done
		if code := edges[old].cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("edge %s: exit %d after SIGTERM", old, code)
		}
		edges[old] = startUpgradable(t, dir, old, "edge", old)
		edges[old].waitReady(ends/2 + 2)
		select {
		case <-done:
			running = false
		default:
		}
	}
	l.judge(t, n, fmt.Sprintf("%d ends by SIGTERM", ends))
}

// waitNotReady waits until /-/ready is 503 and /-/health still 200.
func waitNotReady(t *testing.T, addr string) {
	t.Helper()
	var ready int
	var err error
	if !poll(eventuallyScript, func() bool {
		ready, err = probeStatus(addr, "/-/ready")
		return err != nil || ready == http.StatusServiceUnavailable
	}) || err != nil {
		t.Fatalf("the edge took no more before it said that it is not ready: %d, %v", ready, err)
	}
	if health, err := probeStatus(addr, "/-/health"); err != nil || health != http.StatusOK {
		t.Errorf("/-/health while it drains: %d, %v", health, err)
	}
}

func probeStatus(addr, path string) (int, error) {
	resp, err := http.Get("http://" + addr + path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

// purge is a command to the control node in the process.
func (u *upgradable) purge() (stdout, stderr string, err error) {
	cmd := exec.Command("perigee", "purge", "http://www.example.test/cached", "--control", "unix:"+filepath.Join(u.state(), adminSocket))
	cmd.Dir = u.dir
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// TestUpgradeControl: a process that is DNS, edge and control node at once gives
// its place away under load. Nothing that is asked breaks, what was commanded
// before is known after, and a new process that cannot open the control node
// leaves the old one as it was.
func TestUpgradeControl(t *testing.T) {
	t.Parallel()
	dir, dns, web, admin := t.TempDir(), freeAddr(t), freeAddr(t), freeAddr(t)
	conf := filepath.Join(dir, "perigee.toml")
	text := edgesTOML(upgradeOrigin(t), map[string]string{"a": web}) + "[dns]\nlisten = [\"" + dns + "\"]\n[dns.limit]\nrate = 0\n[zone.\"example.test\"]\nfile = \"example.test.zone\"\n[control]\n"
	writeFile(t, filepath.Join(dir, "example.test.zone"), upgradeZone)
	writeFile(t, conf, text+"listen = \""+admin+"\"\n")
	u := startUpgradable(t, dir, "all")
	u.dies = true
	n := sizeFromEnv(t, envRequests, fewRequests)
	queries, l := &dnsLoad{addr: dns}, &httpLoad{where: func() string { return web }}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() { l.client(n / 4) })
		wg.Go(func() {
			for {
				queries.udp(100, 4)
				queries.tcp(10)
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for round := range 2 {
		if out, errs, err := u.purge(); err != nil || !strings.Contains(out, fmt.Sprintf("seq %d, applied on", round+1)) {
			t.Errorf("purge of round %d: %s %s %v", round, out, errs, err)
		}
		u.upgrade()
		u.waitReady(round + 2)
	}
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	writeFile(t, conf, text+"listen = \""+taken.Addr().String()+"\"\n")
	if out, errs, err := u.perigee("upgrade"); err == nil || !strings.Contains(errs, "this one has taken its place back") {
		t.Errorf("an upgrade whose control node cannot open: %s %s %v", out, errs, err)
	}
	writeFile(t, conf, text+"listen = \""+admin+"\"\n")
	if out, errs, err := u.purge(); err != nil || !strings.Contains(out, "seq 3, applied on 2 of 2 nodes") {
		t.Errorf("purge at the old process: %s %s %v", out, errs, err)
	}
	close(stop)
	wg.Wait()
	l.judge(t, n/2, "2 upgrades and one that failed")
	if why := queries.bad.Load(); why != nil || queries.asked.Load() == 0 {
		t.Errorf("%d of %d queries: %s", queries.missing.Load(), queries.asked.Load(), *why)
	}
}
