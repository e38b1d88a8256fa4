package pinned

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestMedianAndRatio(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{5, 1, 3}, 3}} {
		if got := Median(c.values); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	if got := Ratio(1, 4); got != "0.25" {
		t.Errorf("Ratio(1, 4) = %s", got)
	}
	if got := Ratio(1, 0); got != "–" {
		t.Errorf("Ratio(1, 0) = %s", got)
	}
}

// TestTree: what a child uses counts, and Stop ends it too.
func TestTree(t *testing.T) {
	for _, program := range []string{"taskset", "sh", "sleep"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	if _, err := os.Stat("/proc/self/smaps_rollup"); err != nil {
		t.Skip("no /proc like Linux's")
	}
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready")
	if err := syscall.Mkfifo(ready, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Start(dir, filepath.Join(dir, "log"), false, "sh", "-c", `sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done >ready; sleep 60; :'; :`)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if _, err := os.ReadFile(ready); err != nil { // waits for the writer
		t.Fatal(err)
	}
	below := children(s.cmd.Process.Pid)
	if len(below) < 1 {
		t.Fatal("no child found")
	}
	if used, err := s.CPU(); err != nil || used <= 0 {
		t.Errorf("CPU = %v, %v", used, err)
	}
	if held, err := s.Memory(); err != nil || held <= 0 {
		t.Errorf("Memory = %v, %v", held, err)
	}
	s.Stop()
	if !s.Ended() {
		t.Error("it has not ended")
	}
}
