package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"perigee.example/internal/control"
)

const (
	// receiptWait is how long a command waits for the receipts of all nodes before
	// it says who is late. The command itself is done: it is on the log.
	receiptWait = 10 * time.Second
	// receiptPoll is how often a command that waits for some nodes looks again.
	receiptPoll = time.Second
	// defaultWithin bounds --wait: a node that has not applied an entry by then
	// is down, and somebody has to look.
	defaultWithin = 5 * time.Minute
)

// waitFlags gives a command that makes an entry on the feed its --wait.
func waitFlags(c *cobra.Command) *cobra.Command {
	c.Flags().String("wait", "", "fail unless `all` nodes, or that many, have applied it (default: 10 s for all, and a remark)")
	c.Flags().Duration("within", defaultWithin, "how long --wait waits")
	c.PreRunE = func(c *cobra.Command, _ []string) error { // before anything is done
		_, _, err := wanted(c)
		return err
	}
	return c
}

// wanted reads --wait: how many nodes, -1 for all; 0 when it is not given.
func wanted(c *cobra.Command) (int, time.Duration, error) {
	text := c.Flag("wait").Value.String()
	within, err := c.Flags().GetDuration("within")
	if err != nil {
		return 0, 0, err
	}
	if within <= 0 {
		return 0, 0, usagef("--within %s: want more than nothing", within)
	}
	switch text {
	case "":
		return 0, receiptWait, nil
	case "all":
		return -1, within, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return 0, 0, usagef("--wait %q: want all, or a number of nodes", text)
	}
	return n, within, nil
}

// showReceipts waits for the receipts of an entry and prints them. The command
// is done already, so a node that is late is a remark, and an error only with
// --wait.
func showReceipts(ctx context.Context, c *cobra.Command, o *options, seq uint64, what string, more map[string]any) error {
	n, within, err := wanted(c)
	if err != nil {
		return err
	}
	tell := func(control.Receipts) {}
	if n != 0 && !o.json {
		tell = (&waitLines{w: c.ErrOrStderr()}).show
	}
	r, err := ask(o, func(cl *control.Client) (control.Receipts, error) { return receipts(ctx, cl, seq, n, within, tell) })
	if err != nil {
		return err
	}
	if o.json {
		out := map[string]any{"seq": seq, "receipts": r}
		for k, v := range more {
			out[k] = v
		}
		if err := printJSON(c, out); err != nil {
			return err
		}
	} else {
		printReceipts(c, r, seq, what)
	}
	if n != 0 && !enough(r, n) {
		return withHint(fmt.Errorf("applied on %d of %s within %s", len(r.Applied), plural(r.Nodes, "node"), within),
			"it is on the log: nodes that are late apply it when they can; `perigee status` shows how far each is")
	}
	return nil
}

// enough reports whether n nodes, or all when n is -1, have applied an entry.
func enough(r control.Receipts, n int) bool {
	if n < 0 {
		return len(r.Applied) >= r.Nodes
	}
	return len(r.Applied) >= n
}

// receipts asks until enough nodes have applied an entry, or the time is up, and
// tells each answer in between.
func receipts(ctx context.Context, cl *control.Client, seq uint64, n int, within time.Duration, tell func(control.Receipts)) (control.Receipts, error) {
	end := time.Now().Add(within)
	for {
		wait := max(0, min(time.Until(end), receiptWait))
		if n != 0 {
			wait = min(wait, receiptPoll) // the control node waits for all, and tells nothing meanwhile
		}
		r, err := cl.Receipts(ctx, seq, wait)
		if err != nil || enough(r, n) || !time.Now().Before(end) || n == 0 {
			return r, err
		}
		tell(r)
	}
}

func printReceipts(c *cobra.Command, r control.Receipts, seq uint64, what string) {
	fmt.Fprintf(c.OutOrStdout(), "%s; seq %d, applied on %d of %s", what, seq, len(r.Applied), plural(r.Nodes, "node"))
	var names []string
	for _, a := range r.Applied {
		names = append(names, fmt.Sprintf("%s %d ms", a.Node, a.MS))
	}
	if len(names) > 0 {
		fmt.Fprintf(c.OutOrStdout(), " (%s)", strings.Join(names, ", "))
	}
	fmt.Fprintln(c.OutOrStdout())
	for _, w := range r.Waiting {
		say(c, "still waiting for %s: %s", w.Node, w.Why)
	}
}
