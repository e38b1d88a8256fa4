package handover

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// envChild makes this test binary the new process, of one of these kinds.
const envChild = "HANDOVER_CHILD"

func TestMain(m *testing.M) {
	switch kind := os.Getenv(envChild); kind {
	case "":
		os.Exit(m.Run())
	case "crash":
		panic("a new binary that is broken")
	default:
		if err := child(kind); err != nil {
			fmt.Println(err)
			os.Exit(7)
		}
	}
}

// child takes over the listener whose address is in the environment, answers one
// connection with what it is, and ends.
func child(kind string) error {
	s, p, err := Inherit()
	if err != nil {
		return err
	}
	if kind == "fail" {
		p.Fail("line one\nline two")
		return fmt.Errorf("failed as told")
	}
	if s.given["tcp "+os.Getenv("HANDOVER_ADDR")] == nil {
		return fmt.Errorf("no such socket among %v", s.given)
	}
	ln, err := s.Listen("tcp4", os.Getenv("HANDOVER_ADDR"))
	if err != nil {
		return err
	}
	if left := s.CloseUnused(); len(left) != 1 || !strings.HasPrefix(left[0], "udp 127.0.0.1:") {
		return fmt.Errorf("left over: %v", left)
	}
	if p != nil {
		if err := p.Ready(); err != nil {
			return err
		}
	}
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	fmt.Fprintf(c, "%s, lock %t\n", kind, p != nil && p.Lock != nil)
	return c.Close()
}

// opened opens a listener and a packet socket, and a file that is the lock.
func opened(t *testing.T) (*Sockets, net.Listener, *os.File) {
	t.Helper()
	s := &Sockets{given: map[string]*os.File{}}
	ln, err := s.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := s.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.Listen("tcp4", "127.0.0.1:0") // closed: it is not handed over
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	lock, err := os.CreateTemp(t.TempDir(), "lock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close(); pc.Close(); lock.Close() })
	t.Setenv("HANDOVER_ADDR", ln.Addr().String())
	return s, ln, lock
}

// said is what whoever accepts says.
func said(t *testing.T, addr string) string {
	t.Helper()
	c, err := net.Dial("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func TestStart(t *testing.T) {
	s, ln, lock := opened(t)
	t.Setenv(envChild, "good")
	c, err := s.Start(os.Args[0], []string{"child"}, lock)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	ln.Close() // ours: what connects now waits for the child's
	c.Go()
	if got := said(t, ln.Addr().String()); got != "good, lock true\n" {
		t.Errorf("the child said %q", got)
	}
	<-c.ended
	if !c.status.Success() {
		t.Error(c.status)
	}
}

// TestStartFails: each way of not starting is told, and the sockets stay ours.
func TestStartFails(t *testing.T) {
	for kind, want := range map[string]string{
		"fail":  "exit status 7: line one\nline two",
		"crash": "exit status 2, before it was ready",
	} {
		s, ln, lock := opened(t)
		t.Setenv(envChild, kind)
		c, err := s.Start(os.Args[0], []string{"child"}, lock)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(10 * time.Second); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", kind, err, want)
		}
		// Deadlines still work: nothing has made the socket block.
		ln.(*net.TCPListener).SetDeadline(time.Now().Add(-time.Second))
		if _, err := ln.Accept(); !os.IsTimeout(err) {
			t.Errorf("%s: accept: %v, want a timeout", kind, err)
		}
	}
	s, _, lock := opened(t)
	if _, err := s.Start("/nonexistent/perigee", []string{"perigee"}, lock); err == nil {
		t.Error("a program that is not there was started")
	}
	// Nothing says it is ready: the wait ends, and the process with it.
	c, err := s.Start("/bin/sleep", []string{"sleep", "60"}, lock)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(time.Millisecond); err == nil || !strings.Contains(err.Error(), "was not ready within 1ms") {
		t.Errorf("a process that says nothing: %v", err)
	}
	// So does the wait for one that says why it fails, and then hangs.
	c, err = s.Start("/bin/sh", []string{"sh", "-c", "echo failed >&3; exec sleep 3600 3>&-"}, lock)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(2 * time.Second); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("a process that fails and hangs: %v", err)
	}
}

// TestSystemd: sockets by LISTEN_FDS, of which only the process that LISTEN_PID
// names takes any.
func TestSystemd(t *testing.T) {
	s, ln, _ := opened(t)
	fds, err := s.duplicate()
	if err != nil || len(fds) != 2 {
		t.Fatal(fds, err)
	}
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 exec "$0"`, os.Args[0])
	for _, fd := range fds {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), "socket"))
	}
	cmd.Env = append(os.Environ(), envChild+"=systemd")
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if got := said(t, ln.Addr().String()); got != "systemd, lock false\n" {
		t.Errorf("the child said %q", got)
	}
	text, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "2")
	if s, p, err := Inherit(); err != nil || p != nil || len(s.given) != 0 {
		t.Errorf("another process's sockets: %v %v %v", s, p, err)
	}
	if os.Getenv("LISTEN_FDS") != "" {
		t.Error("LISTEN_FDS is left for our children")
	}
	t.Setenv("PERIGEE_UPGRADE", "many")
	if _, _, err := Inherit(); err == nil {
		t.Error("PERIGEE_UPGRADE=many was taken")
	}
}

func TestNotify(t *testing.T) {
	if err := Notify("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	path := t.TempDir() + "/n"
	pc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Notify("MAINPID=7\nREADY=1"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	pc.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := pc.ReadFrom(b)
	if err != nil || string(b[:n]) != "MAINPID=7\nREADY=1" {
		t.Errorf("%q, %v", b[:n], err)
	}
}
