package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/dnsserver"
	"perigee.example/internal/config"
	"perigee.example/policy"
	"perigee.example/zones"
)

// explanation follows one client from the DNS question to the origin.
type explanation struct {
	Name     string        `json:"name"`
	Client   netip.Addr    `json:"client"`
	Resolver netip.Addr    `json:"resolver"`
	Zone     string        `json:"zone,omitempty"`
	Serial   uint32        `json:"serial,omitempty"`
	Rcode    string        `json:"rcode"`
	Policy   string        `json:"policy,omitempty"` // empty: not steered
	Steps    []policy.Step `json:"steps,omitempty"`
	Answers  []explained   `json:"answers"`
	Apart    *apart        `json:"apart,omitempty"`
	TTL      uint32        `json:"ttl"`             // seconds
	Scope    string        `json:"scope,omitempty"` // the block in which the answer holds
	Open     bool          `json:"open,omitempty"`
	State    string        `json:"state"` // where the fleet's state is from
	Draws    string        `json:"draws"` // whose draws these are
	Site     *siteWay      `json:"site,omitempty"`
}

// explained is one endpoint of an answer.
type explained struct {
	Endpoint  string   `json:"endpoint"`
	Addresses []string `json:"addresses,omitempty"`
	Target    string   `json:"target,omitempty"`
	Health    string   `json:"health"`
	Why       string   `json:"why,omitempty"`
}

// apart is the AAAA of a name whose endpoints differ in families, when it has
// others than A.
type apart struct {
	Type    string        `json:"type"`
	Steps   []policy.Step `json:"steps"`
	Answers []explained   `json:"answers"`
}

// siteWay is what an edge does with a request for the name.
type siteWay struct {
	Name     string   `json:"name"`
	Push     bool     `json:"push"`
	Release  string   `json:"release,omitempty"`
	Origins  []string `json:"origins,omitempty"`
	Balance  string   `json:"balance,omitempty"`
	CacheKey string   `json:"cache_key,omitempty"`
}

func newExplain(o *options) *cobra.Command {
	var client, resolver, state string
	var offline bool
	c := &cobra.Command{
		Use:   "explain NAME --client IP",
		Short: "follow one client from the DNS question to the origin, and say why",
		Long: `Answers NAME for a client by the code of the DNS node, and shows each step: the
client's place, every rule, every endpoint kept or dropped, TTL and ECS scope, and
what the edge then does. The fleet's state comes from the control node; with
--offline every endpoint counts as up.`,
		Example: "  perigee explain www.example.com --client 193.99.144.80\n  perigee explain www.example.com --client 2001:db8::1 --json",
		Args:    argsNamed(1, "the name"),
		RunE: func(c *cobra.Command, args []string) error {
			q := explainQuestion{name: args[0], state: state, offline: offline}
			var err error
			if q.client, err = netip.ParseAddr(client); err != nil {
				return usagef("--client wants an IP address, not %q", client)
			}
			q.resolver = q.client
			if resolver != "" {
				if q.resolver, err = netip.ParseAddr(resolver); err != nil {
					return usagef("--resolver wants an IP address, not %q", resolver)
				}
			}
			e, err := explain(c.Context(), o, q)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, e)
			}
			return e.print(c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&client, "client", "", "the client's `address` (the ECS of its resolver)")
	f.StringVar(&resolver, "resolver", "", "its resolver's `address` (default: the client's)")
	f.StringVar(&state, "state", "", "the state `folder` of a DNS node on this machine, for its draws")
	f.BoolVar(&offline, "offline", false, "do not ask the control node: every endpoint counts as up")
	return c
}

// explainQuestion is what to explain.
type explainQuestion struct {
	name             string
	client, resolver netip.Addr
	state            string
	offline          bool
}

func explain(ctx context.Context, o *options, q explainQuestion) (*explanation, error) {
	cfg, err := config.Load(o.config)
	if err != nil {
		return nil, err
	}
	w, v, zs, err := offlineWorld(cfg)
	if err != nil {
		return nil, err
	}
	fleet := fleetView{state: w.set.NewState(), from: "every endpoint counts as up (--offline)"}
	if !q.offline {
		fleet = askFleet(ctx, o, cfg, w.set)
	}
	e := &explanation{Name: q.name, Client: q.client, Resolver: q.resolver, State: fleet.from, Draws: "examples: the DNS node's secret is not at hand (--state DIR names its folder)"}
	c := &dnsserver.Context{From: netip.AddrPortFrom(q.resolver, 53), Transport: dnsserver.UDP, Now: time.Duration(time.Now().UnixNano()), State: fleet.state}
	if dir, err := stateDir(q.state, cfg); err == nil {
		if seed, err := os.ReadFile(filepath.Join(dir, "dns", "seed")); err == nil && len(seed) == len(c.Seed) {
			copy(c.Seed[:], seed)
			e.Draws = "those of the DNS node with the state folder " + dir
		}
	}
	if err := e.ask(w, v, zs, c, q); err != nil {
		return nil, err
	}
	e.Site = siteFor(cfg, q.name, fleet)
	return e, nil
}

