package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A document's console blocks are one session of one bash, in an empty folder
// (for examples/X/README.md, a copy of examples/X):
//
//   - a line that begins with "$ " is a command; lines below that begin with
//     "> " continue it;
//   - what follows, up to the next command, is all that it prints, errors
//     included. "…" stands for any text; a line of its own, for any lines;
//   - a command must exit 0, unless an error is shown: then it must not;
//   - "perigee serve … &" is waited for until it is ready; its log goes to a file;
//   - commands that only read (dig, curl, perigee status and such) are repeated
//     for a while until they print what is shown: a person is slower than a test;
//   - the ports that the documents use are replaced by free ones, in commands,
//     in what they print, and in each perigee.toml.

// docsPorts are the ports that the documents use.
var docsPorts = []int{5300, 8080, 8443, 9080, 7440, 7441, 7442}

const (
	// docsReadyWait bounds the wait for a server of an example.
	docsReadyWait = 60 * time.Second
	// docsCommandWait bounds one command.
	docsCommandWait = 90 * time.Second
	// docsRepeat is for how long commands that only read are repeated.
	docsRepeat = 30 * time.Second
	// docsPause is the time between two tries.
	docsPause = 200 * time.Millisecond
)

// docSession runs the blocks of one document.
type docSession struct {
	t   *testing.T
	doc *document
	bin string // folder of perigee

	dir   string            // where the session began
	ports map[string]string // as written → free
	back  map[string]string
	bash  *exec.Cmd
	in    io.WriteCloser
	lines chan string
	logs  int // of commands in the background
}

// start makes the session at its first use.
func (s *docSession) start() {
	s.t.Helper()
	if s.bash != nil {
		return
	}
	base := s.t.TempDir()
	s.dir = filepath.Join(base, "work")
	s.choosePorts()
	if folder := filepath.Dir(s.doc.path); strings.HasPrefix(folder, "examples/") {
		if err := os.CopyFS(s.dir, os.DirFS(filepath.Join(docsRoot, folder))); err != nil {
			s.t.Fatal(err)
		}
		s.localiseFiles()
	}
	for _, dir := range []string{s.dir, filepath.Join(base, "home")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	s.bash = exec.Command("bash", "--noprofile", "--norc")
	s.bash.Dir = s.dir
	s.bash.Env = []string{"PATH=" + s.bin + ":" + os.Getenv("PATH"), "HOME=" + filepath.Join(base, "home"), "TMPDIR=" + base, "LC_ALL=C", "TZ=UTC"}
	s.bash.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that all of it can be ended
	var err error
	if s.in, err = s.bash.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	out, err := s.bash.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.bash.Stderr = s.bash.Stdout
	if err := s.bash.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.lines = make(chan string)
	go func() {
		defer close(s.lines)
		in := bufio.NewScanner(out)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			s.lines <- in.Text()
		}
	}()
	s.t.Cleanup(s.end)
}

// end stops what the examples started, in its own way first.
func (s *docSession) end() {
	if _, _, err := s.run("kill $(jobs -p) 2>/dev/null; wait"); err != nil {
		s.t.Errorf("%s: ending what was started: %v", s.doc.path, err)
	}
	s.in.Close()
	_ = syscall.Kill(-s.bash.Process.Pid, syscall.SIGKILL) // the group is gone by now, as a rule
	for range s.lines {
	}
	_ = s.bash.Wait() // killed or done: both are well
}

// docsPortsTaken are the ports of all sessions: several run at once.
var docsPortsTaken sync.Map

// choosePorts finds free ports below those that systems give to clients.
func (s *docSession) choosePorts() {
	s.t.Helper()
	s.ports, s.back = map[string]string{}, map[string]string{}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, p := range docsPorts {
		for tries := 0; ; tries++ {
			if tries == 1000 {
				s.t.Fatalf("no free port (seed %d)", seed)
			}
			q := strconv.Itoa(12000 + rng.IntN(20000))
			if _, taken := docsPortsTaken.LoadOrStore(q, true); !taken && docsPortFree(q) {
				s.ports[strconv.Itoa(p)], s.back[q] = q, strconv.Itoa(p)
				break
			}
		}
	}
}

