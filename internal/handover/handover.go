// Package handover gives the listening sockets of a process to the one that
// takes its place, so that nothing that waits in them is lost, and takes them
// from systemd where it opens them.
//
//	sockets, parent, err := handover.Inherit() // parent is nil at an ordinary start
//	ln, err := sockets.Listen("tcp4", "192.0.2.53:53") // inherited, or opened here
//	…
//	err = parent.Ready() // the old process stops; returns when this one may go on
//
// The old process calls Start with the new program, Child.Wait until that says
// it is ready, and Child.Go when it has let go of what only one of them may have.
//
// A new process gets, from descriptor 3 on: a pipe to say that it is ready, a
// pipe to hear that it may go on, the lock of the state folder, and the sockets,
// whose number stands in PERIGEE_UPGRADE. Sockets of systemd come by LISTEN_PID
// and LISTEN_FDS (sd_listen_fds(3)). Either way they are known by their type
// and address.
package handover

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// envUpgrade is how many sockets the old process hands over.
	envUpgrade = "PERIGEE_UPGRADE"
	firstFD    = 3 // after stdin, stdout, stderr
	readyFD    = firstFD
	goFD       = firstFD + 1
	lockFD     = firstFD + 2
	socketFD   = firstFD + 3

	// maxSockets bounds what is handed over: many times the addresses that a
	// machine listens on.
	maxSockets = 1024
	// goTimeout bounds the wait for an old process that neither says to go on nor
	// ends.
	goTimeout = 30 * time.Second
	// maxSaid bounds what a new process says of why it does not start.
	maxSaid = 64 << 10
)

// Sockets are the listening sockets of a process: those that it was given, and
// those that it opened, all of which the next process gets.
type Sockets struct {
	mu    sync.Mutex
	given map[string]*os.File // not yet asked for; by key
	open  []syscall.Conn
	kept  []int // descriptors of datagram sockets
}

// Parent is the process that this one takes the place of.
type Parent struct {
	Lock        *os.File // of the state folder; held by both
	ready, goOn *os.File
}

// Inherit takes over what the environment says is ours. It is called once, first.
// parent is nil unless an old process waits.
func Inherit() (*Sockets, *Parent, error) {
	s := &Sockets{given: map[string]*os.File{}}
	upgrade := os.Getenv(envUpgrade)
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{envUpgrade, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name) // not for our own children
	}
	if upgrade != "" {
		n, err := count(upgrade)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", envUpgrade, err)
		}
		for fd := readyFD; fd < socketFD; fd++ {
			syscall.CloseOnExec(fd)
		}
		syscall.SetNonblock(goFD, true) // so that the wait can end
		p := &Parent{
			ready: os.NewFile(readyFD, "ready"), goOn: os.NewFile(goFD, "go"), Lock: os.NewFile(lockFD, "lock"),
		}
		if p.ready == nil || p.goOn == nil || p.Lock == nil {
			return nil, nil, fmt.Errorf("%s is set, and descriptors %d to %d are not open: it is set by perigee itself only", envUpgrade, readyFD, lockFD)
		}
		return s, p, s.take(socketFD, n)
	}
	if pid != "" && pid == strconv.Itoa(os.Getpid()) {
		n, err := count(fds)
		if err != nil {
			return nil, nil, fmt.Errorf("LISTEN_FDS: %w", err)
		}
		return s, nil, s.take(firstFD, n)
	}
	return s, nil, nil
}

func count(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxSockets {
		return 0, fmt.Errorf("%q is not a number of sockets (at most %d)", text, maxSockets)
	}
	return n, nil
}

// take notes n sockets from descriptor first on.
func (s *Sockets) take(first, n int) error {
	for fd := first; fd < first+n; fd++ {
		syscall.CloseOnExec(fd)
		key, err := keyOf(fd)
		if err != nil {
			return fmt.Errorf("inherited descriptor %d: %w", fd, err)
		}
		s.given[key] = os.NewFile(uintptr(fd), key)
	}
	return nil
}

