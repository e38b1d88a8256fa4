package control

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// killedCollectEnv makes TestMain of a second process deploy and collect until it is killed.
const killedCollectEnv = "PERIGEE_TEST_CONTROL_COLLECT_IN"

// knownKeepsLittle is known with a site that forgets as early as one may.
func knownKeepsLittle() Known {
	k := known
	k.Sites = append([]KnownSite{}, known.Sites...)
	k.Sites[0].Retain = Retain{Releases: 1, For: MinRetain}
	return k
}

// collectUntilKilled deploys one release after the other, and collects all the time
// with a clock that makes everything old that is not active. It prints a line when a
// collection has removed blobs.
func collectUntilKilled(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	s, err := Open(context.Background(), Config{Dir: dir, Known: knownKeepsLittle()})
	fail(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	go func() { fail(s.ServeAdmin(l)) }()
	c, err := NewClient(ClientConfig{Address: "https://" + l.Addr().String(), TokenFile: s.TokenFile(), CAFile: s.CAFile()})
	fail(err)
	site, err := os.MkdirTemp(dir, "site")
	fail(err)
	go func() {
		for n := 0; ; n++ {
			for i := range 3 {
				fail(os.WriteFile(filepath.Join(site, fmt.Sprint(i, ".txt")), fmt.Appendf(nil, "text %d of %d", n%(4+i), os.Getpid()), 0o600))
			}
			_, err := c.Push(context.Background(), PushOptions{Site: "www", Dir: site})
			fail(err)
			s.mu.Lock()
			clear(s.open) // what was pushed a moment ago was pushed long ago
			s.openOrder = nil
			s.mu.Unlock()
		}
	}()
	for {
		swept, err := s.collectAt(context.Background(), time.Now().Add(2*MinRetain), time.Now().Add(-tick))
		fail(err)
		if swept.Removed > 0 {
			fmt.Println("removed", swept.Removed)
		}
	}
}

// TestKilledAmongCollections: killed without warning between forgetting and
// removing, three times over the same folder: every release that may be activated is
// whole, and the log too.
func TestKilledAmongCollections(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedCollectEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		n := 0
		for lines.Scan() {
			if n++; n == 2+round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed: it cannot end well
		if n < 2+round {
			t.Fatal("the second process failed")
		}
		s, err := Open(bounded(t), Config{Dir: dir, Known: knownKeepsLittle()})
		if err != nil {
			t.Fatal(err)
		}
		f := &fleet{Server: s}
		if why := s.feed.Log().EpochWhy(); why != "" {
			t.Errorf("a new epoch was needed: %s", why)
		}
		if n := len(s.state.Sites["www"].Releases); n == 0 || len(s.state.Sites["www"].Forgotten) == 0 {
			t.Errorf("%d releases: this tests nothing", n)
		}
		for _, r := range s.state.Sites["www"].Releases {
			checkWhole(t, f, r.Release.Release)
		}
		s.Close()
	}
}
