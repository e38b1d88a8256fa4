package fleet

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// wanMTU is of the lines between regions.
	wanMTU = 1500
	// maxUnderWay bounds the packets on one line in one direction; more are lost,
	// as they are in a router: 4 MB in 25 ms are over a gigabit a second.
	maxUnderWay = 4096
)

// lines are what joins the regions, since this kernel has no netem: each region's
// router has a TUN interface, and what it sends there comes out in the other
// region's a while later.
type lines struct {
	ends [256]*os.File // by region's net
	wg   sync.WaitGroup
}

type underWay struct {
	due    time.Time
	packet []byte
}

func openLines(w *world) (*lines, error) {
	l := &lines{}
	for _, r := range regions {
		h := w.hosts[r.name]
		err := h.do(func() (err error) {
			l.ends[r.net], err = openTUN("wan")
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("/dev/net/tun: %w", err)
		}
		up := fmt.Sprintf("link set wan mtu %d up\nroute add 10.0.0.0/8 dev wan\n", wanMTU)
		if err := h.run(up, "ip", "-batch", "-"); err != nil {
			return nil, err
		}
	}
	for _, from := range regions {
		queues := map[byte]chan underWay{}
		for _, to := range regions {
			if from != to {
				q := make(chan underWay, maxUnderWay)
				queues[to.net] = q
				l.wg.Go(func() { l.deliver(q, l.ends[to.net]) })
			}
		}
		l.wg.Go(func() { l.take(from.net, queues) })
	}
	return l, nil
}

// openTUN makes a TUN interface in the namespace of the calling thread.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// take reads what a region sends to others.
func (l *lines) take(from byte, queues map[byte]chan underWay) {
	defer func() {
		for _, q := range queues {
			close(q)
		}
	}()
	buf := make([]byte, wanMTU)
	for {
		n, err := l.ends[from].Read(buf)
		if err != nil {
			return // closed
		}
		if n < 20 || buf[0]>>4 != 4 || buf[16] != 10 {
			continue
		}
		q := queues[buf[17]]
		if q == nil {
			continue
		}
		select {
		case q <- underWay{time.Now().Add(far(from, buf[17])), append([]byte(nil), buf[:n]...)}:
		default: // full: lost
		}
	}
}

// deliver hands packets over when they are due.
func (l *lines) deliver(q chan underWay, to *os.File) {
	for p := range q {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.packet); err != nil && errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

func (l *lines) close() {
	for _, f := range l.ends {
		if f != nil {
			f.Close()
		}
	}
	l.wg.Wait()
}
