package feed

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// killedDirEnv makes TestMain of a second process append until it is killed.
const killedDirEnv = "PERIGEE_TEST_FEED_APPEND_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedDirEnv); dir != "" {
		appendUntilKilled(dir)
	}
	if dir := os.Getenv(faultDirEnv); dir != "" {
		appendAnyway(dir)
	}
	os.Exit(m.Run())
}

// appendUntilKilled prints the position of every acknowledged entry.
func appendUntilKilled(dir string) {
	ctx := context.Background()
	srv, err := OpenServer(ctx, ServerConfig{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		e, err := srv.Log().Append(ctx, "purge", map[string]string{"url": "http://a.example/"})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%d %s\n", e.Seq, e.Chain)
	}
}

// Killed without warning in the middle of appending, three times over the same
// folder: whatever was acknowledged is on the log, and the log is whole.
func TestKilledAfterAcknowledgementEntryIsThere(t *testing.T) {
	dir := t.TempDir()
	var acked []string
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedDirEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			acked = append(acked, strings.TrimSpace(lines.Text()))
			if n == 20+7*round {
				if err := cmd.Process.Kill(); err != nil { // SIGKILL; what it still printed is read too
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed: it cannot end well
	}
	if len(acked) < 60 {
		t.Fatalf("only %d entries were acknowledged: the second process failed", len(acked))
	}
	srv, err := OpenServer(bounded(t), ServerConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	if why := srv.Log().EpochWhy(); why != "" {
		t.Fatalf("a new epoch was needed: %s", why)
	}
	stored := map[string]bool{}
	var at Position
	for e, err := range srv.Log().Entries(bounded(t), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if v := Verify(at, e); v.Kind != Next {
			t.Fatalf("seq %d after %d: %v %s", e.Seq, at.Seq, v.Kind, v.Why)
		}
		at = e.Position()
		stored[fmt.Sprintf("%d %s", e.Seq, e.Chain)] = true
	}
	for _, line := range acked {
		if len(strings.Fields(line)) != 2 || len(strings.Fields(line)[1]) != 64 {
			continue // cut off in the middle of the print
		}
		if !stored[line] {
			t.Errorf("acknowledged, and not on the log: %s", line)
		}
	}
}
