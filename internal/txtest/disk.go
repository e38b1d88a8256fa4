package txtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Disk is a file system that can lose power: XFS on a loop device. (ext4 hides that a
// sync before a rename is missing.) It needs root, mkfs.xfs, xfs_io and loop devices.
type Disk struct{ image, at string }

const (
	// loopTries is how often a mount is tried: other tests take loop devices, too, and
	// one may be gone between look and use. loopPause is between two tries.
	loopTries = 5
	loopPause = 50 * time.Millisecond
)

// NewDisk makes a file system of so many bytes in the file image, which is sparse, and
// mounts it at a folder. The caller has a mount namespace of its own (OwnMounts), with
// which the mount ends; the loop device goes with the mount. mkfs.xfs wants 300 MiB.
func NewDisk(image, at string, size int64) (*Disk, error) {
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close(), Tool("mkfs.xfs", "-q", image), os.MkdirAll(at, 0o700)); err != nil {
		return nil, err
	}
	d := &Disk{image, at}
	return d, d.Mount()
}

// Mount mounts the file system, as it is on the device.
func (d *Disk) Mount() (err error) {
	for range loopTries {
		if err = Tool("mount", "-o", "loop", d.image, d.at); err == nil {
			return nil
		}
		time.Sleep(loopPause)
	}
	return err
}

// Unmount ends that.
func (d *Disk) Unmount() error { return Tool("umount", d.at) }

// LosePower stops the file system as it is on the device: what was not synced is gone
// when it is mounted again.
func (d *Disk) LosePower() error { return Tool("xfs_io", "-x", "-c", "shutdown", d.at) }

// Proof has the rig prove itself: of two files written alike the one that was synced is
// there after a loss of power.
func (d *Disk) Proof() error {
	for _, name := range []string{"synced", "lost"} {
		f, err := os.Create(filepath.Join(d.at, name))
		if err != nil {
			return err
		}
		if _, err := f.WriteString(name); err != nil {
			return err
		}
		if name == "synced" {
			err = errors.Join(f.Sync(), syncDir(d.at))
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if err := errors.Join(d.LosePower(), d.Unmount(), d.Mount()); err != nil {
		return err
	}
	if b, err := os.ReadFile(filepath.Join(d.at, "synced")); err != nil || string(b) != "synced" {
		return fmt.Errorf("what was synced is gone: %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(d.at, "lost")); err == nil && len(b) > 0 {
		return fmt.Errorf("what was not synced is there: this is no loss of power")
	}
	return errors.Join(os.Remove(filepath.Join(d.at, "synced")), os.RemoveAll(filepath.Join(d.at, "lost")))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// inMounts is set in a test process with a mount namespace of its own.
const inMounts = "PERIGEE_TEST_MOUNTS"

// OwnMounts runs the calling test once more in a mount namespace of its own, and reports
// whether this is that run. Where that is not allowed the test is skipped; under CI=true
// it fails. A skip in there is one out here.
func OwnMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inMounts) != "" {
		return true
	}
	Need(t, "unshare", "mkfs.xfs", "xfs_io", "mount")
	c := exec.Command("unshare", "-m", "--propagation", "private", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3h")
	c.Env = append(os.Environ(), inMounts+"=1")
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	switch {
	case bytes.Contains(out, []byte("--- SKIP")) || bytes.Contains(out, []byte("unshare failed")):
		if os.Getenv("CI") == "true" {
			t.Fatal("no mounts here: that needs root, and for a loss of power loop devices")
		}
		t.Skip("no mounts here: that needs root, and for a loss of power loop devices")
	case err != nil:
		t.Fatal(err)
	case !bytes.Contains(out, []byte("--- PASS: "+t.Name())):
		t.Fatal("the test in its own namespace did not run")
	}
	return false
}

// Tool runs a program; its error has what it printed.
func Tool(program string, args ...string) error {
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return nil
}
