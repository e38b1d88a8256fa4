package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// loadSize is how large TestReloadUnderLoad is.
type loadSize struct {
	zones, names int // small zones, and names of the one large one
	reloads      int
	clients      int
}

// In CI a few seconds; `make test-zones-big` has the sizes that operators have.
var (
	smallLoad = loadSize{zones: 200, names: 5000, reloads: 2, clients: 4}
	bigLoad   = loadSize{zones: 20_000, names: 1_000_000, reloads: 5, clients: 8}
)

// TestReloadUnderLoad: while one zone of many, the large one, and all of them
// at once are loaded anew, every query is answered, from the old version or
// the new one and from nothing in between. A query is sent once: one that is
// lost fails the test.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	size := smallLoad
	if os.Getenv("PERIGEE_BIG") != "" {
		size = bigLoad
	}
	dir := t.TempDir()
	f := &loadFleet{t: t, dir: dir, size: size}
	f.writeAll(1)
	hosts, err := loopbackHosts(1)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(hosts, 1)
	if err != nil {
		t.Fatal(err)
	}
	f.addr = net.JoinHostPort(hosts[0], strconv.Itoa(ports[0]))
	toml := fmt.Sprintf("version = 1\n[dns]\nlisten = [%q]\nzone_files = [\"zones/*.zone\"]\n", f.addr)
	if err := os.WriteFile(filepath.Join(dir, "perigee.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	cmd := exec.Command("perigee", "serve", "dns", "--state", filepath.Join(dir, "state"))
	cmd.Dir = dir
	p, err := startProcess("srv", filepath.Join(dir, "srv.log"), cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		p.kill()
		if text := p.text(); strings.Contains(text, raceReport) || t.Failed() {
			t.Errorf("the server printed\n%s", text[:min(len(text), 4000)])
		}
	}()
	for !strings.Contains(p.text(), "msg=ready") {
		if p.ended() {
			t.Fatal("the server ended")
		}
		time.Sleep(pollEvery)
	}
	t.Logf("ready after %.1f s: %d zones and one of %d names", time.Since(start).Seconds(), size.zones, size.names)
	f.run(start)
}

// loadFleet is the zone files, and those who ask for what is in them.
type loadFleet struct {
	t    *testing.T
	dir  string
	addr string
	size loadSize

	stop     atomic.Bool
	asked    atomic.Int64
	answered atomic.Int64
	wrong    atomic.Int64
	said     sync.Once
}

// run asks and reloads at the same time, and counts.
func (f *loadFleet) run(began time.Time) {
	var wg sync.WaitGroup
	for i := range f.size.clients {
		wg.Go(func() { f.ask(rand.New(rand.NewPCG(uint64(began.UnixNano()), uint64(i)))) })
	}
	for round := range f.size.reloads {
		serial := 2 + 2*round
		f.writeZone(serial, round%f.size.zones)
		f.await(fmt.Sprintf("zone%d.test.", round%f.size.zones), serial)
		f.writeLarge(serial)
		f.await("large.test.", serial)
		f.writeAll(serial + 1)
		f.await("large.test.", serial+1)
		f.await(fmt.Sprintf("zone%d.test.", f.size.zones-1), serial+1)
	}
	f.stop.Store(true)
	wg.Wait()
	asked, answered := f.asked.Load(), f.answered.Load()
	if asked != answered || f.wrong.Load() != 0 || asked == 0 {
		f.t.Errorf("seed %d: %d queries, %d answers, %d of them wrong", began.UnixNano(), asked, answered, f.wrong.Load())
	}
	f.t.Logf("%d queries, all answered, through %d reloads of one zone, of the large one, and of all %d", asked, f.size.reloads, f.size.zones+1)
}

// ask sends one query after the other until stop, each once.
func (f *loadFleet) ask(rng *rand.Rand) {
	c, err := net.Dial("udp", f.addr)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer c.Close()
	buf := make([]byte, 1500)
	for !f.stop.Load() {
		zone := fmt.Sprintf("www.zone%d.test.", rng.IntN(f.size.zones))
		if rng.IntN(2) == 0 {
			zone = fmt.Sprintf("h%d.large.test.", rng.IntN(f.size.names))
		}
		q := loadQuery(uint16(rng.Uint32()), zone, 1)
		f.asked.Add(1)
		if _, err := c.Write(q); err != nil {
			f.t.Error(err)
			return
		}
		n, err := readReply(c, buf, q)
		if err != nil {
			f.said.Do(func() { f.t.Errorf("%s: %v", zone, err) })
			continue
		}
		f.answered.Add(1)
		// NOERROR, AA, one answer, which is an address.
		if n < 16 || buf[3]&0xF != 0 || buf[2]&4 == 0 || buf[7] != 1 || buf[n-4] != 192 {
			f.wrong.Add(1)
			f.said.Do(func() { f.t.Errorf("%s: answer % x", zone, buf[:n]) })
		}
	}
}

// readReply waits for the reply to q.
func readReply(c net.Conn, buf, q []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(eventuallyScript)); err != nil {
		return 0, err
	}
	for {
		n, err := c.Read(buf)
		if err != nil || n >= 2 && buf[0] == q[0] && buf[1] == q[1] {
			return n, err
		}
	}
}

func loadQuery(id uint16, name string, qtype uint16) []byte {
	q := binary.BigEndian.AppendUint16(nil, id)
	q = append(q, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0)
	return append(binary.BigEndian.AppendUint16(q, qtype), 0, 1)
}

// await asks for the SOA of a zone until it has a serial.
func (f *loadFleet) await(zone string, serial int) {
	f.t.Helper()
	c, err := net.Dial("udp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 1500)
	deadline := time.Now().Add(10 * eventuallyScript)
	for {
		q := loadQuery(uint16(rand.Uint32()), zone, 6)
		if _, err := c.Write(q); err != nil {
			f.t.Fatal(err)
		}
		n, err := readReply(c, buf, q)
		if err != nil {
			f.t.Fatalf("%s SOA: %v", zone, err)
		}
		if n > 20 && int(binary.BigEndian.Uint32(buf[n-20:])) == serial {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s does not get serial %d", zone, serial)
		}
		time.Sleep(pollEvery)
	}
}

// put replaces a file, by a rename as editors do.
func (f *loadFleet) put(origin, text string) {
	f.t.Helper()
	dir := filepath.Join(f.dir, "zones")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.t.Fatal(err)
	}
	tmp := filepath.Join(dir, ".new")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, origin+".zone")); err != nil {
		f.t.Fatal(err)
	}
}

const loadHead = "$TTL 300\n@ IN SOA ns1 h %d 7200 900 1209600 300\n@ IN NS ns1\nns1 IN A 192.0.2.53\n"

func (f *loadFleet) writeZone(serial, i int) {
	f.put(fmt.Sprintf("zone%d.test", i), fmt.Sprintf(loadHead+"www IN A 192.0.2.%d\n", serial, serial&0x7F))
}

func (f *loadFleet) writeLarge(serial int) {
	var b strings.Builder
	fmt.Fprintf(&b, loadHead, serial)
	for i := range f.size.names {
		last := serial / 2 // odd serials change all names, even ones a few
		if serial%2 == 0 && i < 20 {
			last = 100
		}
		fmt.Fprintf(&b, "h%d IN A 192.0.2.%d\n", i, last)
	}
	f.put("large.test", b.String())
}

func (f *loadFleet) writeAll(serial int) {
	for i := range f.size.zones {
		f.writeZone(serial, i)
	}
	f.writeLarge(serial)
}
