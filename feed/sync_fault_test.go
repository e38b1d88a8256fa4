package feed

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// faultDirEnv makes TestMain of a second process append whatever comes of it.
const faultDirEnv = "PERIGEE_TEST_FEED_FAULTS_IN"

// faultTries bounds how often it does: a refusal comes with the third sync of one of
// the process's threads.
const faultTries = 200

// appendAnyway prints what became of each append: the entry, or "no".
func appendAnyway(dir string) {
	ctx := context.Background()
	srv, err := OpenServer(ctx, ServerConfig{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	patience, refused := 8*time.Second, 0
	for i := 0; i < faultTries && refused < 3; i++ {
		ctx, cancel := context.WithTimeout(ctx, patience)
		e, err := srv.Log().Append(ctx, "purge", map[string]string{"url": fmt.Sprintf("http://a.example/%d", i)})
		cancel()
		if err != nil {
			fmt.Printf("no %d %v\n", i, err)
			patience, refused = time.Second, refused+1 // JetStream says nothing more
			continue
		}
		fmt.Printf("yes %d %d %s\n", i, e.Seq, e.Chain)
	}
	os.Exit(0)
}

// F9: the disk refuses a sync of the log, once (the kernel says so once, and the
// octets are gone). What was to be synced is not acknowledged, nor is what comes after
// it in the same file; a restart goes on, with all that was acknowledged.
func TestFailedSyncIsNotAcknowledged(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	first, err := OpenServer(bounded(t), ServerConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Log().Append(bounded(t), "purge", map[string]string{"url": "http://a.example/"}); err != nil {
		t.Fatal(err)
	}
	first.Close()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "*", "msgs", "*.blk"))
	if len(blocks) != 1 {
		t.Fatalf("blocks of the log: %v, %v", blocks, err)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", "-f", "-qq", "-e", "signal=none", "-o", trace, "-P", blocks[0], "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=3", os.Args[0])
	cmd.Env = append(os.Environ(), faultDirEnv+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	calls, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	before, _, injected := strings.Cut(string(calls), "(INJECTED)")
	synced := strings.Count(before, "= 0\n")
	if !injected {
		t.Fatalf("no sync was refused:\n%s", calls)
	}
	acked := acknowledged(string(out))
	if len(acked) == 0 || len(acked) > synced {
		t.Fatalf("%d entries were acknowledged, and the log was synced %d times before its disk refused:\n%s", len(acked), synced, out)
	}
	for line := range strings.Lines(string(out)) { // what the operator is to do
		if strings.HasPrefix(line, "no ") && !strings.Contains(line, "restart the control node") {
			t.Errorf("refused without a cure: %s", line)
		}
	}
	srv, err := OpenServer(bounded(t), ServerConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	stored := map[string]bool{}
	for e, err := range srv.Log().Entries(bounded(t), 1) {
		if err != nil {
			t.Fatal(err)
		}
		stored[fmt.Sprintf("%d %s", e.Seq, e.Chain)] = true
	}
	for _, at := range acked {
		if !stored[at] {
			t.Errorf("acknowledged, and not on the log: %s", at)
		}
	}
	if e, err := srv.Log().Append(bounded(t), "purge", map[string]string{"url": "http://a.example/"}); err != nil || stored[fmt.Sprintf("%d %s", e.Seq, e.Chain)] {
		t.Errorf("after the restart: %+v, %v", e, err)
	}
}

// acknowledged are the entries that appendAnyway was given, as "seq chain".
func acknowledged(out string) (acked []string) {
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "yes" {
			acked = append(acked, f[2]+" "+f[3])
		}
	}
	return acked
}
