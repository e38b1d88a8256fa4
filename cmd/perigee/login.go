package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/internal/durable"
)

func newLogin(o *options) *cobra.Command {
	var tokenFile, caFile string
	c := &cobra.Command{
		Use:   "login --control URL --token-file FILE",
		Short: "keep the address, CA and token of a control node for later commands",
		Long: `Tries the token at the control node and keeps it, with the address and the fleet's
CA, in credentials.toml in your folder for configuration, mode 0600. The control
node writes the token (admin.token) and the CA (ca.pem) into the folder control of
its state folder; copy both.`,
		Example: "  perigee login --control https://ctl1.example.net:7440 --token-file admin.token --ca ca.pem",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.control == "" || tokenFile == "" {
				return usagef("login needs --control and --token-file")
			}
			if caFile == "" {
				caFile = caBeside(tokenFile)
			}
			return login(c, o.control, tokenFile, caFile)
		},
	}
	c.Flags().StringVar(&tokenFile, "token-file", os.Getenv("PERIGEE_TOKEN_FILE"), "the `file` that holds the token; also $PERIGEE_TOKEN_FILE")
	c.Flags().StringVar(&caFile, "ca", "", "the fleet's CA (default: ca.pem beside the token)")
	return c
}

func login(c *cobra.Command, address, tokenFile, caFile string) error {
	if caFile == "" {
		return withHint(fmt.Errorf("no CA: there is no ca.pem beside %s", tokenFile), "name it with --ca")
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	l := config.Login{Control: address, CA: string(ca), Token: strings.TrimSpace(string(token))}
	client, err := control.NewClient(control.ClientConfig{Address: l.Control, Token: l.Token, CA: ca})
	if err != nil {
		return err
	}
	if _, err := client.Token(c.Context()); err != nil {
		return err
	}
	text, err := l.Text()
	if err != nil {
		return err
	}
	path, err := config.LoginPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := durable.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	fmt.Fprintln(c.OutOrStdout(), path)
	return nil
}
