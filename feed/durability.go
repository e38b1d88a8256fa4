package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// monitorWait bounds one question to a NATS server's monitoring.
	monitorWait = 3 * time.Second
	// maxMonitorBytes bounds its answer, which is some 5 KiB.
	maxMonitorBytes = 1 << 20
)

// Durability says what is known of whether the NATS servers sync an entry before they
// acknowledge it, which is a setting of theirs that clients cannot see. monitoring are
// their monitoring addresses, http://HOST:PORT.
func Durability(ctx context.Context, monitoring []string) string {
	const unknown = "set at NATS, not verified"
	if len(monitoring) == 0 {
		return unknown
	}
	var lazy, silent []string
	for _, base := range monitoring {
		always, err := syncsAlways(ctx, base)
		switch {
		case err != nil:
			silent = append(silent, fmt.Sprintf("%s: %v", base, err))
		case !always:
			lazy = append(lazy, base)
		}
	}
	switch {
	case len(lazy) > 0:
		return "NOT synced before it is acknowledged at " + strings.Join(lazy, ", ") + ": set jetstream { sync_interval: always } there; a loss of power may lose entries"
	case len(silent) > 0:
		return unknown + " (" + strings.Join(silent, "; ") + ")"
	}
	return fmt.Sprintf("synced before it is acknowledged (%d of %d servers say so)", len(monitoring), len(monitoring))
}

// syncsAlways asks one server.
func syncsAlways(ctx context.Context, base string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, monitorWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/varz", nil)
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("it answers %s", resp.Status)
	}
	var v struct {
		JetStream struct {
			Config *struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMonitorBytes)).Decode(&v); err != nil {
		return false, err
	}
	if v.JetStream.Config == nil {
		return false, fmt.Errorf("it has no JetStream")
	}
	return v.JetStream.Config.SyncAlways, nil
}
