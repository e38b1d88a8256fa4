package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"perigee.example/internal/metrics"
)

// TestDocsMetrics: docs/operating.md has a line for each metric of the table, with
// its labels, and for no other.
func TestDocsMetrics(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(docsRoot, "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(perigee_[a-z_]+)` \\| (.*?) \\| .+ \\|$").FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = strings.TrimSpace(m[2])
	}
	for _, m := range metrics.Table {
		want := ""
		for _, l := range m.Labels {
			want += "`" + l + "` "
		}
		got, ok := documented[m.Name]
		if !ok || got != strings.TrimSpace(want) {
			t.Errorf("%s: documented %t, with labels %q, want %q", m.Name, ok, got, strings.TrimSpace(want))
		}
		delete(documented, m.Name)
	}
	for name := range documented {
		t.Errorf("%s is documented, and is not in metrics.Table", name)
	}
	for _, name := range regexp.MustCompile(`perigee_[a-z]+_[a-z_]+`).FindAllString(string(text), -1) {
		if !slices.ContainsFunc(metrics.Table, func(m metrics.Metric) bool { return m.Name == name }) && name != "perigee_build_info" {
			t.Errorf("docs/operating.md speaks of %s, which is not in metrics.Table", name)
		}
	}
}

// notHere are metrics that the process of TestObserve has no value for.
var notHere = []string{
	"perigee_edge_certificate_end_seconds", // no TLS
	// no bucket: testdata/cli/bucket.txtar wants them
	"perigee_control_bucket_up", "perigee_control_bucket_objects", "perigee_control_bucket_object_bytes",
	"perigee_control_bucket_missing", "perigee_control_bucket_calls_total", "perigee_control_bucket_bytes_total",
}

const observeTOML = `version = 1
[dns]
listen = ["%[1]s"]
zone_files = ["zones/*.zone"]
[control]
listen = "%[2]s"
[edge.a]
addresses = ["192.0.2.1"]
listen = ["%[3]s"]
check = "http://%[3]s/-/ready"
[site.www]
hosts = ["www.example.test"]
origins = ["%[4]s"]
[zone."example.test".steer]
www = "a"
[metrics]
listen = "%[5]s"
[log]
access = "combined"
access_file = "access.log"
queries = "all"
queries_file = "queries.log"
hide = ["ticket"]
[cache]
disk = "256MiB"
`

// TestObserve: a whole process is asked by DNS and HTTP, and shows it: every
// metric of the table has a value, and both logs have their lines, also after
// they were rotated.
func TestObserve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dns, admin, web, scrape := freeAddr(t), freeAddr(t), freeAddr(t), freeAddr(t)
	writeFile(t, filepath.Join(dir, "perigee.toml"), fmt.Sprintf(observeTOML, dns, admin, web, upgradeOrigin(t), scrape))
	writeFile(t, filepath.Join(dir, "zones", "example.test.zone"), upgradeZone)
	u := startUpgradable(t, dir, "all")
	if !poll(eventuallyScript, func() bool { return strings.Count(u.text(), `msg="feed there"`) >= 2 }) {
		t.Fatal("the parts do not find the feed")
	}
	ask := func() {
		t.Helper()
		(&dnsLoad{addr: dns}).udp(3, 1)
		if err := (&dnsLoad{addr: dns}).tcpOnce(); err != nil {
			t.Fatal(err)
		}
		if err := askHTTP(web, "/cached?ticket=abc&x=1"); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	has := map[string]string{}
	text := ""
	probed := func() bool {
		text = httpText(t, "http://"+scrape+"/metrics")
		clear(has)
		for _, m := range regexp.MustCompile(`(?m)^(perigee_\w+)(\{.*\})? (\S+)$`).FindAllStringSubmatch(text, -1) {
			has[m[1]] = m[3]
			has[m[1]+m[2]] = m[3]
		}
		return has[`perigee_dns_endpoint_up{endpoint="a"}`] != "" // the first probe has come back
	}
	if !poll(eventuallyScript, probed) {
		t.Fatalf("no probe is shown:\n%s", text)
	}
	for _, m := range metrics.Table {
		if _, ok := has[m.Name]; ok == slices.Contains(notHere, m.Name) {
			t.Errorf("%s: shown %t", m.Name, ok)
		}
	}
	for sample, want := range map[string]string{
		`perigee_dns_queries_total{rcode="NOERROR",transport="udp"}`:          "3",
		`perigee_dns_queries_total{rcode="NOERROR",transport="tcp"}`:          "1",
		`perigee_dns_zone_queries_total{zone="example.test."}`:                "4",
		`perigee_dns_steered_total{endpoint="a",policy="a"}`:                  "4",
		`perigee_dns_zone_serial{zone="example.test."}`:                       "1",
		`perigee_edge_requests_total{cache="miss",path="general",site="www"}`: "1",
		`perigee_edge_bytes_total{site="www"}`:                                fmt.Sprint(len(upgradeBody)),
		`perigee_ready`:                                                       "1",
		`perigee_troubles`:                                                    "0",
		`perigee_feed_connected{node="a"}`:                                    "1",
	} {
		if has[sample] != want {
			t.Errorf("%s %s, want %s", sample, has[sample], want)
		}
	}
	writeFile(t, filepath.Join(dir, "perigee.toml"), fmt.Sprintf(observeTOML, dns, admin, web, upgradeOrigin(t), freeAddr(t)))
	checkLogs(t, u, ask)
	if !strings.Contains(u.text(), "[metrics] has changed") {
		t.Errorf("a reload does not say that metrics stay where they are:\n%s", u.text())
	}
}

