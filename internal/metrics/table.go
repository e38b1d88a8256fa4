package metrics

// Table has every metric. docs/operating.md has a line for each; a test holds
// the two together.
var Table = []Metric{
	{"perigee_build_info", Gauge, "1, with the version of the binary.", []string{"version"}},
	{"perigee_ready", Gauge, "1 once every part serves, 0 from the moment that the process is told to end.", nil},
	{"perigee_troubles", Gauge, "What waits for a cure: the lines that perigee status shows.", nil},
	{"perigee_reloads_total", Counter, "Reloads of perigee.toml and of the files it names, by result: ok, failed.", []string{"result"}},
	{"perigee_reload_last_success_seconds", Gauge, "When perigee.toml was last taken over, in seconds since 1970.", nil},

	{"perigee_dns_queries_total", Counter, "Queries that got a reply, by transport (udp, tcp) and RCODE.", []string{"transport", "rcode"}},
	{"perigee_dns_zone_queries_total", Counter, "Queries by the zone that they fell in; zones beyond 1,000 count as other.", []string{"zone"}},
	{"perigee_dns_steered_total", Counter, "Decisions of policies, by the endpoint that came first.", []string{"policy", "endpoint"}},
	{"perigee_dns_limited_total", Counter, "Replies by UDP over the rate of dns.limit: dropped, or slipped out small.", []string{"verdict"}},
	{"perigee_dns_dropped_total", Counter, "Messages that get no reply: responses, and what is no message.", nil},
	{"perigee_dns_panics_total", Counter, "Queries that met a mistake of ours and got SERVFAIL.", nil},
	{"perigee_dns_tcp_streams", Gauge, "DNS connections that are open.", nil},
	{"perigee_dns_tcp_streams_total", Counter, "DNS connections, by fate: accepted; refused, since the client had too many; evicted, to make way.", []string{"fate"}},
	{"perigee_dns_querylog_dropped_total", Counter, "Records that are missing from the query log.", nil},
	{"perigee_dns_zones", Gauge, "Zones that are served.", nil},
	{"perigee_dns_zones_troubled", Gauge, "Zones whose file is bad, held back or gone: their last good version is served, or none.", nil},
	{"perigee_dns_zone_serial", Gauge, "Serial of a zone as it is served; of the first 1,000 by name.", []string{"zone"}},
	{"perigee_dns_endpoint_up", Gauge, "What the probes of this node say of an endpoint: 1 up, 0 down. Unknown ones are left out.", []string{"endpoint"}},
	{"perigee_dns_state_stale_seconds", Gauge, "How long the feed has been lost, and drains with it; 0 while it is there.", nil},

	{"perigee_edge_requests_total", Counter, "Requests, by what the cache made of them and the path through the edge (fast, general). No site: not understood, or of no host here.", []string{"site", "cache", "path"}},
	{"perigee_edge_responses_total", Counter, "Responses, by the class of their status: 2xx, 3xx, 4xx, 5xx.", []string{"site", "class"}},
	{"perigee_edge_bytes_total", Counter, "Octets of bodies sent.", []string{"site"}},
	{"perigee_edge_origin_errors_total", Counter, "Requests that got 502 or 504 since the origin gave no usable response.", []string{"site"}},
	{"perigee_edge_purges_total", Counter, "Purges that were applied.", nil},
	{"perigee_edge_panics_total", Counter, "Requests and fetches that met a mistake of ours.", nil},
	{"perigee_edge_connections", Gauge, "Connections that are open.", nil},
	{"perigee_edge_connections_total", Counter, "Connections, by fate: accepted; refused, since there were too many.", []string{"fate"}},
	{"perigee_edge_store_bytes", Gauge, "Octets that stored responses take.", nil},
	{"perigee_edge_store_budget_bytes", Gauge, "Octets that they may take.", nil},
	{"perigee_edge_store_filling_bytes", Gauge, "Octets of responses under way.", nil},
	{"perigee_edge_store_objects", Gauge, "Stored responses.", nil},
	{"perigee_edge_store_evictions_total", Counter, "Stored responses that made way for others.", nil},
	{"perigee_edge_log_dropped_total", Counter, "Records that are missing from the access log.", nil},
	{"perigee_edge_certificate_end_seconds", Gauge, "When a site's certificate ends, in seconds since 1970.", []string{"site"}},

	{"perigee_feed_connected", Gauge, "1 while this node hears the control node.", []string{"node"}},
	{"perigee_feed_lost_since_seconds", Gauge, "Since when it does not, in seconds since 1970; 0 while it does.", []string{"node"}},
	{"perigee_feed_seq", Gauge, "Last entry of the log that is applied and synced here.", []string{"node"}},

	{"perigee_control_seq", Gauge, "Last entry of the log.", nil},
	{"perigee_control_nodes", Gauge, "Nodes that have credentials.", nil},
	{"perigee_control_node_silent", Gauge, "1 when a node has not reported for 5 s.", []string{"node"}},
	{"perigee_control_node_watermark", Gauge, "Last entry that is applied and synced at a node.", []string{"node"}},
	{"perigee_control_node_lag", Gauge, "Entries that are not applied there.", []string{"node"}},
}
