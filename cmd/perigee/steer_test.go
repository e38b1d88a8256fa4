package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/internal/config"
	"perigee.example/internal/health"
	"perigee.example/internal/txtest"
	"perigee.example/policy"
	"perigee.example/zones"
)

// TestSteer plays testdata/steer. Each file has a perigee.toml, its zones, and
// perhaps places: a network in each line, then selectors that it answers to,
// and at=LAT,LON. Without places the built-in country data say where a client
// is. All is loaded by the code of serve, check and explain. Commands:
//
//	check             the mistakes that the configuration has, with place and cure
//	query QUERY       a reply, of View.Answer (txtest.ParseQuery)
//	same QUERY | …    whether all queries lead to the same endpoints, TTL and scope
//	explain NAME --client IP [--resolver IP] [--at TIME]
//	state EDGE up|down|unknown ["why"]
//	drain EDGE, undrain EDGE, force EDGE up|down|obey
//	shares NAME resolvers=N|blocks=N [over=TIME] EDGE=PERCENT …
//	                  asks for each of N resolvers or ECS blocks, once an epoch
//	moved NAME resolvers=N at=TIME then=TIME
//	                  how many get another answer later
func TestSteer(t *testing.T) {
	glob, err := filepath.Abs("../../testdata/steer/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	txtest.Run(t, glob, func(t testing.TB, files map[string][]byte) txtest.Session {
		s, err := openSteering(t, files)
		return &steering{steered: s, err: err}
	})
}

// steered is a fleet's DNS node without its sockets.
type steered struct {
	w     *world
	view  *dnsserver.View
	zones []*zones.Zone
	from  map[string]*fleetWord
	seed  [16]byte
}

// fleetWord is what probes and operators say of one endpoint.
type fleetWord struct {
	probe   health.Status
	drained bool
	force   string
}