func docsPortFree(port string) bool {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return false
	}
	l.Close()
	p, err := net.ListenPacket("udp", "127.0.0.1:"+port)
	if err != nil {
		return false
	}
	p.Close()
	return true
}

var number = regexp.MustCompile(`\b[0-9]{4,5}\b`)

func swapPorts(text string, with map[string]string) string {
	return number.ReplaceAllStringFunc(text, func(n string) string {
		if p, ok := with[n]; ok {
			return p
		}
		return n
	})
}

// localise gives a perigee.toml the session's ports, those of the doors too
// when it does not mention them.
func (s *docSession) localise(text string) string {
	s.start()
	doors := fmt.Sprintf("listen = \"127.0.0.1:%s\"\nfeed_listen = \"127.0.0.1:%s\"\nblob_listen = \"127.0.0.1:%s\"\n", s.ports["7440"], s.ports["7441"], s.ports["7442"])
	text = swapPorts(text, s.ports)
	if !regexp.MustCompile(`(?m)^\[control\]`).MatchString(text) {
		text += "\n[control]\n" + doors
	}
	return text
}

// localiseFiles does so for every perigee.toml of the session.
func (s *docSession) localiseFiles() {
	s.t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "perigee.toml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if next := s.localise(string(text)); next != string(text) {
			return os.WriteFile(path, []byte(next), 0o644)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// write makes a file below the folder in which the session is.
func (s *docSession) write(b *block, path, text string) bool {
	s.t.Helper()
	s.start()
	out, _, err := s.run("pwd")
	if err != nil {
		s.t.Errorf("%s:%d: %v", s.doc.path, b.line, err)
		return false
	}
	path = filepath.Join(strings.TrimSpace(out), path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return true
}

// docCommand is one command of a console block and what it prints.
type docCommand struct {
	line int
	text string
	want []string
}

func parseConsole(b *block) ([]docCommand, error) {
	var list []docCommand
	for i, line := range b.lines {
		if text, ok := strings.CutPrefix(line, "$ "); ok {
			list = append(list, docCommand{line: b.line + i, text: text})
			continue
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("line %d comes before any command", b.line+i)
		}
		last := &list[len(list)-1]
		if more, ok := strings.CutPrefix(line, "> "); ok && len(last.want) == 0 {
			last.text += "\n" + more
			continue
		}
		last.want = append(last.want, strings.TrimRight(line, " "))
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("there is no command")
	}
	return list, nil
}

// wantPattern is what a command must print, "…" being anything.
func wantPattern(want []string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, line := range want {
		if line == "…" {
			b.WriteString(`(?:.*\n)*`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + `\n`)
	}
	return regexp.MustCompile(b.String() + `\z`)
}

var (
	// docsErrors are lines of an error: then the command must fail.
	docsErrors = regexp.MustCompile(`(?m)^perigee: (error:|\S+:\d+:)`)
	// docsReaders only read: they may be repeated.
	docsReaders = regexp.MustCompile(`^(dig|kdig|curl|perigee (status|explain|check|releases|geo|zone check))\b`)
	docsInit    = regexp.MustCompile(`\bperigee init\b`)
)

// console runs a console block.
func (s *docSession) console(b *block) bool {
	s.t.Helper()
	s.start()
	list, err := parseConsole(b)
	if err != nil {
		s.t.Errorf("%s:%d: %v", s.doc.path, b.line, err)
		return false
	}
	for _, c := range list {
		if err := s.command(&c); err != nil {
			s.t.Errorf("%s:%d: $ %s\n%v", s.doc.path, c.line, c.text, err)
			return false
		}
	}
	return true
}

func (s *docSession) command(c *docCommand) error {
	if text, ok := strings.CutSuffix(c.text, " &"); ok {
		return s.background(text)
	}
	repeat := docsReaders.MatchString(c.text)
	deadline := time.Now().Add(docsRepeat)
	for {
		out, code, err := s.run(swapPorts(c.text, s.ports))
		if err != nil {
			return err
		}
		if docsInit.MatchString(c.text) {
			s.localiseFiles()
		}
		if err = c.compare(swapPorts(out, s.back), code); err == nil || !repeat || time.Now().After(deadline) {
			return err
		}
		<-time.After(docsPause) // a process of its own is waited for: there is no clock to fake
	}
}

// compare says what is wrong with what a command printed.
func (c *docCommand) compare(out string, code int) error {
	want := strings.Join(c.want, "\n")
	if fails := docsErrors.MatchString(want); fails != (code != 0) {
		return fmt.Errorf("exit %d\n%s", code, out)
	}
	var got strings.Builder
	for line := range strings.Lines(out) {
		got.WriteString(strings.TrimRight(line, " \r\n") + "\n")
	}
	if !wantPattern(c.want).MatchString(got.String()) {
		return fmt.Errorf("--- documented\n%s\n--- printed\n%s", want, got.String())
	}
	return nil
}

// background starts a command, and waits until a server says that it is ready.
func (s *docSession) background(text string) error {
	s.logs++
	path := filepath.Join(filepath.Dir(s.dir), fmt.Sprintf("background-%d.log", s.logs))
	if _, code, err := s.run(fmt.Sprintf("%s >%s 2>&1 &", swapPorts(text, s.ports), path)); err != nil || code != 0 {
		return fmt.Errorf("exit %d: %v", code, err)
	}
	if !strings.HasPrefix(text, "perigee serve") {
		return nil
	}
	deadline := time.Now().Add(docsReadyWait)
	for {
		log, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(log), "msg=ready") {
			return nil
		}
		_, code, err := s.run("kill -0 $!")
		if err != nil {
			return err
		}
		if code != 0 || time.Now().After(deadline) {
			return fmt.Errorf("it was not ready:\n%s", log)
		}
		<-time.After(docsPause)
	}
}

// docsEnd marks the end of a command's output.
const docsEnd = "\x01docs-end "

// run gives a command to the session's bash and returns what it printed.
func (s *docSession) run(command string) (string, int, error) {
	// A file, so that a quote that does not close is an error and not a wait.
	script := filepath.Join(filepath.Dir(s.dir), "command")
	if err := os.WriteFile(script, []byte(command+"\n"), 0o644); err != nil {
		return "", 0, err
	}
	if _, err := fmt.Fprintf(s.in, ". %s </dev/null; printf '\\n%s%%d\\n' $?\n", script, docsEnd); err != nil {
		return "", 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), docsCommandWait)
	defer cancel()
	var out []string
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				return strings.Join(out, "\n"), 0, fmt.Errorf("the shell ended: %s", strings.Join(out, "\n"))
			}
			if code, ok := strings.CutPrefix(line, docsEnd); ok {
				n, err := strconv.Atoi(code)
				// printf's own newline ends a last line that has none, or is one too many.
				if last := len(out) - 1; last >= 0 && out[last] == "" {
					out = out[:last]
				}
				text := strings.Join(out, "\n")
				if text != "" {
					text += "\n"
				}
				return text, n, err
			}
			out = append(out, line)
		case <-ctx.Done():
			return "", 0, fmt.Errorf("no end within %s; so far:\n%s", docsCommandWait, strings.Join(out, "\n"))
		}
	}
}

