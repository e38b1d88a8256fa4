package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Login is what `perigee login` keeps for commands: where the control node is,
// how to know it, and the token. One file a user, 0600.
type Login struct {
	Control string `toml:"control"` // https://HOST:PORT
	CA      string `toml:"ca"`      // PEM of the fleet's CA
	Token   string `toml:"token"`
}

// maxLoginBytes bounds the file: a certificate is about 1 KiB.
const maxLoginBytes = 64 << 10

// LoginPath is where the file is: credentials.toml in the user's folder for
// configuration.
func LoginPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "perigee", "credentials.toml"), nil
}

// LoadLogin reads the file at path; nil without an error when there is none. A
// file that others may read is refused: the token is in it.
func LoadLogin(path string) (*Login, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read it (mode %04o), and it holds a token: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	if info.Size() > maxLoginBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes: not written by perigee login", path, maxLoginBytes)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var l Login
	d := toml.NewDecoder(strings.NewReader(string(text))).DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("%s: %w: run perigee login again", path, err)
	}
	if l.Control == "" || l.Token == "" || l.CA == "" {
		return nil, fmt.Errorf("%s: control, ca and token must be there: run perigee login again", path)
	}
	return &l, nil
}

// Text is the file's content.
func (l *Login) Text() ([]byte, error) { return toml.Marshal(l) }
