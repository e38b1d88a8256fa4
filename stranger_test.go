package perigee_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// strangerProgram is what someone else's module may do with our packages.
const strangerProgram = `package main

import (
	"fmt"
	"net/netip"
	"time"

	"perigee.example/dnsserver"
	"perigee.example/edge"
	"perigee.example/policy"
)

func main() {
	set, err := policy.Compile(policy.Config{
		Endpoints: []policy.Endpoint{{Name: "a"}, {Name: "b"}},
		Policies: []policy.Policy{{Name: "p", Kind: policy.Failover, TTL: time.Minute,
			Choices: []policy.Choice{{To: "a"}, {To: "b"}}}},
	}, []string{"p"}, nil)
	if err != nil {
		panic(err)
	}
	root, _ := set.Root("p")
	var d policy.Decision
	set.Decide(root, &policy.Query{Client: netip.MustParsePrefix("192.0.2.1/32")}, set.NewState(), &d)
	if _, err := dnsserver.NewView(dnsserver.ViewConfig{}); err != nil {
		panic(err)
	}
	if _, err := edge.New(edge.Config{}); err != nil {
		panic(err)
	}
	fmt.Println(set.Endpoint(d.Endpoints[0]).Name)
}
`

// TestStrangersModule builds and runs a module that is not ours against our
// public packages, by a replace directive.
func TestStrangersModule(t *testing.T) {
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":  "module stranger.example\n\ngo 1.26\n\nrequire perigee.example v0.0.0\n\nreplace perigee.example => " + root + "\n",
		"go.sum":  string(sums),
		"main.go": strangerProgram,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", "-mod=mod", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := strings.TrimSpace(string(out)); !strings.HasSuffix(got, "a") {
		t.Errorf("the stranger's program printed %q, want a", got)
	}
}
