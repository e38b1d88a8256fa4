package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"perigee.example/internal/config"
)

// stateDir is where a process keeps what must survive it: the flag, else
// $STATE_DIRECTORY (systemd), else perigee.toml, else a default.
func stateDir(flag string, cfg *config.Config) (string, error) {
	switch {
	case flag != "":
		return filepath.Abs(flag)
	case os.Getenv("STATE_DIRECTORY") != "":
		first, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
		return first, nil
	case cfg != nil && cfg.State != "":
		return filepath.Abs(cfg.State)
	case os.Geteuid() == 0:
		return "/var/lib/perigee", nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", withHint(err, "name a folder with --state")
	}
	return filepath.Join(home, ".local", "state", "perigee"), nil
}

// lockFile is the state folder's lock.
const lockFile = "lock"

// lockState makes the folder and takes its lock, so that two processes never
// share one. The lock is the file's descriptor: it ends with the process.
func lockState(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, withHint(err, "name a folder that this user may write with --state DIR, or state = \"…\" in perigee.toml")
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, withHint(err, "name a folder that this user may write with --state DIR")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, withHint(fmt.Errorf("state folder %s is in use by another perigee", dir), "each process needs a state folder of its own: --state DIR")
		}
		return nil, fmt.Errorf("state folder %s: lock: %w", dir, err)
	}
	return f, nil
}
