package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.toml")
	if l, err := LoadLogin(path); l != nil || err != nil {
		t.Fatalf("without a file: %v, %v", l, err)
	}
	want := Login{Control: "https://ctl1.example.net:7440", CA: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", Token: "secret"}
	text, err := want.Text()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := LoadLogin(path)
	if err != nil || *got != want {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadLogin(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others may read: %v", err)
	}
	for _, bad := range []string{"control = 1", "control = \"x\"", "more = \"x\"\ncontrol=\"a\"\nca=\"b\"\ntoken=\"c\"", strings.Repeat("#", maxLoginBytes+1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := LoadLogin(path); err == nil {
			t.Errorf("%.20q was accepted: %+v", bad, l)
		}
	}
}
