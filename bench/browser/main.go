// Browser reads a real site through the edge as people do: some hundred pages of
// a Debian package's documentation, served by nginx as the origin, opened in
// headless Chromium, twice. Each pass is a browser of its own, with nothing in
// its cache: so what the second pass asks for must come from the edge's.
//
//	go run ./bench/browser -perigee bin/perigee [-root /usr/share/doc/python3.11/html] [-pages 40]
//
// It fails when an answer of the second pass is no hit, when one is not 200 or
// 304, or when a page does not look as it did. On a busy machine Chromium may
// take its picture too early: a page that looks different is looked at again,
// through the edge and at the origin itself, and these two must be alike.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image/png"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const host = "docs.test"

func main() {
	log.SetFlags(0)
	log.SetPrefix("browser: ")
	perigee := flag.String("perigee", "bin/perigee", "the perigee `binary`")
	root := flag.String("root", "/usr/share/doc/python3.11/html", "the `folder` of the site")
	pages := flag.Int("pages", 40, "pages to open in each pass")
	keep := flag.String("keep", "", "a `folder` for the screenshots (default: they are removed)")
	flag.Parse()
	if err := run(*perigee, *root, *keep, *pages); err != nil {
		log.Fatal(err)
	}
}

func run(perigee, root, keep string, count int) error {
	pages, files, err := choose(root, count)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "browser-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	nginx, err := startOrigin(dir, root, ports[0])
	if err != nil {
		return err
	}
	defer end(nginx)
	edge, err := startEdge(perigee, dir, ports[0], ports[1])
	if err != nil {
		return err
	}
	defer end(edge)
	if err := waitFor(fmt.Sprintf("http://127.0.0.1:%d/-/ready", ports[1])); err != nil {
		return err
	}
	shots := keep
	if shots == "" {
		shots = filepath.Join(dir, "shots")
	}
	if err := os.MkdirAll(shots, 0o755); err != nil {
		return err
	}
	fmt.Printf("%d pages of %d files below %s, nginx → edge → Chromium, twice\n\n", len(pages), files, root)
	var passes [2]pass
	for i := range passes {
		if passes[i], err = browse(dir, shots, i+1, ports[1], pages); err != nil {
			return err
		}
	}
	return judge(passes, shots, pages, func(i int) (bool, error) { return lookAgain(dir, shots, i, pages[i], ports) })
}

// looks bounds how often a page that looked different is looked at again.
const looks = 3

// lookAgain compares a page through the edge with the page at the origin.
func lookAgain(dir, shots string, i int, page string, ports []int) (alike bool, err error) {
	for n := 0; n < looks && !alike && err == nil; n++ {
		var shot [2]string
		for j, port := range ports {
			shot[j] = filepath.Join(shots, fmt.Sprintf("%03d-again-%d-%d.png", i, n, j))
			if err = shoot(filepath.Join(dir, "profile-again"), shot[j], port, page); err != nil {
				return false, err
			}
		}
		alike, err = alikeImages(shot[0], shot[1])
	}
	return alike, err
}

// choose picks pages spread over the whole site.
func choose(root string, count int) (pages []string, files int, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		if strings.HasSuffix(path, ".html") && !strings.Contains(path, "search") {
			rel, err := filepath.Rel(root, path)
			pages = append(pages, filepath.ToSlash(rel))
			return err
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	if len(pages) < count {
		return pages, files, nil
	}
	var some []string
	for i := range count {
		some = append(some, pages[i*len(pages)/count])
	}
	return some, files, nil
}

func startOrigin(dir, root string, port int) (*exec.Cmd, error) {
	text := fmt.Sprintf(`daemon off; pid %[1]s/nginx.pid; error_log stderr warn; worker_processes 1;
events {}
http { include /etc/nginx/mime.types; access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server { listen 127.0.0.1:%[2]d; root %[3]s; expires 1h; disable_symlinks off; } }
`, dir, port, root)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // its worker is another user
		return nil, err
	}
	return start(filepath.Join(dir, "nginx.log"), "nginx", "-c", conf, "-p", dir)
}

func startEdge(perigee, dir string, origin, port int) (*exec.Cmd, error) {
	text := fmt.Sprintf("version = 1\n[edge.one]\naddresses = [\"127.0.0.1\"]\nlisten = [\"127.0.0.1:%d\"]\n[site.docs]\nhosts = [%q]\norigins = [\"http://127.0.0.1:%d\"]\n", port, host, origin)
	conf := filepath.Join(dir, "perigee.toml")
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return start(filepath.Join(dir, "edge.log"), perigee, "serve", "edge", "one", "-c", conf, "--state", filepath.Join(dir, "state"))
}

