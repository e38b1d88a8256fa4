package dnsserver

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"perigee.example/internal/mmsg"
)

// patience is how long a reader waits before it looks whether the server closes.
const patience = 100 * time.Millisecond

// serveBatches answers what comes to a kernel socket, many datagrams a system
// call, with the given number of readers. It closes sock.conn and goes on with a
// descriptor of its own: see mmsg.Socket.
func (s *Server) serveBatches(sock *udpSocket, readers int) error {
	raw, err := sock.conn.SyscallConn()
	if err != nil {
		return err
	}
	own, err := mmsg.Open(raw)
	if err != nil {
		return err
	}
	defer own.Close()
	if err := sock.conn.Close(); err != nil {
		return err
	}
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() { errs[i] = s.readBatches(own, newBatch(s, sock)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// readBatches is one reader. Under full load nine tenths of the processor are
// the kernel's; what is saved here is most of the rest.
func (s *Server) readBatches(own *mmsg.Socket, b *batch) error {
	defer b.done()
	defer b.mmsg.Free()
	waited := time.Duration(0)
	for !s.closing.Load() {
		n, err := b.mmsg.Recv(own)
		switch {
		case err == syscall.EAGAIN:
			own.Wait(patience)
			continue
		case err == syscall.EBADF:
			return err
		case err != nil: // such as an ICMP error of an earlier reply
			waited = s.pause(waited)
			continue
		}
		waited = 0
		b.answer(n)
		// The client asks again if a reply is lost: there is nobody to tell.
		_, _ = b.mmsg.Send(own)
	}
	return nil
}

// batch is one reader's room.
type batch struct {
	asker
	sock *udpSocket
	mmsg *mmsg.Batch
	room []byte // for the replies of a batch, one behind the other: they share few pages
}

func newBatch(s *Server, sock *udpSocket) *batch {
	control := 0
	if sock.wildcard {
		control = maxControl
	}
	return &batch{asker: s.newAsker(), sock: sock, mmsg: mmsg.New(maxUDPQuery, control), room: make([]byte, mmsg.Size*udpReply)}
}

// answer answers the first n datagrams, as of one moment, and puts the replies
// in line.
func (b *batch) answer(n int) {
	b.begin(UDP, time.Duration(time.Now().UnixNano()))
	b.view = b.s.view.Load()
	at := 0
	for i := range n {
		from, local, control := b.mmsg.From(i), b.sock.local, []byte(nil)
		if from.Port() == 0 {
			continue // nothing can be sent there
		}
		if b.sock.wildcard {
			local, control = b.sock.to(b.mmsg.Control(i))
		}
		room := b.room[at : at : at+udpReply]
		packet := b.mmsg.Packet(i)
		reply := b.limit(room, b.answerTo(room, packet, from, local), packet)
		at += len(reply)
		b.mmsg.Reply(i, reply, control)
		b.report()
	}
	b.view = nil
	b.count.flush()
}