// ask asks for A and AAAA as the client's resolver would. Both are one decision
// unless the name's endpoints differ in families.
func (e *explanation) ask(w *world, v *dnsserver.View, zs []*zones.Zone, c *dnsserver.Context, q explainQuestion) error {
	var out, six dnsserver.Outcome
	for _, a := range []struct {
		qtype uint16
		out   *dnsserver.Outcome
	}{{typeA, &out}, {typeAAAA, &six}} {
		query, err := addressQuery(q.name, a.qtype, q.client)
		if err != nil {
			return &usageError{err}
		}
		v.Answer(nil, query, c, a.out)
	}
	if six.Steered && !out.Steered {
		out = six // a name with AAAA alone
	}
	e.fill(w, zs, c, q, &out)
	if six.Steered && !slices.Equal(six.Decision.Endpoints, out.Decision.Endpoints) {
		d := w.explain(c, q, &six)
		e.Apart = &apart{Type: "AAAA", Steps: d.Why, Answers: w.explained(c, &d)}
	}
	return nil
}

// offlineWorld loads everything that an answer needs, from disk.
func offlineWorld(cfg *config.Config) (*world, *dnsserver.View, []*zones.Zone, error) {
	zs, _, err := loadZones(cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	g, err := openGeo(cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	w, err := newWorld(cfg, g)
	if err != nil {
		return nil, nil, nil, err
	}
	v, err := w.view(zs)
	return w, v, zs, err
}

// fill takes over what Answer decided, and asks Explain why.
func (e *explanation) fill(w *world, zs []*zones.Zone, c *dnsserver.Context, q explainQuestion, out *dnsserver.Outcome) {
	e.Zone, e.Rcode, e.TTL = out.Zone, rcodeText(out.Rcode), out.TTL
	for _, z := range zs {
		if z.Origin() == out.Zone {
			e.Serial = z.Serial()
		}
	}
	if !out.Steered {
		return
	}
	d := w.explain(c, q, out)
	e.Policy = w.rootName(out.Root)
	e.Steps, e.Open = d.Why, d.Open
	if p, err := q.client.Prefix(d.Scope); err == nil {
		e.Scope = p.String()
	}
	e.Answers = w.explained(c, &d)
}

// explain is the decision behind an outcome, with its reasons.
func (w *world) explain(c *dnsserver.Context, q explainQuestion, out *dnsserver.Outcome) policy.Decision {
	client := netip.PrefixFrom(q.client, q.client.BitLen())
	var d policy.Decision
	w.set.Explain(out.Root, policy.Query{Client: clientPrefix(client), Draw: policy.ResolverDraw(c.Seed, q.resolver), Now: c.Now, Only: out.Only}, c.State, &d)
	return d
}

// explained is what DNS hands out for a decision.
func (w *world) explained(c *dnsserver.Context, d *policy.Decision) []explained {
	endpoints := w.endpoints()
	var list []explained
	for _, i := range d.Endpoints {
		x := explained{Endpoint: w.set.Endpoint(i).Name, Target: endpoints[i].Target, Health: healthText(c.State.Endpoints[i]), Why: c.State.Endpoints[i].Why}
		for _, a := range endpoints[i].Addresses {
			x.Addresses = append(x.Addresses, a.String())
		}
		list = append(list, x)
	}
	return list
}

// rootName is the policy or endpoint that a handle stands for.
func (w *world) rootName(root policy.Name) string {
	for _, name := range w.cfg.Roots() {
		if n, ok := w.set.Root(name); ok && n == root {
			return name
		}
	}
	return ""
}

// The most that an ECS option of a public resolver says of a client (RFC 7871
// §11.1); a block of the Atlas is never smaller.
const (
	clientBits4 = 24
	clientBits6 = 56
)

func clientPrefix(p netip.Prefix) netip.Prefix {
	bits := clientBits4
	if p.Addr().Is6() {
		bits = clientBits6
	}
	p, _ = p.Addr().Prefix(min(bits, p.Bits()))
	return p
}

const (
	typeA    = 1
	typeAAAA = 28
)

// addressQuery is a query for addresses of a name, with the client's network
// as ECS.
func addressQuery(name string, qtype uint16, client netip.Addr) ([]byte, error) {
	wire, err := zones.ParseName(name)
	if err != nil {
		return nil, err
	}
	const (
		typeOPT, classIN            = 41, 1
		optionECS, family4, family6 = 8, 1, 2 // RFC 7871 §6
	)
	family := uint16(family4)
	if client.Is6() {
		family = family6
	}
	p := clientPrefix(netip.PrefixFrom(client, client.BitLen()))
	addr := p.Addr().AsSlice()[:(p.Bits()+7)/8]
	q := binary.BigEndian.AppendUint16(nil, 1)                // ID
	q = append(q, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1)               // one question, one additional record
	q = append(q, wire...)                                    //
	q = binary.BigEndian.AppendUint16(q, qtype)               //
	q = binary.BigEndian.AppendUint16(q, classIN)             //
	q = append(q, 0)                                          // OPT: the root
	q = binary.BigEndian.AppendUint16(q, typeOPT)             //
	q = binary.BigEndian.AppendUint16(q, 1232)                // payload
	q = append(q, 0, 0, 0, 0)                                 // extended RCODE, version, flags
	q = binary.BigEndian.AppendUint16(q, uint16(8+len(addr))) // RDLENGTH
	q = binary.BigEndian.AppendUint16(q, optionECS)
	q = binary.BigEndian.AppendUint16(q, uint16(4+len(addr)))
	q = binary.BigEndian.AppendUint16(q, family)
	q = append(q, byte(p.Bits()), 0)
	return append(q, addr...), nil
}

// rcodeText names the response codes that an answer can have.
func rcodeText(code uint16) string {
	names := map[uint16]string{0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN"}
	if n, ok := names[code]; ok {
		return n
	}
	return fmt.Sprintf("RCODE%d", code)
}

func healthText(s policy.EndpointState) string {
	text := [...]string{policy.Unknown: "unknown", policy.Up: "up", policy.Down: "down"}[s.Health]
	switch s.Force {
	case policy.ForceUp:
		text = "forced up"
	case policy.ForceDown:
		text = "forced down"
	}
	if s.Draining {
		text += ", draining"
	}
	return text
}

// print shows an explanation to a person, in the order in which things happen.
func (e *explanation) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("question", "%s for client %s through resolver %s", e.Name, e.Client, e.Resolver)
	switch {
	case e.Zone == "":
		line("zone", "none of ours: %s", e.Rcode)
	case e.Policy == "":
		line("zone", "%s serial %d: %s, not steered", e.Zone, e.Serial, e.Rcode)
	default:
		line("zone", "%s serial %d: steered by %s", e.Zone, e.Serial, e.Policy)
		line("state", "%s", e.State)
		line("draws", "%s", e.Draws)
	}
	steps := func(list []policy.Step, answers []explained) {
		for i, s := range list {
			line(fmt.Sprintf("  %d. %s", i+1, s.Policy), "%s", s.Text)
		}
		for _, a := range answers {
			where := strings.Join(append(a.Addresses, a.Target), " ")
			line("answer", "%s %s (%s)", a.Endpoint, strings.TrimSpace(where), a.Health)
		}
	}
	steps(e.Steps, e.Answers)
	if e.Policy != "" {
		open := ""
		if e.Open {
			open = "; every choice was down, so all count as up"
		}
		line("", "TTL %d s, holds for every client in %s%s", e.TTL, e.Scope, open)
	}
	if e.Apart != nil {
		line(e.Apart.Type, "is chosen apart: what answers the other type has no such address")
		steps(e.Apart.Steps, e.Apart.Answers)
	}
	if s := e.Site; s != nil {
		line("edge", "site %s", s.Name)
		if s.Push {
			line("", "active release: %s; what is in it is served from it", s.Release)
		}
		if len(s.Origins) > 0 {
			line("", "any other: fresh in the cache, else fetched from %s (%s)", strings.Join(s.Origins, ", "), s.Balance)
		} else if s.Push {
			line("", "any other: 404, there is no origin")
		}
	} else if e.Policy != "" {
		line("edge", "421: no site has the host %s", e.Name)
	}
	return t.Flush()
}
