package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/origin"
)

func newStatus(o *options) *cobra.Command {
	var state string
	c := &cobra.Command{
		Use:   "status",
		Short: "the fleet at a glance: nodes, health, releases, drains, what waits for a cure",
		Long: `Asks the control node for the whole fleet. With --state it asks one process of this
machine about itself instead: its zones, endpoints and troubles.`,
		Example: "  perigee status\n  perigee status --json\n  perigee status --state /var/lib/perigee",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if state != "" {
				return localStatusOf(c, o, state)
			}
			st, err := ask(o, func(cl *control.Client) (control.Status, error) { return cl.Status(c.Context()) })
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, st)
			}
			hash := ""
			if cfg, err := config.Load(o.config); err == nil {
				hash = cfg.Hash()
			}
			return printFleet(c.OutOrStdout(), &st, hash)
		},
	}
	c.Flags().StringVar(&state, "state", "", "the state `folder` of one process on this machine")
	return c
}

func localStatusOf(c *cobra.Command, o *options, state string) error {
	dir, err := stateDir(state, nil)
	if err != nil {
		return err
	}
	s, err := askLocal(c.Context(), dir)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(c, s)
	}
	t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "process\t%s %s, pid %d, up %s\n", s.Role, s.Name, s.PID, time.Since(s.Started).Round(time.Second))
	for _, z := range s.Zones {
		fmt.Fprintf(t, "zone\t%s serial %d, %s\n", z.Origin, z.Serial, plural(z.Names, "name"))
	}
	for _, e := range s.Endpoints {
		fmt.Fprintf(t, "endpoint\t%s %s\n", e.Name, strings.Join(nonEmpty(e.Health, e.Force, drainWord(e.Draining), e.Why), ", "))
	}
	if f := s.Feed; f != nil {
		fmt.Fprintf(t, "feed\tseq %d%s\n", f.Applied, lostText(f.LostSince))
	}
	for _, p := range s.Problems {
		fmt.Fprintf(t, "trouble\t%s\n", p)
	}
	return t.Flush()
}

func drainWord(draining bool) string {
	if draining {
		return "draining"
	}
	return ""
}

func lostText(since time.Time) string {
	if since.IsZero() {
		return ""
	}
	return fmt.Sprintf(", lost since %s", since.Local().Format(time.DateTime))
}

