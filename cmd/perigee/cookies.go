package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/durable"
)

const (
	// cookieRollover is how long one secret makes cookies. RFC 7873 §7.1 wants
	// it gone after 26 hours; a day leaves two for a node that was switched off.
	cookieRollover = 24 * time.Hour
	// cookieRetry is how soon a rollover is tried again that the disk refused.
	cookieRetry = time.Minute

	cookieFileLen = 8 + 16 + 16 // seconds since the epoch when Make was made, Make, Accept
)

// cookieJar keeps the secrets of DNS cookies in a file, so that a restart does
// not turn every resolver's cookie bad, and rolls them over.
type cookieJar struct {
	path string

	mu      sync.Mutex
	secrets dnsserver.CookieSecrets
	made    time.Time
}

// openCookies reads the jar at path. One that is not there is made, and one
// that is damaged is replaced: the price is one round trip for each resolver.
func openCookies(path string, now time.Time) (*cookieJar, error) {
	j := &cookieJar{path: path}
	b, err := os.ReadFile(path)
	switch {
	case err == nil && len(b) == cookieFileLen:
		j.made = time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
		copy(j.secrets.Make[:], b[8:])
		copy(j.secrets.Accept[:], b[24:])
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if _, err := j.turn(now); err != nil {
		return nil, fmt.Errorf("secrets of dns cookies: %w", err)
	}
	return j, nil
}

// turn rolls the secret over when it is its time, and returns when to look
// again. A new secret is used once it is on disk. A date in the future is that
// of a clock that was wrong.
func (j *cookieJar) turn(now time.Time) (next time.Time, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	due := j.made.Add(cookieRollover)
	if now.Before(due) && !j.made.After(now) {
		return due, nil
	}
	fresh := dnsserver.CookieSecrets{Accept: j.secrets.Make}
	rand.Read(fresh.Make[:]) // never fails: it ends the program instead
	b := binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))
	b = append(b, fresh.Make[:]...)
	b = append(b, fresh.Accept[:]...)
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return now.Add(cookieRetry), err
	}
	if err := durable.WriteFile(j.path, b, 0o600); err != nil {
		return now.Add(cookieRetry), err
	}
	j.secrets, j.made = fresh, now
	return now.Add(cookieRollover), nil
}

// use returns the secrets as they are now.
func (j *cookieJar) use() *dnsserver.CookieSecrets {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.secrets
	return &s
}