// checkLogs looks at both logs, rotates them, and looks again.
func checkLogs(t *testing.T, u *upgradable, ask func()) {
	t.Helper()
	queries, access := filepath.Join(u.dir, "queries.log"), filepath.Join(u.dir, "access.log")
	waitLines := func(path string, n int) []string {
		t.Helper()
		var lines []string
		if !poll(eventuallyScript, func() bool {
			b, _ := os.ReadFile(path)
			lines = nil
			for line := range strings.Lines(string(b)) {
				if !strings.Contains(line, `"perigee-health"`) {
					lines = append(lines, line)
				}
			}
			return len(lines) >= n
		}) {
			t.Fatalf("%s has %d lines, want %d:\n%s", path, len(lines), n, strings.Join(lines, ""))
		}
		return lines
	}
	var q map[string]any
	if err := json.Unmarshal([]byte(waitLines(queries, 4)[0]), &q); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]any{
		"client": "127.0.0.0/24", "transport": "udp", "name": "www.example.test.", "type": "A", "zone": "example.test.",
		"rcode": "NOERROR", "answers": 1.0, "ttl": 60.0, "policy": "a", "endpoint": "a", "reason": "steered", "scope": nil,
	} {
		if field != "ttl" && q[field] != want || field == "ttl" && q[field].(float64) <= 0 {
			t.Errorf("query log: %s is %v, want %v", field, q[field], want)
		}
	}
	want := regexp.MustCompile(`^127\.0\.0\.1 - - \[.*\] "GET /cached\?ticket=\\xe2\\x80\\xa6&x=1 HTTP/1\.1" 200 4000 "-" "-"\n$`)
	if line := waitLines(access, 1)[0]; !want.MatchString(line) {
		t.Errorf("access log: %q", line)
	}
	for _, path := range []string{queries, access} {
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !poll(eventuallyScript, func() bool { return strings.Contains(u.text(), "msg=reloaded") }) {
		t.Fatal("not reloaded")
	}
	ask()
	waitLines(queries, 4)
	waitLines(access, 1)
}

func askHTTP(addr, path string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != upgradeBody {
		err = fmt.Errorf("status %d, %d octets", resp.StatusCode, len(body))
	}
	return err
}

func httpText(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %d %v\n%s", url, resp.StatusCode, err, b)
	}
	return string(b)
}

// TestMetricsAddress: the flag goes before the file; two processes with one
// address are told how to have two.
func TestMetricsAddress(t *testing.T) {
	t.Parallel()
	dir, taken := t.TempDir(), freeAddr(t)
	ln, err := net.Listen("tcp4", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	writeFile(t, filepath.Join(dir, "perigee.toml"), "version = 1\n[dns]\nlisten = [\""+freeAddr(t)+"\"]\nzone_files = [\"zones/*.zone\"]\n[metrics]\nlisten = \""+taken+"\"\n")
	writeFile(t, filepath.Join(dir, "zones", "example.test.zone"), upgradeZone)
	cmd := exec.Command("perigee", "serve", "dns", "--state", "s")
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "address already in use") || !strings.Contains(out.String(), "--metrics") {
		t.Errorf("%v: %s", err, out.String())
	}
	own := freeAddr(t)
	startUpgradable(t, dir, "dns", "dns", "--metrics", own)
	if text := httpText(t, "http://"+own+"/metrics"); !strings.Contains(text, "perigee_dns_zones 1\n") {
		t.Errorf("metrics at --metrics:\n%s", text)
	}
	if resp, err := http.Get("http://" + own + "/"); err != nil || resp.StatusCode != 404 {
		t.Errorf("another path: %v %v", resp, err)
	}
}

// TestMetricsWhileControlIsElsewhere: a scrape while another process has the control
// node shows the rest. It ended the process.
func TestMetricsWhileControlIsElsewhere(t *testing.T) {
	r := metrics.New("1.2.3")
	r.Add((&controlPart{}).measure)
	a := httptest.NewRecorder()
	r.Handler().ServeHTTP(a, httptest.NewRequest("GET", "/metrics", nil))
	if text := a.Body.String(); !strings.Contains(text, "perigee_build_info") || strings.Contains(text, "perigee_control") {
		t.Errorf("%d: %s", a.Code, text)
	}
}