func nonEmpty(list ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

// clusterWords says how several control nodes stand.
func clusterWords(c *control.ClusterStatus) string {
	if c.NATS != nil {
		return fmt.Sprintf("%s, one of %d", c.Name, c.Members)
	}
	if c.LostSince != nil {
		return fmt.Sprintf("%s, one of %d: too few reach each other since %s, so commands are refused", c.Name, c.Members, c.LostSince.Local().Format(time.DateTime))
	}
	words := fmt.Sprintf("%s, one of %d; %s leads, %d have every entry", c.Name, c.Members, c.Leader, c.Current)
	if c.Current < c.Members {
		words += fmt.Sprintf(" (%d away)", c.Members-c.Current)
	}
	return words
}

// natsWords says how the log stands in the operator's NATS cluster.
func natsWords(c *control.ClusterStatus) string {
	if c.LostSince != nil {
		return fmt.Sprintf("the log cannot be read since %s, so commands are refused", c.LostSince.Local().Format(time.DateTime))
	}
	return fmt.Sprintf("%s leads, %d of %d have every entry; connected to %s", c.Leader, c.Current, c.NATS.Replicas, c.NATS.Server)
}

// printFleet shows the control node's picture; hash is that of the perigee.toml
// at hand, to name the nodes that have another.
func printFleet(w io.Writer, st *control.Status, hash string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "feed\tseq %d, epoch %d%s\n", st.Head.Seq, st.Head.Epoch, trimmedText(st))
	if c := st.Cluster; c != nil {
		fmt.Fprintf(t, "control\t%s\n", clusterWords(c))
		if c.NATS != nil {
			fmt.Fprintf(t, "nats\t%s\n\t  durability: %s\n", natsWords(c), c.NATS.Durability)
		}
	}
	if b := st.Bucket; b != nil {
		printBucket(t, b)
	}
	if r := st.Restored; r != nil {
		what := "nothing is changed until these nodes were heard of: " + strings.Join(r.Waiting, ", ")
		if len(r.Ahead) > 0 {
			what = "nothing is changed, since these nodes have seen more: " + strings.Join(r.Ahead, ", ") + "; see perigee restore --help"
		}
		fmt.Fprintf(t, "trouble\trestored from the backup of %s, seq %d: %s\n", r.Backup.Local().Format(time.DateTime), r.Seq, what)
	}
	if st.EpochWhy != "" {
		fmt.Fprintf(t, "trouble\tthe feed began a new epoch: %s\n", st.EpochWhy)
	}
	for _, name := range slices.Sorted(maps.Keys(st.Sites)) {
		s := st.Sites[name]
		fmt.Fprintf(t, "site\t%s: release %s, generation %d, %d kept%s\n", name, s.Active.String()[:shortRelease], s.Generation, s.Releases, previews(s.Previews))
	}
	if len(st.Drained) > 0 {
		fmt.Fprintf(t, "drained\t%s\n", strings.Join(st.Drained, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(st.Forced)) {
		fmt.Fprintf(t, "forced\t%s %s\n", name, st.Forced[name])
	}
	for _, n := range st.Nodes {
		fmt.Fprintf(t, "node\t%s\n", strings.Join(nodeWords(&n, hash), ", "))
		for _, target := range slices.Sorted(maps.Keys(n.Report.Health)) {
			h := n.Report.Health[target]
			fmt.Fprintf(t, "\t  sees %s\n", strings.Join(nonEmpty(target+" "+h.Health, h.Why), ": "))
		}
		for _, p := range n.Watermark.Pending {
			fmt.Fprintf(t, "\t  waits for %s of site %s: %s\n", plural(p.Missing, "blob"), origin.Place(p.Site, p.Channel), p.Why)
		}
		for _, p := range n.Report.Trouble {
			fmt.Fprintf(t, "\t  trouble: %s\n", p)
		}
	}
	return t.Flush()
}

// printBucket says where blobs are, and what is wrong with it.
func printBucket(w io.Writer, b *control.BucketStatus) {
	has := "not looked at yet"
	if b.Listed != nil {
		has = fmt.Sprintf("%s, %s", plural(b.Objects, "blob"), size(b.Bytes))
	}
	if b.Waiting > 0 {
		has += fmt.Sprintf(", %d on their way", b.Waiting)
	}
	fmt.Fprintf(w, "bucket\t%s: %s\n", b.Where, has)
	if b.LostSince != nil {
		fmt.Fprintf(w, "trouble\tthe bucket cannot be used since %s, so uploads are refused: %s\n", b.LostSince.Local().Format(time.DateTime), b.Why)
	}
	if b.Missing > 0 {
		fmt.Fprintf(w, "trouble\t%s of releases not in the bucket, or not what they are to be: push the sites again\n", plural(b.Missing, "blob"))
	}
}

func previews(n int) string {
	if n == 0 {
		return ""
	}
	return ", " + plural(n, "preview")
}

func nodeWords(n *control.NodeStatus, hash string) []string {
	words := nonEmpty(n.Name+" "+n.Report.Role, fmt.Sprintf("seq %d", n.Watermark.Seq))
	if n.Lag > 0 {
		words = append(words, fmt.Sprintf("%d behind", n.Lag))
	}
	switch {
	case n.AgeMS < 0:
		words = append(words, "no report yet")
	case n.Silent:
		words = append(words, fmt.Sprintf("silent for %s", (time.Duration(n.AgeMS)*time.Millisecond).Round(time.Second)))
	}
	if n.Diverged {
		words = append(words, "its place is not on this feed")
	}
	if hash != "" && n.Report.Config != "" && n.Report.Config != hash {
		words = append(words, "has another perigee.toml")
	}
	return words
}

// trimmedText says from where on the log is there, and how old its newest snapshot is.
func trimmedText(st *control.Status) string {
	text := ""
	if st.First > 1 {
		text = fmt.Sprintf(", from seq %d on", st.First)
	}
	if st.Snapshot != nil {
		text += fmt.Sprintf(", snapshot of seq %d, %s old", st.Snapshot.Seq, st.Time.Sub(st.Snapshot.Made).Round(time.Second))
	}
	return text
}