// TestDocsSession tests the runner: what it must find.
func TestDocsSession(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash")
	}
	for _, tt := range []struct{ name, console, wrong string }{
		{"good", "$ printf 'a 1\\nb\\n'\na …\nb\n$ cd /; pwd\n/\n$ pwd\n/", ""},
		{"several lines", "$ printf 'a\\nb\\nc\\nd\\n'\na\n…\nd", ""},
		{"no line", "$ printf 'a\\nd\\n'\na\n…\nd", ""},
		{"another text", "$ echo a\nb", "--- documented"},
		{"one line more", "$ printf 'a\\nb\\n'\na", "--- documented"},
		{"nothing shown", "$ echo a", "--- documented"},
		{"failure", "$ false", "exit 1"},
		{"no failure", "$ echo 'perigee: error: x'\nperigee: error: x", "exit 0"},
		{"quote", "$ echo 'a", "exit "},
		{"ports", "$ echo 127.0.0.1:5300 15300\n127.0.0.1:5300 15300", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &docSession{t: t, doc: &document{path: "test"}}
			s.start()
			list, err := parseConsole(&block{lines: strings.Split(tt.console, "\n")})
			for _, c := range list {
				if err == nil {
					err = s.command(&c)
				}
			}
			if (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("got %v, want %q", err, tt.wrong)
			}
		})
	}
}
