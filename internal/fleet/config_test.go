package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What the processes of a fleet read.

// files writes the configuration of all.
func (r *rig) files() error {
	if err := os.MkdirAll(filepath.Join(r.base, "zones"), 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{"perigee.toml": strings.Replace(fleetTOML, "$control$", controlTOML[len(r.controls)], 1), "zones/" + zone + ".zone": fleetZone, "unbound.conf": fmt.Sprintf(unboundConf, r.base)} {
		for host, h := range r.w.hosts {
			text = strings.ReplaceAll(text, "$"+host+"$", h.addr.String())
		}
		text = strings.NewReplacer("$zone$", zone, "$base$", r.base).Replace(text)
		if err := os.WriteFile(filepath.Join(r.base, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// controlTOML is the part for one and for three control nodes.
var controlTOML = map[int]string{
	1: `[control]
listen      = "0.0.0.0:7440"
feed_listen = "$ctl1$:7441"
blob_listen = "$ctl1$:7442"
addresses   = ["https://$ctl1$:7440"]
`,
	3: `[control]
cluster = { ctl1 = "$ctl1$:7443", ctl2 = "$ctl2$:7443", ctl3 = "$ctl3$:7443" }
`,
}

const fleetTOML = `version = 1
[dns]
listen     = ["0.0.0.0:53"]
zone_files = ["$base$/zones/*.zone"]
[dns.limit]
exempt = ["10.0.0.0/8"]
$control$[health]
interval = "400ms"
timeout  = "400ms"
rise     = 1
fall     = 2
drain    = "200ms"
[cache]
memory = "64MiB"
disk   = "256MiB"
[limit]
exempt = ["10.0.0.0/8"]
[log]
access = "off"
[edge.fra1]
location  = [50.11, 8.68]
addresses = ["$fra1$"]
listen    = ["0.0.0.0:80"]
peer      = "$fra1$:7444"
[edge.iad1]
location  = [38.95, -77.45]
addresses = ["$iad1$"]
listen    = ["0.0.0.0:80"]
peer      = "$iad1$:7444"
[edge.sin1]
location  = [1.35, 103.82]
addresses = ["$sin1$"]
listen    = ["0.0.0.0:80"]
peer      = "$sin1$:7444"
[policy.eu]
by    = "failover"
order = ["fra1", "iad1", "sin1"]
ttl   = "1s"
[policy.us]
by    = "failover"
order = ["iad1", "fra1", "sin1"]
ttl   = "1s"
[policy.ap]
by    = "failover"
order = ["sin1", "iad1", "fra1"]
ttl   = "1s"
[policy.near]
by  = "geo"
ttl = "1s"
[policy.near.map]
"10.2.0.0/16" = "us"
"10.3.0.0/16" = "ap"
default       = "eu"
[zone."$zone$".steer]
www = "near"
[site.www]
hosts = ["www.$zone$"]
push  = true
keep  = 8
[site.shop]
hosts   = ["shop.$zone$"]
origins = ["http://$origin$:8080"]
[site.news]
hosts   = ["news.$zone$"]
origins = ["http://$origin$:8080"]
shield  = ["iad1"]
`

const fleetZone = `$TTL 300
@    IN SOA ns1 hostmaster 1 7200 900 1209600 1
     IN NS  ns1
     IN NS  ns2
ns1  IN A   $dns1$
ns2  IN A   $dns2$
www  1 IN A $fra1$
`

const unboundConf = `server:
  interface: $resolver$
  do-ip6: no
  access-control: 10.0.0.0/8 allow
  username: ""
  chroot: ""
  directory: %q
  pidfile: ""
  use-syslog: no
  logfile: ""
  num-threads: 1
  module-config: "subnetcache iterator"
  send-client-subnet: $dns1$
  send-client-subnet: $dns2$
  client-subnet-always-forward: yes
  max-client-subnet-ipv4: 24
  infra-host-ttl: 1
  infra-keep-probing: yes
  cache-max-negative-ttl: 1
stub-zone:
  name: $zone$
  stub-addr: $dns1$
  stub-addr: $dns2$
`
