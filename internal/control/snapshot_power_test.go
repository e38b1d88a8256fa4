package control

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"perigee.example/internal/txtest"
)

const (
	// envLosses is how often the disk loses power; `make soak` asks for more.
	envLosses = "PERIGEE_POWER_LOSSES"
	fewLosses = 4
	// lossWithin bounds when, after a purge that was acknowledged: a snapshot and a
	// trimming of the log take about as long.
	lossWithin = 60 * time.Millisecond
)

// unplugged runs a second process with env, and has its disk lose power some time after
// line n; what it prints until it is killed is handed on. For every second loss it does not
// stand still meanwhile: what it acknowledges then must be true, too (F9).
func unplugged(t *testing.T, disk *txtest.Disk, r *rand.Rand, env string, n int, line func(string)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make(chan struct{}, n)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(seen)
		lines := bufio.NewScanner(out)
		for i := 0; lines.Scan(); i++ {
			line(lines.Text())
			if i < n {
				seen <- struct{}{}
			}
		}
	})
	came := 0
	for ; came < n; came++ {
		if _, ok := <-seen; !ok {
			break
		}
	}
	time.Sleep(time.Duration(r.Int64N(int64(lossWithin))))
	stands := r.IntN(2) == 0
	if stands {
		err = cmd.Process.Signal(syscall.SIGSTOP)
	}
	err = errors.Join(err, disk.LosePower())
	if !stands {
		time.Sleep(time.Duration(r.Int64N(int64(lossWithin))))
	}
	_ = cmd.Process.Kill() // it may have ended: its disk is gone
	reader.Wait()
	_ = cmd.Wait()
	if err = errors.Join(err, disk.Unmount(), disk.Mount()); err != nil || came < n {
		t.Fatalf("%d of %d purges were acknowledged, %v", came, n, err)
	}
}

// TestPowerLossAmongSnapshots: a control node that does nothing but acknowledge a purge,
// make a snapshot and trim the log behind it loses power again and again, in the middle of
// any of these. All that it acknowledged is in its state, though most entries are gone; no
// start takes what was trimmed for lost, and none is without a snapshot.
func TestPowerLossAmongSnapshots(t *testing.T) {
	if !txtest.OwnMounts(t) {
		return
	}
	at := t.TempDir()
	disk, err := txtest.NewDisk(filepath.Join(t.TempDir(), "disk.xfs"), at, 400<<20)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = disk.Unmount() }() // the namespace's end does it, too
	if err := disk.Proof(); err != nil {
		t.Fatal(err)
	}
	losses, seed := fewLosses, uint64(time.Now().UnixNano())
	if text := os.Getenv(envLosses); text != "" {
		if losses, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", envLosses, err)
		}
	}
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	dir, acked := filepath.Join(at, "control"), map[string]uint64{}
	for i := range losses {
		unplugged(t, disk, r, killedSnapshotsEnv+"="+dir, 1+r.IntN(4), func(line string) {
			var seq uint64
			var url, end string
			if _, err := fmt.Sscan(line, &seq, &url, &end); err == nil && end == "." {
				acked[url] = seq
			}
		})
		s, err := Open(bounded(t), Config{Dir: dir, Known: known, byHand: true})
		if err != nil {
			t.Fatalf("loss %d: %v", i+1, err)
		}
		if why := s.feed.Log().EpochWhy(); why != "" {
			t.Errorf("loss %d: a new epoch was needed: %s", i+1, why)
		}
		for url, seq := range acked {
			if got := s.purged[Purge{Site: "shop", URL: url}]; got != seq {
				t.Errorf("loss %d: %s was acknowledged in entry %d, the state has it in %d", i+1, url, seq, got)
			}
		}
		first := s.feed.Log().First()
		s.Close()
		if t.Failed() || i == losses-1 && first < uint64(losses) {
			t.Fatalf("loss %d: %d purges were acknowledged, the log begins at %d", i+1, len(acked), first)
		}
	}
	t.Logf("%d losses of power among snapshots, %d purges acknowledged before them, all there", losses, len(acked))
}
