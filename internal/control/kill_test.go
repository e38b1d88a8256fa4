package control

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// killedPurgesEnv makes TestMain of a second process purge until it is killed.
const killedPurgesEnv = "PERIGEE_TEST_CONTROL_PURGE_IN"

// purgeUntilKilled has 40 callers purge, and prints every purge that is
// acknowledged, with its entry.
func purgeUntilKilled(dir string) {
	s, err := Open(context.Background(), Config{Dir: dir, Known: known})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fail := make(chan error)
	for n := range 40 {
		go func() {
			for i := 0; ; i++ {
				p := Purge{Site: "shop", URL: fmt.Sprintf("http://shop.example.com/%d/%d/%d", os.Getpid(), n, i)}
				seqs, err := s.gather.submit([]Purge{p})
				if err != nil {
					fail <- err
					return
				}
				fmt.Printf("%d %s .\n", seqs[0], p.URL) // one write: whole, or cut by the kill
			}
		}()
	}
	fmt.Fprintln(os.Stderr, <-fail)
	os.Exit(1)
}

// untilKilled runs a second process with env, hands on what it prints, and kills it
// after line n: lines that are there already come yet.
func untilKilled(t *testing.T, env string, n int, line func(string)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		line(lines.Text())
		if i == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed: it cannot end well
}

// Killed without warning while many purges share entries, three times over the
// same folder: whatever was acknowledged is on the log, in the entry it was said
// to be in, and the log is whole.
func TestKilledAmongSharedEntries(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]uint64{}
	for round := range 3 {
		untilKilled(t, killedPurgesEnv+"="+dir, 200+70*round, func(line string) {
			var seq uint64
			var url, end string
			if _, err := fmt.Sscan(line, &seq, &url, &end); err == nil && end == "." {
				acked[url] = seq
			}
		})
	}
	if len(acked) < 600 {
		t.Fatalf("only %d purges were acknowledged: the second process failed", len(acked))
	}
	s, err := Open(bounded(t), Config{Dir: dir, Known: known})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if why := s.feed.Log().EpochWhy(); why != "" {
		t.Fatalf("a new epoch was needed: %s", why)
	}
	stored, shared := map[string]uint64{}, 0
	for e, err := range s.feed.Log().Entries(bounded(t), 1) {
		if err != nil {
			t.Fatal(err)
		}
		command, err := DecodeCommand(e)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == KindPurges {
			shared++
		}
		for _, p := range PurgesOf(command) {
			stored[p.URL] = e.Seq
		}
	}
	if shared < 3 {
		t.Errorf("%d entries were shared: this tests nothing", shared)
	}
	for url, seq := range acked {
		if stored[url] != seq {
			t.Errorf("%s was acknowledged in entry %d; the log has it in %d", url, seq, stored[url])
		}
	}
}
