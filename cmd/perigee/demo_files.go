package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// values is what the templates see.
func (d *demo) values() map[string]any {
	return map[string]any{
		"Dir": d.dir, "Zone": demoZone, "DNSHost": demoDNSHost, "TTL": demoTTL, "Edges": demoEdges,
		"DNS": d.ports.dns, "HTTP": d.ports.http, "HTTPS": d.ports.https, "Origin": d.ports.origin,
		"Admin": d.ports.admin, "Feed": d.ports.feed, "Blob": d.ports.blob,
	}
}

var demoTOML = template.Must(template.New("perigee.toml").Parse(`# The demo's fleet: one file, the same for every node.
version = 1

[dns]
listen     = ["{{.DNSHost}}:{{.DNS}}"]
zone_files = ["zones/*.zone"]

[control]
listen      = "127.0.0.1:{{.Admin}}"
feed_listen = "127.0.0.1:{{.Feed}}"
blob_listen = "127.0.0.1:{{.Blob}}"

[health]                # quick, so that a person can watch it
interval = "500ms"
timeout  = "400ms"
rise     = 2
fall     = 3

[cache]
memory = "64MiB"
{{range .Edges}}
[edge.{{.Name}}]              # {{.City}}
location   = [{{.Lat}}, {{.Lon}}]
addresses  = ["{{.Addr}}"]
listen     = ["{{.Addr}}:{{$.HTTP}}"]
listen_tls = ["{{.Addr}}:{{$.HTTPS}}"]
{{end}}
[policy.nearest]
by    = "latency"
among = ["fra1", "iad1", "sin1"]
ttl   = "{{.TTL}}s"

[policy.by-region]
by  = "geo"
ttl = "{{.TTL}}s"
[policy.by-region.map]
SG            = "asia-first"
north-america = "canary"
default       = "nearest"

[policy.asia-first]
by    = "failover"
order = ["sin1", "nearest"]
ttl   = "{{.TTL}}s"

[policy.canary]
by      = "weighted"
weights = { iad1 = 100, fra1 = 0 }
ttl     = "{{.TTL}}s"

[policy.some]
by      = "multivalue"
among   = ["fra1", "iad1", "sin1"]
answers = 2

[zone."{{.Zone}}".steer]
www  = "by-region"
shop = "nearest"
any  = "some"

[site.www]
hosts = ["www.{{.Zone}}"]
push  = true
keep  = 5
[site.www.tls]
cert = "tls/www.{{.Zone}}.crt"
key  = "tls/www.{{.Zone}}.key"

[site.shop]
hosts   = ["shop.{{.Zone}}"]
origins = ["http://127.0.0.1:{{.Origin}}"]
[site.shop.tls]
cert = "tls/shop.{{.Zone}}.crt"
key  = "tls/shop.{{.Zone}}.key"
`))

// demoZoneFile is an ordinary master file: the steered names hold a fallback.
var demoZoneFile = template.Must(template.New("zone").Parse(`$ORIGIN {{.Zone}}.
$TTL 300
@     IN SOA ns1 hostmaster 1 7200 900 1209600 30
      IN NS  ns1
ns1   IN A   127.0.0.1
; steered by perigee.toml; another server would answer as it stands here
www   IN A   127.0.1.1
shop  IN A   127.0.1.1
any   IN A   127.0.1.1
; not steered
txt   IN TXT "served by perigee"
*.dyn IN A   127.0.1.2
`))

var demoEnv = template.Must(template.New("env").Parse(`export PATH={{.Dir}}/bin:$PATH
export PERIGEE_CONFIG={{.Dir}}/perigee.toml
export PERIGEE_TOKEN_FILE={{.Dir}}/state/ctl/control/admin.token
`))

// demoValidity is how long the demo's certificates are good: longer than any
// demo runs.
const demoValidity = 30 * 24 * time.Hour

// writeDemoCertificates makes the demo's own CA (ca.pem) and a certificate for
// each host (HOST.crt, HOST.key).
func writeDemoCertificates(dir string, hosts ...string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Perigee demo CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(demoValidity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, "ca.pem"), "CERTIFICATE", caDER, 0o644); err != nil {
		return err
	}
	for i, host := range hosts {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i) + 2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
		if err != nil {
			return err
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := writePEM(filepath.Join(dir, host+".crt"), "CERTIFICATE", der, 0o644); err != nil {
			return err
		}
		if err := writePEM(filepath.Join(dir, host+".key"), "PRIVATE KEY", keyDER, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func writePEM(path, kind string, der []byte, perm os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), perm)
}