// openSteering writes the files to a folder of their own, which is then the
// current one, and loads them.
func openSteering(t testing.TB, files map[string][]byte) (*steered, error) {
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load("perigee.toml")
	if err != nil {
		return nil, err
	}
	s := &steered{from: map[string]*fleetWord{}, seed: [16]byte{1, 2, 3}}
	var g policy.Geography
	if text, ok := files["places"]; ok {
		g, err = readPlaces(string(text))
	} else {
		g, err = openGeo(cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.zones, _, err = loadZones(cfg); err != nil {
		return nil, err
	}
	if s.w, err = newWorld(cfg, g); err != nil {
		return nil, err
	}
	if s.view, err = s.w.view(s.zones); err != nil {
		return nil, err
	}
	for _, e := range cfg.Policy.Endpoints {
		s.from[e.Name] = &fleetWord{}
	}
	return s, nil
}

// state joins what is known as a DNS node does.
func (s *steered) state() *policy.State {
	st := s.w.set.NewState()
	for i := range st.Endpoints {
		f := s.from[s.w.set.Endpoint(i).Name]
		st.Endpoints[i] = endpointState(f.probe, f.drained, f.force)
	}
	return st
}

func (s *steered) context(from netip.AddrPort, at time.Duration) *dnsserver.Context {
	return &dnsserver.Context{From: from, Transport: dnsserver.UDP, Now: at, Seed: s.seed, State: s.state()}
}

// ask puts one query, as txtest.ParseQuery reads it.
func (s *steered) ask(text string, out *dnsserver.Outcome) ([]byte, error) {
	q, err := txtest.ParseQuery(text)
	if err != nil {
		return nil, err
	}
	c := s.context(q.From, q.At)
	if q.TCP {
		c.Transport = dnsserver.TCP
	}
	return s.view.Answer(nil, q.Wire, c, out), nil
}

// chosen names the endpoints of an outcome.
func (s *steered) chosen(out *dnsserver.Outcome) string {
	if !out.Steered {
		return "not steered"
	}
	var names []string
	for _, i := range out.Decision.Endpoints {
		names = append(names, s.w.set.Endpoint(i).Name)
	}
	return strings.Join(names, " ")
}

// steering is a conversation.
type steering struct {
	*steered
	err error // of loading
}

func (s *steering) Do(cmd string) (string, error) {
	verb, rest, _ := strings.Cut(cmd, " ")
	words := strings.Fields(rest)
	if verb == "check" {
		return s.check(), nil
	}
	if s.err != nil {
		return "", errors.New("it does not load: > check says why")
	}
	switch verb {
	case "query":
		var out dnsserver.Outcome
		reply, err := s.ask(rest, &out)
		if err != nil {
			return "", err
		}
		return txtest.Print(reply)
	case "same":
		return s.same(strings.Split(rest, "|"))
	case "explain":
		return s.explain(words)
	case "state", "drain", "undrain", "force":
		return "", s.change(verb, words)
	case "shares":
		return s.shares(words)
	case "moved":
		return s.moved(words)
	}
	return "", fmt.Errorf("there is no command %s", verb)
}

func (s *steering) check() string {
	if s.err == nil {
		return "good"
	}
	var b strings.Builder
	printError(&b, s.err)
	return b.String()
}

func (s *steering) same(queries []string) (string, error) {
	first := ""
	for i, text := range queries {
		var out dnsserver.Outcome
		if _, err := s.ask(text, &out); err != nil {
			return "", err
		}
		got := fmt.Sprintf("%s, TTL %d", s.chosen(&out), out.TTL)
		if out.HasECS {
			got += fmt.Sprintf(", scope /%d", out.Scope)
		}
		switch {
		case i == 0:
			first = got
		case got != first:
			return fmt.Sprintf("no: first %s; then, for%s, %s", first, strings.TrimRight(text, " "), got), nil
		}
	}
	return "yes: " + first, nil
}

// explain prints what the command of that name prints.
func (s *steering) explain(words []string) (string, error) {
	q, at := explainQuestion{}, time.Duration(0)
	for i := 0; i < len(words); i++ {
		var err error
		switch words[i] {
		case "--client":
			i++
			q.client, err = netip.ParseAddr(words[i])
		case "--resolver":
			i++
			q.resolver, err = netip.ParseAddr(words[i])
		case "--at":
			i++
			at, err = time.ParseDuration(words[i])
		default:
			q.name = words[i]
		}
		if err != nil {
			return "", err
		}
	}
	if !q.resolver.IsValid() {
		q.resolver = q.client
	}
	c := s.context(netip.AddrPortFrom(q.resolver, 53), at)
	e := &explanation{Name: q.name, Client: q.client, Resolver: q.resolver, State: "this conversation's", Draws: "this conversation's"}
	if err := e.ask(s.w, s.view, s.zones, c, q); err != nil {
		return "", err
	}
	e.Site = siteFor(s.w.cfg, q.name, fleetView{})
	var b strings.Builder
	err := e.print(&b)
	return b.String(), err
}

func (s *steering) change(verb string, words []string) error {
	if len(words) == 0 || s.from[words[0]] == nil {
		return fmt.Errorf("no edge or endpoint is called %s", strings.Join(words, " "))
	}
	f, rest := s.from[words[0]], words[1:]
	switch verb {
	case "drain", "undrain":
		f.drained = verb == "drain"
		return nil
	case "force":
		if len(rest) != 1 || !slices.Contains([]string{"up", "down", "obey"}, rest[0]) {
			return errors.New("force EDGE up, down or obey")
		}
		f.force = rest[0]
		return nil
	}
	states := map[string]health.State{"up": health.Up, "down": health.Down, "unknown": health.Unknown}
	if len(rest) == 0 {
		return errors.New("state EDGE up, down or unknown")
	}
	st, ok := states[rest[0]]
	if !ok {
		return fmt.Errorf("%s is no state", rest[0])
	}
	f.probe = health.Status{State: st, Why: strings.Trim(strings.Join(rest[1:], " "), `"`)}
	return nil
}

// crowd is who asks in shares and moved.
type crowd struct {
	name      string
	resolvers int
	blocks    int
	over      time.Duration
	at, then  time.Duration
	want      map[string]float64 // by endpoint, percent
}

func readCrowd(words []string) (*crowd, error) {
	c := &crowd{want: map[string]float64{}}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		var err error
		switch {
		case !ok:
			c.name = w
		case key == "resolvers":
			c.resolvers, err = strconv.Atoi(value)
		case key == "blocks":
			c.blocks, err = strconv.Atoi(value)
		case key == "over":
			c.over, err = time.ParseDuration(value)
		case key == "at":
			c.at, err = time.ParseDuration(value)
		case key == "then":
			c.then, err = time.ParseDuration(value)
		default:
			c.want[key], err = strconv.ParseFloat(value, 64)
		}
		if err != nil {
			return nil, err
		}
	}
	if c.name == "" || (c.resolvers > 0) == (c.blocks > 0) {
		return nil, errors.New("name who asks, by resolvers=N or by blocks=N")
	}
	return c, nil
}

// each calls visit with a context and a query for every resolver, or for
// clients of as many different blocks. visit says whether the client counts.
func (s *steering) each(c *crowd, visit func(c *dnsserver.Context, query []byte) bool) error {
	ctx := s.context(txtest.DefaultFrom, c.at)
	if c.resolvers > 0 {
		q, err := txtest.ParseQuery(c.name + " +noedns")
		if err != nil {
			return err
		}
		for i := range c.resolvers {
			ctx.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(11 + i>>16), byte(i >> 8), byte(i), 53}), 53)
			visit(ctx, q.Wire)
		}
		return nil
	}
	rnd := rand.New(rand.NewPCG(7871, 1))
	for tries, found := 0, 0; found < c.blocks; tries++ {
		if tries > 100*c.blocks {
			return fmt.Errorf("only %d blocks are told apart", found)
		}
		client := netip.AddrFrom4([4]byte{byte(1 + rnd.IntN(223)), byte(rnd.IntN(256)), byte(rnd.IntN(256)), 0})
		query, err := addressQuery(c.name, typeA, client)
		if err != nil {
			return err
		}
		if visit(ctx, query) {
			found++
		}
	}
	return nil
}

