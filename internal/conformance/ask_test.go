package conformance

import (
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// asker asks one server, one question after the other, by UDP and over one TCP
// connection that it opens again when the server has closed it.
type asker struct {
	*server
	udp, tcp *dns.Conn
	id       uint16
	asked    int
}

func (a *asker) close() {
	for _, c := range []*dns.Conn{a.udp, a.tcp} {
		if c != nil {
			c.Close()
		}
	}
}

// ask returns the reply and its size in octets.
func (a *asker) ask(q question) (*dns.Msg, int, error) {
	conn, network := &a.udp, "udp"
	if q.by == overTCP {
		conn, network = &a.tcp, "tcp"
	}
	var err error
	for range 3 {
		if *conn == nil {
			if *conn, err = dns.DialTimeout(network, a.addr, askWithin); err != nil {
				return nil, 0, fmt.Errorf("%s: %w", a.name, err)
			}
			(*conn).UDPSize = dns.MaxMsgSize
		}
		a.id++
		a.asked++
		var m *dns.Msg
		var size int
		if m, size, err = exchange(*conn, q.msg(a.id)); err == nil {
			return m, size, nil
		}
		(*conn).Close()
		*conn = nil
	}
	return nil, 0, fmt.Errorf("%s: %s: %w", a.name, q, err)
}

func exchange(c *dns.Conn, q *dns.Msg) (*dns.Msg, int, error) {
	if err := c.SetDeadline(time.Now().Add(askWithin)); err != nil {
		return nil, 0, err
	}
	if err := c.WriteMsg(q); err != nil {
		return nil, 0, err
	}
	for {
		var h dns.Header
		wire, err := c.ReadMsgHeader(&h)
		if err != nil {
			return nil, 0, err
		}
		m := new(dns.Msg)
		if err := m.Unpack(wire); err != nil {
			return nil, 0, fmt.Errorf("%d octets that cannot be read: %w", len(wire), err)
		}
		if m.Id == q.Id {
			return m, len(wire), nil
		}
	}
}

// reply is what the server says in whole: one that was truncated is asked for
// again by TCP.
func (a *asker) reply(q question) (r *reply, size int, err error) {
	m, size, err := a.ask(q)
	if err != nil {
		return nil, 0, err
	}
	r = newReply(q, m)
	if !r.tc {
		return r, size, nil
	}
	q.by = overTCP
	if m, _, err = a.ask(q); err != nil {
		return nil, 0, err
	}
	r = newReply(r.q, m)
	r.tc = true
	return r, size, nil
}
