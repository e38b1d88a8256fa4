package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"perigee.example/edge"
	"perigee.example/internal/bucket"
	"perigee.example/internal/config"
)

// checkResult is what check found, for --json.
type checkResult struct {
	Config   string   `json:"config"`
	Zones    int      `json:"zones"`
	Names    int      `json:"names"`
	Steered  int      `json:"steered"`
	Edges    int      `json:"edges"`
	Sites    int      `json:"sites"`
	Warnings []string `json:"warnings,omitempty"`
}

func newCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "check perigee.toml and everything it names, as serve would load it",
		Long: `Checks perigee.toml, its zone files, geo databases, policies, steered names and
certificates, by the code that serve loads them with. Every mistake is shown.`,
		Example: "  perigee check\n  perigee check -c /etc/perigee/perigee.toml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := check(o.config)
			if r != nil {
				for _, w := range r.Warnings {
					say(c, "warning: %s", w)
				}
			}
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, r)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is good: %s with %s, %s steered, %s, %s\n", r.Config,
				plural(r.Zones, "zone"), plural(r.Names, "name"), plural(r.Steered, "name"), plural(r.Edges, "edge"), plural(r.Sites, "site"))
			return nil
		},
	}
}

// check loads everything that cfg names and returns every mistake joined.
func check(path string) (*checkResult, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	r := &checkResult{Config: path, Edges: len(cfg.Edges), Sites: len(cfg.Sites)}
	for _, z := range cfg.Zones {
		r.Steered += len(z.Steer)
	}
	zs, warnings, zoneErr := loadZones(cfg)
	for _, f := range warnings {
		r.Warnings = append(r.Warnings, findingError(f).Error())
	}
	for _, z := range zs {
		r.Zones++
		r.Names += z.Len()
	}
	r.Warnings = append(r.Warnings, checkPreviews(cfg, zs)...)
	errs := []error{zoneErr, checkCertificates(cfg), checkBucket(cfg, r)}
	g, err := openGeo(cfg)
	if err != nil {
		return r, errors.Join(append(errs, err)...)
	}
	w, err := newWorld(cfg, g)
	if err != nil {
		return r, errors.Join(append(errs, err)...)
	}
	r.Warnings = append(r.Warnings, w.coarse()...)
	if zoneErr == nil { // else a steered name would seem to be missing
		_, err = w.view(zs)
		errs = append(errs, err)
	}
	return r, errors.Join(errs...)
}

// checkBucket reads the bucket's credentials. They are only on control nodes, so it is a
// warning that they are not here.
func checkBucket(cfg *config.Config, r *checkResult) error {
	path := cfg.Control.Bucket.Credentials
	if path == "" {
		return nil
	}
	err := bucket.CheckCredentials(path)
	if errors.Is(err, fs.ErrNotExist) {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s is not on this machine: a control node needs it for the bucket", path))
		return nil
	}
	if err != nil {
		return cfg.ErrorAt("control.bucket.credentials", err.Error(), "only control nodes need the file; it looks like ~/.aws/credentials")
	}
	return nil
}

// checkCertificates loads each site's pair, and looks whether it covers the site.
func checkCertificates(cfg *config.Config) error {
	var errs []error
	for _, s := range cfg.Sites {
		if s.TLS.Cert == "" {
			continue
		}
		pair := edge.CertPair{Site: s.Name, Hosts: certHosts(&s), CertFile: s.TLS.Cert, KeyFile: s.TLS.Key}
		if _, err := edge.OpenCerts([]edge.CertPair{pair}, nil); err != nil {
			hint := "name a PEM certificate chain and its key, for every host of the site"
			if s.Previews {
				hint += " and for *.HOST below it, where its previews are"
			}
			errs = append(errs, cfg.ErrorAt("site."+s.Name+".tls.cert", err.Error(), hint))
		}
	}
	return errors.Join(errs...)
}
