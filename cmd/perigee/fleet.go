package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/internal/health"
	"perigee.example/policy"
)

// fleetView is the fleet's state as explain knows it.
type fleetView struct {
	state  *policy.State
	from   string // where it is from, in words
	status *control.Status
}

// askFleet takes the State from the control node's status: drains and forces
// from the log, health from the newest report of a DNS node. Without a control
// node every endpoint counts as up, and from says so.
func askFleet(ctx context.Context, o *options, cfg *config.Config, set *policy.Set) fleetView {
	v := fleetView{state: set.NewState()}
	st, err := ask(o, func(c *control.Client) (control.Status, error) { return c.Status(ctx) })
	if err != nil {
		v.from = fmt.Sprintf("unknown, every endpoint counts as up: %v", err)
		return v
	}
	v.status = &st
	v.from = fmt.Sprintf("control node, seq %d, no DNS node has reported", st.Head.Seq)
	seen := map[string]control.EdgeHealth{}
	var newest int64 = -1
	for _, n := range st.Nodes {
		if n.Report.Role == "dns" && n.AgeMS >= 0 && !n.Silent && (newest < 0 || n.AgeMS < newest) {
			newest, seen = n.AgeMS, n.Report.Health
			v.from = fmt.Sprintf("control node, seq %d; health as %s sees it", st.Head.Seq, n.Name)
		}
	}
	for i := range v.state.Endpoints {
		name := set.Endpoint(i).Name
		probe := health.Status{Why: seen[name].Why}
		switch seen[name].Health {
		case health.Up.String():
			probe.State = health.Up
		case health.Down.String():
			probe.State = health.Down
		}
		v.state.Endpoints[i] = endpointState(probe, slices.Contains(st.Drained, name), st.Forced[name])
	}
	return v
}

// siteFor says what an edge does with a request for a host, or nil when no site
// has it.
func siteFor(cfg *config.Config, host string, fleet fleetView) *siteWay {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, s := range cfg.Sites {
		if !hasHost(s.Hosts, host) {
			continue
		}
		w := &siteWay{Name: s.Name, Push: s.Push, Balance: s.Balance}
		for _, u := range s.Origins {
			w.Origins = append(w.Origins, u.String())
		}
		if s.Push {
			w.Release = "none yet"
			if fleet.status == nil {
				w.Release = "unknown (the control node was not asked)"
			} else if st, ok := fleet.status.Sites[s.Name]; ok && !st.Active.IsZero() {
				w.Release = fmt.Sprintf("%s (generation %d)", st.Active.String()[:shortRelease], st.Generation)
			}
		}
		return w
	}
	return nil
}

// hasHost matches a host against a site's: "*.example.com" covers one label.
func hasHost(hosts []string, host string) bool {
	_, parent, _ := strings.Cut(host, ".")
	return slices.Contains(hosts, host) || slices.Contains(hosts, "*."+parent)
}
