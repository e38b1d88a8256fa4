package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"perigee.example/dnsserver"
)

// TestCookieJar: a secret outlives restarts, makes way after a day, and is good
// for one more.
func TestCookieJar(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dns", "cookies")
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	open := func(at time.Time) dnsserver.CookieSecrets {
		t.Helper()
		j, err := openCookies(path, at)
		if err != nil {
			t.Fatal(err)
		}
		return *j.use()
	}
	first := open(start)
	if first.Make == ([16]byte{}) || first.Accept != ([16]byte{}) {
		t.Errorf("at first: %+v", first)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", st, err)
	}
	if again := open(start.Add(24*time.Hour - time.Second)); again != first {
		t.Error("a restart within the day changed the secret")
	}
	second := open(start.Add(24 * time.Hour))
	if second.Make == first.Make || second.Accept != first.Make {
		t.Error("after a day the old secret is not the second, or makes cookies still")
	}
	if third := open(start.Add(48 * time.Hour)); third.Accept != second.Make || third.Make == second.Make {
		t.Error("after two days the first secret is still good")
	}
	// Damage, a clock that was ahead, and a disk that refuses.
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := open(start)
	if damaged.Make == ([16]byte{}) || damaged.Accept != ([16]byte{}) {
		t.Errorf("after damage: %+v", damaged)
	}
	ahead := open(start.Add(100 * time.Hour))
	if back := open(start); back.Make == ahead.Make || back.Accept != ahead.Make {
		t.Error("a secret from the future was kept")
	}
	j, err := openCookies(path, start)
	if err != nil {
		t.Fatal(err)
	}
	was := *j.use()
	j.path = filepath.Join(path, "below-a-file")
	next, err := j.turn(start.Add(25 * time.Hour))
	if err == nil || *j.use() != was || next != start.Add(25*time.Hour+time.Minute) {
		t.Errorf("a disk that refuses: %v, next %v", err, next)
	}
}