// start runs a program with its output in a file.
func start(logFile, program string, args ...string) (*exec.Cmd, error) {
	out, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, cmd.Start()
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}

func waitFor(url string) error {
	var last error
	for range 200 {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		last = err
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s: %w", url, last)
}

// record is one line of the edge's access log.
type record struct {
	Host, Path, Cache string
	Status            int
}

// pass is what the edge answered in one pass.
type pass struct {
	caches  map[string]int // by the access log's cache
	records []record
}

// browse opens every page in a browser without a cache, and reads what the edge
// logged meanwhile.
func browse(dir, shots string, number, port int, pages []string) (pass, error) {
	p := pass{caches: map[string]int{}}
	logFile := filepath.Join(dir, "edge.log")
	before, err := os.Stat(logFile)
	if err != nil {
		return p, err
	}
	for i, page := range pages {
		if err := shoot(filepath.Join(dir, fmt.Sprintf("profile-%d-%d", number, i)), filepath.Join(shots, fmt.Sprintf("%03d-%d.png", i, number)), port, page); err != nil {
			return p, err
		}
	}
	time.Sleep(time.Second) // the log is written behind the answers
	f, err := os.Open(logFile)
	if err != nil {
		return p, err
	}
	defer f.Close()
	if _, err := f.Seek(before.Size(), 0); err != nil {
		return p, err
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r record
		if json.Unmarshal(lines.Bytes(), &r) != nil || !strings.HasPrefix(r.Host, host) {
			continue
		}
		p.records = append(p.records, r)
		p.caches[r.Cache]++
	}
	return p, lines.Err()
}

// shoot opens a page in a browser of its own, and takes a picture.
func shoot(profile, shot string, port int, page string) error {
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1000,900", "--virtual-time-budget=5000", "--user-data-dir="+profile,
		"--host-resolver-rules=MAP "+host+" 127.0.0.1", "--screenshot="+shot, fmt.Sprintf("http://%s:%d/%s", host, port, page))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("chromium on %s: %w\n%.2000s", page, err, out)
	}
	return os.RemoveAll(profile)
}

// judge prints both passes, and says what is wrong with the second. again looks
// once more at a page that looked different.
func judge(passes [2]pass, shots string, pages []string, again func(i int) (alike bool, err error)) error {
	fmt.Printf("| pass | requests | by cache |\n| --- | --- | --- |\n")
	for i, p := range passes {
		var words []string
		for c, n := range p.caches {
			words = append(words, fmt.Sprintf("%s %d", c, n))
		}
		slices.Sort(words)
		fmt.Printf("| %d | %d | %s |\n", i+1, len(p.records), strings.Join(words, ", "))
	}
	var errs []error
	if passes[0].caches["miss"] == 0 {
		errs = append(errs, errors.New("the first pass had no miss: it was not the first"))
	}
	for _, r := range passes[1].records {
		found := r.Status == http.StatusOK || r.Status == http.StatusNotModified
		if found && r.Cache != "hit" || !found && r.Status != http.StatusNotFound {
			errs = append(errs, fmt.Errorf("second pass: %s: %d, %s", r.Path, r.Status, r.Cache))
		}
	}
	alike, second := 0, 0
	for i, page := range pages {
		same, err := alikeImages(filepath.Join(shots, fmt.Sprintf("%03d-1.png", i)), filepath.Join(shots, fmt.Sprintf("%03d-2.png", i)))
		if err == nil && !same {
			second++
			same, err = again(i)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case !same:
			errs = append(errs, fmt.Errorf("%s looks different the second time", page))
		default:
			alike++
		}
	}
	fmt.Printf("\n%d of %d screenshots alike (%d looked at again)\n", alike, len(pages), second)
	return errors.Join(errs...)
}

// alikeImages compares two screenshots pixel by pixel.
func alikeImages(a, b string) (bool, error) {
	one, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	two, err := os.ReadFile(b)
	if err != nil {
		return false, err
	}
	if bytes.Equal(one, two) {
		return true, nil
	}
	x, err := png.Decode(bytes.NewReader(one))
	if err != nil {
		return false, fmt.Errorf("%s: %w", a, err)
	}
	y, err := png.Decode(bytes.NewReader(two))
	if err != nil {
		return false, fmt.Errorf("%s: %w", b, err)
	}
	if x.Bounds() != y.Bounds() {
		return false, nil
	}
	for at := x.Bounds().Min; at.Y < x.Bounds().Max.Y; at.Y++ {
		for at.X = x.Bounds().Min.X; at.X < x.Bounds().Max.X; at.X++ {
			if x.At(at.X, at.Y) != y.At(at.X, at.Y) {
				return false, nil
			}
		}
	}
	return true, nil
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
