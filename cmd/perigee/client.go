package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"perigee.example/internal/config"
	"perigee.example/internal/control"
)

// connect finds the control node and the credential for it, in this order:
// --control or $PERIGEE_CONTROL; $PERIGEE_TOKEN_FILE with the address in
// perigee.toml; what `perigee login` kept; the admin socket of a control node
// on this machine.
func connect(o *options) (*control.Client, error) {
	if socket, ok := strings.CutPrefix(o.control, "unix:"); ok {
		return control.NewClient(control.ClientConfig{Socket: socket})
	}
	address, tokenFile := o.control, os.Getenv("PERIGEE_TOKEN_FILE")
	if address == "" && tokenFile != "" {
		cfg, err := config.Load(o.config)
		if err != nil {
			return nil, err
		}
		address = controlAddresses(cfg)
	}
	if tokenFile != "" {
		return control.NewClient(control.ClientConfig{Address: address, TokenFile: tokenFile, CAFile: caBeside(tokenFile)})
	}
	path, err := config.LoginPath()
	if err == nil {
		login, err := config.LoadLogin(path)
		if err != nil {
			return nil, err
		}
		if login != nil && (address == "" || address == login.Control) {
			return control.NewClient(control.ClientConfig{Address: login.Control, Token: login.Token, CA: []byte(login.CA)})
		}
	}
	if address != "" {
		return nil, withHint(fmt.Errorf("no token for %s", address), "set PERIGEE_TOKEN_FILE, or run: perigee login --control "+address+" --token-file FILE")
	}
	return connectLocal(o)
}

// controlAddresses are those of every control node, as control.ClientConfig has them.
func controlAddresses(cfg *config.Config) string {
	var list []string
	for _, u := range cfg.Control.Addresses {
		list = append(list, u.String())
	}
	return strings.Join(list, ",")
}

// connectLocal uses the admin socket in this machine's state folder.
func connectLocal(o *options) (*control.Client, error) {
	cfg, err := config.Load(o.config)
	if err != nil {
		return nil, err
	}
	dir, err := stateDir("", cfg)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, adminSocket)
	if _, err := os.Stat(socket); err != nil {
		return nil, withHint(fmt.Errorf("no control node is known: no login, and no process with the state folder %s", dir),
			"is it running? on the control node's machine, name its socket: --control unix:DIR/admin.sock; elsewhere: perigee login")
	}
	return control.NewClient(control.ClientConfig{Socket: socket})
}

// caBeside is the fleet's CA in the folder of the token file, where the control
// node writes both. Without it the system's roots are asked.
func caBeside(tokenFile string) string {
	path := filepath.Join(filepath.Dir(tokenFile), "ca.pem")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// ask runs one call of the API and gives its error the API's hint.
func ask[T any](o *options, call func(*control.Client) (T, error)) (T, error) {
	var none T
	c, err := connect(o)
	if err != nil {
		return none, err
	}
	v, err := call(c)
	var e *control.Error
	if errors.As(err, &e) && e.Hint != "" {
		// The hint has a line of its own, so it is not said in the error's too.
		err = withHint(&saidError{strings.Replace(err.Error(), " ("+e.Hint+")", "", 1), err}, e.Hint)
	}
	return v, err
}

// saidError is an error in other words.
type saidError struct {
	text string
	err  error
}

func (e *saidError) Error() string { return e.text }
func (e *saidError) Unwrap() error { return e.err }
