package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"perigee.example/internal/config"
	"perigee.example/internal/txtest"
	"perigee.example/policy"
)

// TestSteer plays the conversations of testdata/steer. Each has a perigee.toml,
// perhaps places (a network, then selectors that it answers to, and at=LAT,LON),
// and questions:
//
//	> POLICY client=PREFIX [resolver=DRAW] [at=DURATION] [ENDPOINT:down|drained|forced-down|forced-up …]
//
// What comes back is what Explain says, after Decide has said the same.
func TestSteer(t *testing.T) {
	txtest.Run(t, "testdata/steer/*.txtar", func(t testing.TB, files map[string][]byte) txtest.Session {
		c, err := config.Parse("perigee.toml", files["perigee.toml"], ".")
		if err != nil {
			t.Fatal(config.Render(err))
		}
		geo, err := readPlaces(string(files["places"]))
		if err != nil {
			t.Fatal(err)
		}
		var roots []string
		for _, p := range c.Policy.Policies {
			roots = append(roots, p.Name)
		}
		set, err := policy.Compile(c.Policy, roots, geo)
		if err != nil {
			t.Fatal(err)
		}
		return &steering{c.Policy, set}
	})
}

type steering struct {
	cfg policy.Config
	set *policy.Set
}

func (s *steering) Do(cmd string) (string, error) {
	words := strings.Fields(cmd)
	root, ok := s.set.Root(words[0])
	if !ok {
		return "", fmt.Errorf("there is no policy %s", words[0])
	}
	q, st := policy.Query{}, s.set.NewState()
	for _, word := range words[1:] {
		if err := s.word(word, &q, st); err != nil {
			return "", err
		}
	}
	var d, x policy.Decision
	s.set.Decide(root, q, st, &d)
	s.set.Explain(root, q, st, &x)
	if !slices.Equal(d.Endpoints, x.Endpoints) || d.TTL != x.TTL || d.Scope != x.Scope || d.Open != x.Open {
		return "", fmt.Errorf("decide says %+v, explain %+v", d, x)
	}
	var b strings.Builder
	for _, step := range x.Why {
		fmt.Fprintf(&b, "%s: %s\n", step.Policy, step.Text)
	}
	return b.String(), nil
}

func (s *steering) word(word string, q *policy.Query, st *policy.State) (err error) {
	if key, value, ok := strings.Cut(word, "="); ok {
		switch key {
		case "client":
			q.Client, err = netip.ParsePrefix(value)
		case "resolver":
			q.Draw, err = strconv.ParseUint(value, 10, 64)
		case "at":
			q.Now, err = time.ParseDuration(value)
		default:
			err = fmt.Errorf("what is %s?", word)
		}
		return err
	}
	name, state, _ := strings.Cut(word, ":")
	i := slices.IndexFunc(s.cfg.Endpoints, func(e policy.Endpoint) bool { return e.Name == name })
	if i < 0 {
		return fmt.Errorf("there is no endpoint %s", name)
	}
	e := &st.Endpoints[i]
	switch state {
	case "up":
		e.Health = policy.Up
	case "down":
		e.Health, e.Why = policy.Down, "probe failed 3 times: connection refused"
	case "drained":
		e.Draining = true
	case "forced-down":
		e.Force = policy.ForceDown
	case "forced-up":
		e.Health, e.Force = policy.Down, policy.ForceUp
	default:
		return fmt.Errorf("what is %s?", word)
	}
	return nil
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