// shares asks once an epoch, so that every answer is a draw of its own.
func (s *steering) shares(words []string) (string, error) {
	c, err := readCrowd(words)
	if err != nil {
		return "", err
	}
	var out dnsserver.Outcome
	counts, draws := map[string]int{}, 0
	seen := map[netip.Prefix]bool{}
	err = s.each(c, func(ctx *dnsserver.Context, query []byte) bool {
		ctx.Now = c.at
		s.view.Answer(nil, query, ctx, &out)
		if c.blocks > 0 {
			block := blockOf(query, &out)
			if seen[block] {
				return false
			}
			seen[block] = true
		}
		for ; ctx.Now == c.at || ctx.Now < c.at+c.over; ctx.Now += out.Decision.TTL {
			s.view.Answer(nil, query, ctx, &out)
			counts[s.w.set.Endpoint(out.Decision.Endpoints[0]).Name]++
			draws++
		}
		return true
	})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d draws\n", draws)
	named := 0
	for _, name := range slices.Sorted(maps.Keys(c.want)) {
		p := c.want[name] / 100
		sigma := math.Sqrt(p * (1 - p) * float64(draws))
		off := math.Abs(float64(counts[name]) - p*float64(draws))
		fmt.Fprintf(&b, "%s %v %%: %s\n", name, c.want[name], within(off <= 4*sigma, counts[name]))
		named += counts[name]
	}
	if named != draws {
		fmt.Fprintf(&b, "others: %d\n", draws-named)
	}
	return b.String(), nil
}

func within(ok bool, count int) string {
	if ok {
		return "within 4 sigma"
	}
	return fmt.Sprintf("not within 4 sigma, %d", count)
}

// blockOf is the block that an answer to a query of addressQuery is for.
func blockOf(query []byte, out *dnsserver.Outcome) netip.Prefix {
	octets := [4]byte{}
	copy(octets[:], query[len(query)-clientBits4/8:])
	p, _ := netip.AddrFrom4(octets).Prefix(out.Scope) // cannot fail: at most 24
	return p
}

// moved asks everybody twice.
func (s *steering) moved(words []string) (string, error) {
	c, err := readCrowd(words)
	if err != nil {
		return "", err
	}
	total, moved := 0, 0
	var out dnsserver.Outcome
	err = s.each(c, func(ctx *dnsserver.Context, query []byte) bool {
		ctx.Now = c.at
		s.view.Answer(nil, query, ctx, &out)
		before := s.chosen(&out)
		ctx.Now = c.then
		s.view.Answer(nil, query, ctx, &out)
		if s.chosen(&out) != before {
			moved++
		}
		total++
		return true
	})
	return fmt.Sprintf("%d of %d get another answer", moved, total), err
}

func readPlaces(text string) (*policy.Places, error) {
	var list []policy.Place
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		p, err := netip.ParsePrefix(words[0])
		if err != nil {
			return nil, err
		}
		place := policy.Place{Prefix: p}
		for _, word := range words[1:] {
			if err := readPlace(word, &place.Location); err != nil {
				return nil, err
			}
		}
		list = append(list, place)
	}
	return policy.NewPlaces(list)
}

func readPlace(word string, loc *policy.Location) error {
	if at, ok := strings.CutPrefix(word, "at="); ok {
		loc.Located = true
		_, err := fmt.Sscanf(at, "%g,%g", &loc.Lat, &loc.Lon)
		return err
	}
	sel, err := policy.ParseSelector(word)
	if err != nil {
		return err
	}
	switch {
	case sel.ASN != 0:
		loc.ASN = sel.ASN
	case sel.City != "":
		loc.Country, loc.City, _ = strings.Cut(sel.City, "/")
	case sel.Subdivision != "":
		loc.Country, loc.Subdivision, _ = strings.Cut(sel.Subdivision, "-")
	case sel.Country != "":
		loc.Country = sel.Country
	default:
		loc.Continent = sel.Continent
	}
	return nil
}
