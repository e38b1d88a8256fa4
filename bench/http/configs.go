package main

// The configurations: each server as strong as its manual makes it. Those who
// can keep no log; Perigee keeps its own.

const perigeeConfig = `version = 1
[cache]
memory = "2GiB"
disk   = "{DISK}"
[limit]
connections = 16384      # above the load, for every client: each request is accounted
misses      = 1000000
exempt      = []
[log]
access      = "json"
access_file = "{DIR}/log/access.log"
[metrics]
listen = "127.0.0.1:{EXTRA}"
[edge.bench]
location   = [50.11, 8.68]
addresses  = ["127.0.0.1"]
listen     = ["127.0.0.1:{PORT}"]
listen_tls = ["127.0.0.1:{TLS}"]
[site.bench]
hosts         = ["bench.test", "localhost"]
origins       = ["http://127.0.0.1:{ORIGIN}"]
allow_private = true
[site.bench.tls]
cert = "{CERTS}/cert.pem"
key  = "{CERTS}/key.pem"
`

const haproxyConfig = `global
  nbthread 1
  maxconn 8000
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
cache bench
  total-max-size 2000
  max-object-size 16777216
  max-age 86400
  process-vary on
  max-secondary-entries 10
frontend web
  bind 127.0.0.1:{PORT}
  bind 127.0.0.1:{TLS} ssl crt {CERTS}/both.pem alpn http/1.1
  http-request cache-use bench
  http-response cache-store bench
  default_backend origin
backend origin
  http-reuse always
  server one 127.0.0.1:{ORIGIN} pool-max-conn 100
`

const nginxConfig = `daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {DIR}/run/nginx.pid;
error_log stderr crit;
events { worker_connections 8000; }
http {
  access_log off;
  sendfile on;
  tcp_nopush off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  open_file_cache max=300000 inactive=1h;
  open_file_cache_valid 1h;
  client_body_temp_path {DIR}/temp/body;
  proxy_temp_path {DIR}/temp/proxy;
  fastcgi_temp_path {DIR}/temp/fastcgi;
  uwsgi_temp_path {DIR}/temp/uwsgi;
  scgi_temp_path {DIR}/temp/scgi;
  default_type application/octet-stream;
  ssl_certificate {CERTS}/cert.pem;
  ssl_certificate_key {CERTS}/key.pem;
  ssl_protocols TLSv1.3;
`

const nginxProxy = `  proxy_cache_path {DIR}/cache levels=1:2 keys_zone=bench:200m max_size=8g inactive=1h use_temp_path=off;
  upstream origin {
    server 127.0.0.1:{ORIGIN};
    keepalive 100;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:{PORT};
    listen 127.0.0.1:{TLS} ssl;
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_buffers 16 32k;
      proxy_buffer_size 16k;
      proxy_cache bench;
    }
  }
}
`

const nginxFile = `  gzip_static on;
  gzip_vary on;
  server {
    listen 127.0.0.1:{PORT};
    listen 127.0.0.1:{TLS} ssl;
    root {DIR}/root;
    add_header Cache-Control max-age=86400;
  }
}
`

const varnishConfig = `vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "{ORIGIN}"; }
sub vcl_recv {
  if (req.method == "GET" || req.method == "HEAD") { return (hash); }
}
`

// atsFiles is a whole configuration of Traffic Server in a folder of its own.
var atsFiles = map[string]string{
	"runroot.yaml": `prefix: {DIR}
exec_prefix: {DIR}
bindir: /usr/bin
sbindir: /usr/bin
sysconfdir: {DIR}
datadir: {DIR}
includedir: /usr/include
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: {DIR}/state
runtimedir: {DIR}/run
logdir: {DIR}/log
cachedir: {DIR}/cache
`,
	"records.config": `CONFIG proxy.config.http.server_ports STRING {PORT}:ip-in=127.0.0.1 {TLS}:ssl:ip-in=127.0.0.1
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.crash_log_helper STRING NULL
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.task_threads INT 1
CONFIG proxy.config.cache.threads_per_disk INT 1
CONFIG proxy.config.cache.ram_cache.size INT 2147483648
CONFIG proxy.config.cache.ram_cache_cutoff INT 16777216
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.net.connections_throttle INT 30000
CONFIG proxy.config.net.max_connections_in INT 30000
CONFIG proxy.config.net.max_requests_in INT 0
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 3600
CONFIG proxy.config.http.transaction_no_activity_timeout_in INT 3600
CONFIG proxy.config.http.insert_request_via_str INT 0
CONFIG proxy.config.http.insert_response_via_str INT 0
CONFIG proxy.config.http.cache.required_headers INT 0
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.url_remap.pristine_host_hdr INT 1
CONFIG proxy.config.ssl.server.cert.path STRING {CERTS}
CONFIG proxy.config.ssl.server.private_key.path STRING {CERTS}
CONFIG proxy.config.ssl.TLSv1 INT 0
CONFIG proxy.config.ssl.TLSv1_1 INT 0
CONFIG proxy.config.ssl.TLSv1_2 INT 0
CONFIG proxy.config.ssl.TLSv1_3 INT 1
`,
	"remap.config":         "map / http://127.0.0.1:{ORIGIN}/\n",
	"storage.config":       "{DIR}/cache 4G\n",
	"ssl_multicert.config": "dest_ip=* ssl_cert_name=cert.pem ssl_key_name=key.pem\n",
	"plugin.config":        "",
	"ip_allow.yaml":        "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n",
}
