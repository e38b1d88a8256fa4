package main

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/edge"
	"perigee.example/internal/config"
	"perigee.example/internal/control"
	"perigee.example/internal/metrics"
)

// Here is what each part shows of itself at /metrics. The names are those of
// metrics.Table.

// measured is a part that has metrics.
type measured interface{ measure(e *metrics.Emitter) }

const (
	// maxZoneSerials bounds the zones whose serial is shown.
	maxZoneSerials = 1000
	metricsTimeout = 15 * time.Second
)

// metricsAddr is where metrics are shown: the flag, else [metrics] listen. The
// zero value is nowhere.
func (s *server) metricsAddr() (netip.AddrPort, error) {
	switch s.metricsFlag {
	case "":
		return s.cfg.Load().Metrics.Listen, nil
	case "off":
		return netip.AddrPort{}, nil
	}
	addr, err := netip.ParseAddrPort(s.metricsFlag)
	if err != nil {
		return addr, usagef("--metrics wants an address and a port, such as 127.0.0.1:9440, or off, not %q", s.metricsFlag)
	}
	return addr, nil
}

// startMetrics opens the door for scrapes, if there is to be one.
func (s *server) startMetrics() error {
	addr, err := s.metricsAddr()
	if err != nil || !addr.IsValid() {
		return err
	}
	ln, err := s.sockets.Listen(config.Network("tcp", addr), addr.String())
	if err != nil {
		return withHint(addressInUse(err, "tcp", addr), "processes on one machine need an address each for metrics: serve --metrics ADDRESS:PORT, or --metrics off")
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.registry().Handler())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: metricsTimeout, WriteTimeout: metricsTimeout, IdleTimeout: time.Minute}
	s.tasks.start("metrics", func(ctx context.Context) error {
		context.AfterFunc(ctx, func() { srv.Close() })
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	s.log.Info("metrics listen", "addr", ln.Addr())
	return nil
}

// registry joins what all parts show.
func (s *server) registry() *metrics.Registry {
	r := metrics.New(version())
	r.Add(s.measure)
	for _, p := range s.admin.parts {
		if p, ok := p.(measured); ok {
			r.Add(p.measure)
		}
	}
	return r
}

// measure is what the process as a whole shows.
func (s *server) measure(e *metrics.Emitter) {
	e.Bool("perigee_ready", s.admin.ready.Load() && !s.ending.Load())
	e.Value("perigee_troubles", float64(len(s.admin.status().Problems)))
	e.Value("perigee_reloads_total", float64(s.reloads.ok.Load()), "ok")
	e.Value("perigee_reloads_total", float64(s.reloads.failed.Load()), "failed")
	e.Value("perigee_reload_last_success_seconds", float64(s.reloads.last.Load()))
}

func (f *follower) measure(e *metrics.Emitter) {
	if f == nil {
		return
	}
	n := f.now()
	lost, since := n.LostSince(), 0.0
	if !lost.IsZero() {
		since = float64(lost.Unix())
	}
	e.Bool("perigee_feed_connected", lost.IsZero(), f.name)
	e.Value("perigee_feed_lost_since_seconds", since, f.name)
	e.Value("perigee_feed_seq", float64(n.Position().Seq), f.name)
}

// measure implements measured.
func (p *dnsPart) measure(e *metrics.Emitter) {
	st := p.server.Stats()
	for k, n := range st.Queries {
		e.Value("perigee_dns_queries_total", float64(n), transportWord(k.Transport), dnsserver.RcodeText(k.Rcode))
	}
	for zone, n := range st.Zones {
		e.Value("perigee_dns_zone_queries_total", float64(n), zone)
	}
	for k, n := range st.Steered {
		e.Value("perigee_dns_steered_total", float64(n), k.Policy, k.Endpoint)
	}
	e.Value("perigee_dns_limited_total", float64(st.Limited[dnsserver.Dropped]), "dropped")
	e.Value("perigee_dns_limited_total", float64(st.Limited[dnsserver.Slipped]), "slipped")
	e.Value("perigee_dns_dropped_total", float64(st.Dropped))
	e.Value("perigee_dns_panics_total", float64(st.Panics))
	e.Value("perigee_dns_tcp_streams", float64(st.Open))
	e.Value("perigee_dns_tcp_streams_total", float64(st.Streams), "accepted")
	e.Value("perigee_dns_tcp_streams_total", float64(st.Refused), "refused")
	e.Value("perigee_dns_tcp_streams_total", float64(st.Evicted), "evicted")
	if p.queries != nil {
		e.Value("perigee_dns_querylog_dropped_total", float64(p.queries.Dropped()))
	}
	p.measureZones(e)
	for name, st := range p.checks.Snapshot() {
		if st.State != 0 {
			e.Bool("perigee_dns_endpoint_up", st.State.String() == "up", name)
		}
	}
	p.mu.Lock()
	lost := p.lost
	p.mu.Unlock()
	stale := 0.0
	if !lost.IsZero() {
		stale = time.Since(lost).Seconds()
	}
	e.Value("perigee_dns_state_stale_seconds", stale)
	p.follow.measure(e)
}

func (p *dnsPart) measureZones(e *metrics.Emitter) {
	zones, troubled, shown := 0, 0, 0
	for _, z := range p.store.Status() {
		if z.Problem != "" {
			troubled++
		}
		if !z.Loaded {
			continue
		}
		zones++
		if shown++; shown <= maxZoneSerials {
			e.Value("perigee_dns_zone_serial", float64(z.Serial), z.Origin)
		}
	}
	e.Value("perigee_dns_zones", float64(zones))
	e.Value("perigee_dns_zones_troubled", float64(troubled))
}

func transportWord(t dnsserver.Transport) string {
	if t == dnsserver.TCP {
		return "tcp"
	}
	return "udp"
}

// measure implements measured.
func (p *edgePart) measure(e *metrics.Emitter) {
	st := p.edge.Stats()
	for site, s := range st.Sites {
		for k, n := range s.Requests {
			e.Value("perigee_edge_requests_total", float64(n), site, k.Cache, k.Path)
		}
		for class := 2; class <= 5; class++ {
			e.Value("perigee_edge_responses_total", float64(s.Classes[class]), site, strconv.Itoa(class)+"xx")
		}
		e.Value("perigee_edge_bytes_total", float64(s.Bytes), site)
	}
	for site, n := range st.OriginErrors {
		e.Value("perigee_edge_origin_errors_total", float64(n), site)
	}
	e.Value("perigee_edge_purges_total", float64(st.Purges))
	e.Value("perigee_edge_purges_folded_total", float64(p.edge.PurgesFolded()))
	e.Value("perigee_edge_purge_scopes", float64(p.edge.PurgeScopes()))
	connections, misses := p.edge.ClientsRefused()
	e.Value("perigee_edge_client_limit_total", float64(connections), "connections")
	e.Value("perigee_edge_client_limit_total", float64(misses), "misses")
	e.Value("perigee_edge_panics_total", float64(st.Panics))
	e.Value("perigee_edge_connections", float64(st.Connections))
	e.Value("perigee_edge_connections_total", float64(st.Accepted), "accepted")
	e.Value("perigee_edge_connections_total", float64(st.Turned), "refused")
	e.Value("perigee_edge_store_bytes", float64(st.Store.Bytes))
	e.Value("perigee_edge_store_budget_bytes", float64(st.Store.Budget))
	e.Value("perigee_edge_store_filling_bytes", float64(st.Store.Filling))
	e.Value("perigee_edge_store_objects", float64(st.Store.Objects))
	e.Value("perigee_edge_store_evictions_total", float64(st.Store.Evictions))
	if st.Disk.On {
		measureDisk(e, &st.Disk)
	}
	if p.access != nil {
		e.Value("perigee_edge_log_dropped_total", float64(p.access.Dropped()))
	}
	for _, c := range p.certs.Status() {
		if !c.NotAfter.IsZero() {
			e.Value("perigee_edge_certificate_end_seconds", float64(c.NotAfter.Unix()), c.Site)
		}
	}
	p.follow.measure(e)
}

func measureDisk(e *metrics.Emitter, d *edge.DiskStats) {
	writing := 1.0
	if d.Why != "" {
		writing = 0
	}
	e.Value("perigee_edge_disk_writing", writing)
	e.Value("perigee_edge_disk_hits_total", float64(d.Hits))
	e.Value("perigee_edge_disk_bytes", float64(d.Bytes))
	e.Value("perigee_edge_disk_budget_bytes", float64(d.Budget))
	e.Value("perigee_edge_disk_records", float64(d.Records))
	e.Value("perigee_edge_disk_segments", float64(d.Segments))
	e.Value("perigee_edge_disk_written_bytes_total", float64(d.Written))
	for what, n := range map[string]uint64{"damaged": d.Corrupt, "not written": d.Dropped, "not read": d.Overdue} {
		e.Value("perigee_edge_disk_lost_total", float64(n), what)
	}
	e.Value("perigee_edge_disk_segments_evicted_total", float64(d.Evicted))
	e.Value("perigee_edge_disk_dead_files_total", float64(d.Dead))
	e.Value("perigee_edge_disk_wiped_total", float64(d.Wiped))
}

// measure implements measured.
func (p *controlPart) measure(e *metrics.Emitter) {
	srv := p.now()
	if srv == nil {
		return // another process has the control node
	}
	st := srv.Status()
	measureBucket(e, srv, st.Bucket)
	e.Value("perigee_control_seq", float64(st.Head.Seq))
	e.Value("perigee_control_nodes", float64(len(st.Nodes)))
	for _, n := range st.Nodes {
		e.Bool("perigee_control_node_silent", n.Silent, n.Name)
		e.Value("perigee_control_node_watermark", float64(n.Watermark.Seq), n.Name)
		e.Value("perigee_control_node_lag", float64(n.Lag), n.Name)
	}
}

func measureBucket(e *metrics.Emitter, srv *control.Server, b *control.BucketStatus) {
	if b == nil {
		return
	}
	e.Bool("perigee_control_bucket_up", b.LostSince == nil)
	e.Value("perigee_control_bucket_objects", float64(b.Objects))
	e.Value("perigee_control_bucket_object_bytes", float64(b.Bytes))
	e.Value("perigee_control_bucket_missing", float64(b.Missing))
	calls, sent, got := srv.BucketCalls()
	for k, n := range calls {
		e.Value("perigee_control_bucket_calls_total", float64(n), k[0], k[1])
	}
	e.Value("perigee_control_bucket_bytes_total", float64(sent), "sent")
	e.Value("perigee_control_bucket_bytes_total", float64(got), "got")
}
