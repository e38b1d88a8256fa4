package conformance

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"perigee.example/internal/txtest"
)

var (
	questionCount = flag.Int("questions", 1500, "how many questions TestPeers asks of each server")
	seed          = flag.Uint64("seed", 1, "what its zones and questions are made from; 0 is a random one, which is printed")
	zoneCount     = flag.Int("zones", 8, "how many zones of random shape it makes, beside those of every shape")
	show          = flag.Int("show", 3, "how many examples of each unexplained difference are printed")
)

// makeZones makes and signs the zones that all servers serve.
func makeZones(t *testing.T, rng *rand.Rand) []zone {
	t.Helper()
	var list []zone
	add := func(z zone, how signing) *dns.DS {
		signed, ds := sign(t, z, how)
		list = append(list, signed)
		return ds
	}
	ways := []signing{{}, {by: byBIND}, {by: byLDNS, nsec3: true}, {by: byKnot, nsec3: true, salt: "aabbccdd"}, {by: byKnot, nsec3: true, optOut: true},
		{by: byKnot}, {by: byLDNS}, {by: byBIND, nsec3: true, optOut: true}}
	names := []string{"plain.test.", "nsec.test.", "hash.test.", "salt.test.", "optout.test."}
	for i, origin := range names {
		kid := "kid." + origin
		ds := add(zone{origin: kid, text: shaped(kid, names[(i+2)%len(names)], "")}, ways[i])
		text := shaped(origin, names[(i+1)%len(names)], kid)
		if ds != nil {
			text += ds.String() + "\n"
		}
		add(zone{origin: origin, text: text}, ways[i])
	}
	for i := range *zoneCount {
		origin := fmt.Sprintf("r%d.test.", i)
		add(zone{origin: origin, text: randomZone(rng, origin, names)}, ways[i%len(ways)])
	}
	return list
}

// TestPeers asks perigee, Knot, NSD and BIND the same questions over the same
// zones. Every difference has a rule that explains it, or fails the test.
func TestPeers(t *testing.T) {
	txtest.Need(t, append([]string{"knotd", "nsd", "named"}, signingTools...)...)
	s := *seed
	if s == 0 {
		s = rand.Uint64()>>32 + 1
	}
	fmt.Printf("conformance: seed %d\n", s)
	rng := rand.New(rand.NewPCG(s, s))
	list := makeZones(t, rng)
	ours := &asker{server: startPerigee(t, list)}
	defer ours.close()
	var peers []*asker
	for _, s := range []*server{startKnot(t, list), startNSD(t, list), startBIND(t, list)} {
		a := &asker{server: s}
		defer a.close()
		peers = append(peers, a)
	}
	all := questions(rng, list)
	rep := newReport(peers)
	for _, q := range all[:min(*questionCount, len(all))] {
		mine, size, err := ours.reply(q)
		if err != nil {
			t.Fatal(err)
		}
		rep.kinds[mine.kind()]++
		rep.asked++
		if err := soundReply(ours, q, mine, size); err != nil {
			t.Errorf("%s: %v\n%s", q, err, mine.msg)
		}
		for _, p := range peers {
			theirs, _, err := p.reply(q)
			if err != nil {
				t.Fatal(err)
			}
			c := &comparison{ours: mine.clone(), theirs: theirs, peer: p, self: ours, zones: origins(list)}
			used, left := c.explain()
			if c.err != nil {
				t.Fatal(c.err)
			}
			rep.add(p.name, used, left, mine, theirs)
		}
	}
	if left := rep.print(len(all)); left > 0 {
		t.Errorf("%d differences that no rule explains; again with: make conformance-dns SEED=%d", left, s)
	}
	for _, name := range rep.stale {
		t.Errorf("rule %q explains nothing any more: remove it", name)
	}
}

// soundReply checks a reply of ours by itself, the one that was sent first and
// the one by TCP that a truncated one led to.
func soundReply(ours *asker, q question, r *reply, size int) error {
	if !r.tc {
		return sound(q, r.msg, size)
	}
	first, n, err := ours.ask(q)
	if err != nil {
		return err
	}
	if err := sound(q, first, n); err != nil {
		return err
	}
	q.by = overTCP
	return inOrder(q, r.msg)
}

