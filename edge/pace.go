package edge

import (
	"crypto/tls"
	"net"
	"time"
)

const (
	// slowGrace is how long a client may take nothing of what it asked for, or
	// send nothing of a body that it announced. A phone that changes cells is
	// silent for some seconds.
	slowGrace = 10 * time.Second
	// minTakeRate and minSendRate are the least octets a second, over time, at
	// which a client must take an answer and send a body: those of a bad mobile
	// link. Grace comes back only as fast as this.
	minTakeRate = 2 << 10
	minSendRate = 512
	// writeBytes bounds one write. Over TLS a write that timed out cannot be
	// continued, so that each must be small enough for the slowest client's grace.
	writeBytes = 64 << 10
	// writeTick bounds one wait of a write: octets that went at its start must
	// not excuse that none went after.
	writeTick     = 2 * time.Second
	tlsWriteBytes = 16 << 10
	// unsentBytes is how much of an answer the kernel may hold that is not on
	// its way yet (TCP_NOTSENT_LOWAT): with more, a client that takes octets
	// steadily and slowly would seem to take none for a minute.
	unsentBytes = 32 << 10
)

// pace holds a client to a least rate: what it takes in time gives credit back.
type pace struct{ spent time.Duration }

// deadline is when the client has used its grace up, or tick has passed.
func (p *pace) deadline(now time.Time, tick time.Duration) time.Time {
	return now.Add(min(tick, slowGrace-p.spent))
}

// moved says that n octets went in took; rate is the least a second. It reports
// whether the client may go on.
func (p *pace) moved(n int, took time.Duration, rate int64) bool {
	p.spent = max(0, p.spent+took-time.Duration(int64(n)*int64(time.Second)/rate))
	return p.spent < slowGrace
}

// took says that n octets went without a wait.
func (p *pace) took(n int) {
	if p.spent > 0 {
		p.moved(n, 0, minTakeRate)
	}
}

// dropUnsent makes the coming close throw away what the client has not taken:
// else the kernel would keep it for who will never read it, for minutes.
func dropUnsent(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0) // an error is that of a connection which is gone
	}
}
