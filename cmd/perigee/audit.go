package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
)

func newAudit(o *options) *cobra.Command {
	n := 20
	c := &cobra.Command{
		Use:   "audit",
		Short: "show who changed what, when and from where, and who was refused",
		Long: `Shows the newest lines of the control node's audit log, oldest first: every call
that was to change something, and every one that was refused for want of a right.
The whole of it is in audit.log of the control node's state folder, one JSON
object a line. Of several control nodes each writes down what it was asked; any
of them shows what all have, and says which one did not answer.`,
		Example: "  perigee audit\n  perigee audit -n 1000 --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := ask(o, func(cl *control.Client) (control.AuditLines, error) { return cl.Audit(c.Context(), n) })
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, out)
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, l := range out.Lines {
				who := l.Who
				if who == "" {
					who = "-"
				}
				what := l.What
				if l.Which != "" {
					what += ": " + l.Which
				}
				if l.Why != "" {
					what += " (" + l.Why + ")"
				}
				if l.Times > 1 {
					what += fmt.Sprintf(" and %s within a second", plural(l.Times-1, "more refusal"))
				}
				if l.Node != "" {
					who += " at " + l.Node
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", l.Time.Local().Format(time.DateTime), who, l.From, l.Status, what)
			}
			if len(out.Silent) > 0 {
				say(c, "what was asked of %s is not there: no answer", strings.Join(out.Silent, ", "))
			}
			if out.Damaged > 0 {
				say(c, "%s left out: a crash cut them short", plural(out.Damaged, "line"))
			}
			return t.Flush()
		},
	}
	c.Flags().IntVarP(&n, "lines", "n", n, "how `many` lines")
	return c
}