// report counts what came out.
type report struct {
	peers  []string
	asked  int
	kinds  map[string]int
	equal  map[string]int            // by peer
	used   map[string]map[string]int // by rule, by peer
	groups map[string][]string       // unexplained, by kind: examples
	counts map[string]int
	stale  []string // rules that explained nothing
}

func newReport(peers []*asker) *report {
	r := &report{kinds: map[string]int{}, equal: map[string]int{}, used: map[string]map[string]int{}, groups: map[string][]string{}, counts: map[string]int{}}
	for _, p := range peers {
		r.peers = append(r.peers, p.name)
	}
	return r
}

func (r *report) add(peer string, used, left []string, ours, theirs *reply) {
	if len(used)+len(left) == 0 {
		r.equal[peer]++
	}
	for _, name := range used {
		if r.used[name] == nil {
			r.used[name] = map[string]int{}
		}
		r.used[name][peer]++
	}
	if len(left) == 0 {
		return
	}
	group := peer + ", " + ours.kind() + ": " + strings.Join(left, "; ")
	r.counts[group]++
	if len(r.groups[group]) < *show {
		r.groups[group] = append(r.groups[group], fmt.Sprintf("    %s\n", ours.q))
		if len(r.groups[group]) == 1 {
			r.groups[group][0] += unlike(ours.msg, theirs.msg)
		}
	}
}

// unlike prints the head and the records of two replies that are not in both.
func unlike(ours, theirs *dns.Msg) string {
	lines := func(m *dns.Msg) []string {
		list := []string{fmt.Sprintf("%s aa=%v tc=%v", dns.RcodeToString[m.Rcode], m.Authoritative, m.Truncated)}
		for i, rrs := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
			for _, rr := range rrs {
				if rr.Header().Rrtype != dns.TypeOPT {
					list = append(list, sectionNames[i]+" "+strings.ToLower(strings.ReplaceAll(rr.String(), "\t", " ")))
				}
			}
		}
		return list
	}
	a, b := lines(ours), lines(theirs)
	var out strings.Builder
	for _, l := range a {
		mark := "both  "
		if !slices.Contains(b, l) {
			mark = "ours  "
		}
		fmt.Fprintf(&out, "      %s %s\n", mark, l)
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			fmt.Fprintf(&out, "      theirs %s\n", l)
		}
	}
	return out.String()
}

// print writes the tables and returns how many differences are unexplained.
func (r *report) print(of int) int {
	w := os.Stdout
	fmt.Fprintf(w, "conformance: %d questions of %d to each of perigee, %s\n\n", r.asked, of, strings.Join(r.peers, ", "))
	fmt.Fprintf(w, "%7s  kind of answer\n", "asked")
	for _, k := range slices.Sorted(maps.Keys(r.kinds)) {
		fmt.Fprintf(w, "%7d  %s\n", r.kinds[k], k)
	}
	fmt.Fprintf(w, "\n%7s %7s %7s  difference, and the rule that explains it\n", r.peers[0], r.peers[1], r.peers[2])
	fmt.Fprintf(w, "%7d %7d %7d  none\n", r.equal[r.peers[0]], r.equal[r.peers[1]], r.equal[r.peers[2]])
	for _, rule := range rules {
		n := r.used[rule.name]
		fmt.Fprintf(w, "%7d %7d %7d  %s: %s\n", n[r.peers[0]], n[r.peers[1]], n[r.peers[2]], rule.name, rule.clause)
	}
	if r.asked == of { // else it may be chance
		for _, rule := range rules {
			if len(r.used[rule.name]) == 0 && !rule.rare {
				r.stale = append(r.stale, rule.name)
			}
		}
	}
	total := 0
	for _, n := range r.counts {
		total += n
	}
	fmt.Fprintf(w, "%7d differences that no rule explains\n", total)
	for _, g := range slices.SortedFunc(maps.Keys(r.groups), func(a, b string) int { return r.counts[b] - r.counts[a] }) {
		fmt.Fprintf(w, "\n%7d  %s\n%s", r.counts[g], g, strings.Join(r.groups[g], ""))
	}
	return total
}