// keyOf is the type and the address of a socket.
func keyOf(fd int) (string, error) {
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return "", os.NewSyscallError("getsockopt", err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return "", os.NewSyscallError("getsockname", err)
	}
	var ip net.IP
	var port int
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		ip, port = sa.Addr[:], sa.Port
	case *syscall.SockaddrInet6:
		ip, port = sa.Addr[:], sa.Port
	default:
		return "", errors.New("is no socket of the Internet: systemd may give TCP and UDP sockets only")
	}
	network := "tcp"
	if kind == syscall.SOCK_DGRAM {
		network = "udp"
	}
	return key(network, net.JoinHostPort(ip.String(), strconv.Itoa(port))), nil
}

func key(network, addr string) string { return strings.TrimRight(network, "46") + " " + addr }

// Listen returns the inherited listener of that network ("tcp4", "tcp6") and
// address, or opens one. The caller closes it.
func (s *Sockets) Listen(network, addr string) (net.Listener, error) {
	f := s.claim(network, addr)
	if f == nil {
		ln, err := net.Listen(network, addr)
		if err == nil {
			s.add(ln)
		}
		return ln, err
	}
	defer f.Close() // FileListener has a descriptor of its own
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherited socket %s: %w", f.Name(), err)
	}
	s.add(ln)
	return ln, nil
}

// ListenPacket is Listen for datagrams.
func (s *Sockets) ListenPacket(network, addr string) (net.PacketConn, error) {
	f := s.claim(network, addr)
	if f == nil {
		pc, err := net.ListenPacket(network, addr)
		if err != nil {
			return nil, err
		}
		return pc, s.keep(pc)
	}
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("inherited socket %s: %w", f.Name(), err)
	}
	return pc, s.keep(pc)
}

// keep notes a socket for the next process by a descriptor of its own: the DNS
// server takes datagram sockets out of the runtime's poller, and closes what it
// was given. The descriptor stays until this process ends.
func (s *Sockets) keep(pc net.PacketConn) error {
	c, ok := pc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var fd int
	var dupErr error
	if err := raw.Control(func(of uintptr) { fd, dupErr = duplicate(int(of)) }); err != nil {
		return err
	}
	if dupErr != nil {
		return os.NewSyscallError("dup", dupErr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, fd)
	return nil
}

func (s *Sockets) claim(network, addr string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.given[key(network, addr)]
	delete(s.given, key(network, addr))
	return f
}

// add notes a socket for the next process.
func (s *Sockets) add(sock any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := sock.(syscall.Conn); ok {
		s.open = append(s.open, c)
	}
}

// CloseUnused closes the inherited sockets that nobody asked for, and names them.
func (s *Sockets) CloseUnused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, f := range s.given {
		names = append(names, name)
		f.Close()
	}
	clear(s.given)
	return names
}

// Ready tells the old process that this one serves, and waits until it may do
// what only one of them may.
func (p *Parent) Ready() error {
	_, err := io.WriteString(p.ready, "ready\n")
	p.ready.Close()
	if err != nil {
		return fmt.Errorf("the process that this one takes the place of: %w", err)
	}
	if err := p.goOn.SetReadDeadline(time.Now().Add(goTimeout)); err != nil {
		return err
	}
	_, err = p.goOn.Read(make([]byte, 1))
	p.goOn.Close()
	if err != nil && err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the process that this one takes the place of: %w", err)
	}
	return nil
}

// Fail tells the old process why this one does not start.
func (p *Parent) Fail(why string) {
	_, _ = io.WriteString(p.ready, "failed\n"+why) // else the exit status has to do
	p.ready.Close()
}

// Child is a new process that is to take the place of this one.
type Child struct {
	Pid    int
	ready  *os.File
	goOn   *os.File
	ended  chan struct{}
	status *os.ProcessState
}

// Start runs program with these arguments (the first is its name), this
// process's environment, output and folder, the lock, and every socket that
// Listen and ListenPacket have given out.
func (s *Sockets) Start(program string, args []string, lock *os.File) (*Child, error) {
	sockets, err := s.duplicate()
	defer closeAll(sockets)
	if err != nil {
		return nil, err
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer readyW.Close()
	goR, goW, err := os.Pipe()
	if err != nil {
		readyR.Close()
		return nil, err
	}
	defer goR.Close()
	files := []uintptr{0, 1, 2, readyW.Fd(), goR.Fd(), lock.Fd()}
	for _, fd := range sockets {
		files = append(files, uintptr(fd))
	}
	env := append(os.Environ(), envUpgrade+"="+strconv.Itoa(len(sockets)))
	// Not os.StartProcess: it makes every descriptor block, and a socket's mode
	// is one for both processes.
	pid, err := syscall.ForkExec(program, args, &syscall.ProcAttr{Env: env, Files: files})
	if err != nil {
		readyR.Close()
		goW.Close()
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	c := &Child{Pid: pid, ready: readyR, goOn: goW, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		if p, err := os.FindProcess(pid); err == nil {
			c.status, _ = p.Wait()
		}
	}()
	return c, nil
}

// Wait returns when the new process serves; else the error says why it does
// not, and it has ended.
func (c *Child) Wait(timeout time.Duration) error {
	defer c.ready.Close()
	end := time.Now().Add(timeout)
	c.ready.SetReadDeadline(end)
	r := bufio.NewReader(io.LimitReader(c.ready, maxSaid))
	line, err := r.ReadString('\n')
	if line == "ready\n" {
		return nil
	}
	why := ""
	if line == "failed\n" {
		said, _ := io.ReadAll(r)
		why = strings.TrimSpace(string(said))
	}
	c.goOn.Close()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		why = fmt.Sprintf("it was not ready within %s", timeout)
	}
	select {
	case <-c.ended:
	case <-time.After(time.Until(end)): // also for one that has said why, and hangs
		syscall.Kill(c.Pid, syscall.SIGKILL)
		<-c.ended
	}
	if c.status != nil {
		err = fmt.Errorf("the new process, pid %d: %s", c.Pid, c.status)
	}
	if why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return fmt.Errorf("%w, before it was ready", err)
}

// Go lets the new process go on, which is on its own from now.
func (c *Child) Go() { c.goOn.Close() }

// Ended is closed when the new process has ended; then Err says how, and is nil
// when that was in good order.
func (c *Child) Ended() <-chan struct{} { return c.ended }

// Err says how the new process has ended.
func (c *Child) Err() error {
	<-c.ended
	if c.status != nil && c.status.Success() {
		return nil
	}
	return fmt.Errorf("the new process, pid %d: %v", c.Pid, c.status)
}

// Stop ends the new process, which serves already, in good order.
func (c *Child) Stop() {
	syscall.Kill(c.Pid, syscall.SIGTERM)
	c.goOn.Close()
}

// Kill ends the new process at once, and waits until it has ended.
func (c *Child) Kill() {
	syscall.Kill(c.Pid, syscall.SIGKILL)
	<-c.ended
}

// duplicate copies the descriptors of all open sockets; those that are closed
// are left out.
func (s *Sockets) duplicate() ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var fds []int
	for _, fd := range s.kept {
		dup, err := duplicate(fd)
		if err != nil {
			return fds, os.NewSyscallError("dup", err)
		}
		fds = append(fds, dup)
	}
	for _, c := range s.open {
		raw, err := c.SyscallConn()
		if err != nil {
			return fds, err
		}
		var dup int
		var dupErr error
		if raw.Control(func(fd uintptr) { dup, dupErr = duplicate(int(fd)) }) != nil {
			continue // closed
		}
		if dupErr != nil {
			return fds, os.NewSyscallError("dup", dupErr)
		}
		fds = append(fds, dup)
	}
	if len(fds) > maxSockets {
		return fds, fmt.Errorf("%d sockets are more than can be handed over (%d)", len(fds), maxSockets)
	}
	return fds, nil
}

// duplicate copies a descriptor for this process alone.
func duplicate(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	dup, err := syscall.Dup(fd)
	if err == nil {
		syscall.CloseOnExec(dup)
	}
	return dup, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}
