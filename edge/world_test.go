package edge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"perigee.example/internal/memnet"
	"perigee.example/origin"
)

// scripted is the origin of a conversation: what it answers was said before.
type scripted struct {
	mu      sync.Mutex
	answers map[string]*answer // "METHOD /path?query", or "* /path"
	seen    []string           // without the fields that the edge adds to all
	whole   []string
	world   *world
}

// answer is what the origin says to one method and path.
type answer struct {
	status    int
	header    http.Header
	body      string
	delay     time.Duration
	validates bool // answers 304 to a condition that holds
	cut       int  // octets after which the connection breaks; -1: not
	chunked   bool
	refuses   bool
	interim   int         // a status sent before, with a Link field
	trailer   http.Header // sent behind a chunked body
}

// ignored are fields that would only make conversations long.
var ignored = map[string]bool{"Via": true, "Cdn-Loop": true, "X-Forwarded-For": true, "X-Forwarded-Host": true, "X-Forwarded-Proto": true}

func (o *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	line := r.Method + " " + r.RequestURI
	whole := line + "\n  Host: " + r.Host
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		field := "\n  " + name + ": " + strings.Join(r.Header[name], ", ")
		whole += field
		if !ignored[name] {
			line += field
		}
	}
	if len(body) > 0 {
		line += "\n  body " + strconv.Quote(string(body))
	}
	o.mu.Lock()
	o.seen, o.whole = append(o.seen, line), append(o.whole, whole)
	a := o.answers[r.Method+" "+r.RequestURI]
	if a == nil {
		a = o.answers["* "+r.RequestURI]
	}
	if a == nil && r.Method == http.MethodHead {
		a = o.answers["GET "+r.RequestURI]
	}
	o.mu.Unlock()
	if a == nil {
		http.Error(w, "nothing scripted", http.StatusNotImplemented)
		return
	}
	o.write(a, w, r)
}

func (o *scripted) write(a *answer, w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if a.interim != 0 {
		h.Set("Link", fmt.Sprintf("<%s.css>; rel=preload", r.URL.Path))
		w.WriteHeader(a.interim)
		clear(h)
	}
	if l := o.world.loopback; l != nil && a.delay > 0 {
		if err := l.delay(o.world.edge, a.delay); err != nil {
			o.world.t.Error(err)
		}
	} else {
		time.Sleep(a.delay)
	}
	if o.world.loopback != nil {
		h["Date"] = []string{o.world.now().Format(http.TimeFormat)}
	}
	for name, lines := range a.header {
		h[name] = lines
	}
	if a.refuses {
		panic(http.ErrAbortHandler)
	}
	if a.validates && (r.Header.Get("If-None-Match") == h.Get("Etag") && h.Get("Etag") != "" ||
		r.Header.Get("If-None-Match") == "" && r.Header.Get("If-Modified-Since") == h.Get("Last-Modified") && h.Get("Last-Modified") != "") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if !a.chunked && h.Get("Content-Length") == "" && a.status != 304 && a.status != 204 {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	if h.Get("Content-Type") == "" {
		h["Content-Type"] = nil
	}
	w.WriteHeader(a.status)
	if r.Method == http.MethodHead {
		return
	}
	if a.cut >= 0 {
		io.WriteString(w, a.body[:a.cut])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	if a.chunked {
		w.(http.Flusher).Flush()
	}
	io.WriteString(w, a.body)
	for name, lines := range a.trailer {
		h[http.TrailerPrefix+name] = lines
	}
}

// world is one edge with its origin, on a network of its own.
type world struct {
	t          testing.TB
	edge       *Edge
	origin     *scripted
	network    *memnet.Network
	client     *http.Transport
	files      map[string][]byte // of the conversation
	generation uint64
	stop       func()
	loopback   *loopback // nil: the world is in memory, and maybe in a bubble
}

func (w *world) now() time.Time {
	if w.loopback != nil {
		return w.loopback.clock.now()
	}
	return time.Now()
}

var (
	edgeAddr   = netip.MustParseAddrPort("192.0.2.80:80")
	clientAddr = netip.MustParseAddr("198.51.100.7")
)

// newWorld starts an edge, by its own loop or as a handler of net/http, on a
// network in memory.
func newWorld(t testing.TB, loop bool, adjust func(*Config)) *world {
	return makeWorld(t, loop, nil, adjust)
}

// makeWorld is newWorld, or with l an edge that serves by its own loop on a
// socket of this machine.
func makeWorld(t testing.TB, loop bool, l *loopback, adjust func(*Config)) *world {
	w := &world{t: t, loopback: l, origin: &scripted{answers: map[string]*answer{}}, network: memnet.New()}
	originLn, err := w.network.Listen("tcp", "192.0.2.1:80")
	if err != nil {
		t.Fatal(err)
	}
	originServer := &http.Server{Handler: w.origin}
	go originServer.Serve(originLn)
	pool := poolTo(t, w.network, "192.0.2.1:80")
	w.origin.world = w
	var transport http.RoundTripper = pool
	if l != nil {
		l.origin = &watched{RoundTripper: pool}
		transport = l.origin
	}
	config := Config{Name: "fra1", Seed: 1, Sites: []Site{
		{Name: "shop", Hosts: []string{"shop.test", "*.wild.test"}, Origin: transport},
		{Name: "hints", Hosts: []string{"hints.test"}, Origin: transport, EarlyHintsAll: true},
		{Name: "keyed", Hosts: []string{"keyed.test"}, Origin: transport, KeyFields: []string{"X-Device", "X-Original-Url"},
			Query: QueryRules{Sort: true, Drop: []string{"utm_*", "fbclid"}}},
		// Every option whose default is the safe one, turned on.
		{Name: "open", Hosts: []string{"open.test"}, Origin: transport, Heuristic: true, ShareSetCookie: true, StoreClientErrors: true, EarlyHintsAll: true},
	},
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)),
		Limits: &Limits{}} // every request comes from one client
	if l != nil {
		config.Now = l.clock.now
	}
	if adjust != nil {
		adjust(&config)
	}
	if w.edge, err = New(config); err != nil {
		t.Fatal(err)
	}
	ln, err := w.network.Listen("tcp", edgeAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	server := &http.Server{Handler: w.edge}
	dial := func(ctx context.Context) (net.Conn, error) { return w.network.DialFrom(ctx, clientAddr, edgeAddr) }
	switch {
	case l != nil:
		var serve func(context.Context) error
		serve, dial = l.listen(t, w.edge)
		go func() { done <- serve(ctx) }()
	case loop:
		go func() { done <- w.edge.Serve(ctx, ln) }()
	default:
		go func() { done <- server.Serve(ln) }()
	}
	w.client = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	w.stop = func() {
		w.client.CloseIdleConnections()
		cancel()
		server.Close()
		if err := <-done; err != nil && err != http.ErrServerClosed {
			t.Errorf("serve: %v", err)
		}
		w.edge.Close()
		pool.Close()
		originServer.Close()
		holdsNothing(t, w.edge.store)
	}
	return w
}

// poolTo is an origin at one address.
func poolTo(t testing.TB, n *memnet.Network, addr string) *origin.Pool {
	p, err := origin.NewPool(origin.PoolConfig{Origins: []string{"http://" + addr}, DialContext: n.DialContext, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// asks says that n requests are going to be sent, or are through.
func (w *world) asks(n int) {
	if w.loopback != nil {
		w.loopback.asking.Add(int64(n))
	}
}

// roundTrip sends one request of a conversation, of which asks has been told, and
// prints the response.
func (w *world) roundTrip(r *http.Request) (string, error) {
	var b strings.Builder
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
		fmt.Fprintf(&b, "%d %s\n", status, http.StatusText(status))
		for _, name := range slices.Sorted(maps.Keys(h)) {
			fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(h[name], ", "))
		}
		return nil
	}})
	defer w.asks(-1)
	resp, err := w.client.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	w.dated(resp.Header)
	body, err := io.ReadAll(resp.Body)
	fmt.Fprintf(&b, "%d %s\n", resp.StatusCode, http.StatusText(resp.StatusCode))
	for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
		for _, v := range resp.Header[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	if len(body) > 0 {
		fmt.Fprintf(&b, "\n%s", body)
	}
	if err != nil {
		fmt.Fprintf(&b, "\ncut short: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(resp.Trailer)) {
		fmt.Fprintf(&b, "\ntrailer %s: %s", name, resp.Trailer.Get(name))
	}
	return b.String(), nil
}

// dated gives an answer of the general path on a real socket, which net/http
// dates by the real clock, the date of the world's.
func (w *world) dated(h http.Header) {
	t, err := http.ParseTime(h.Get("Date"))
	if w.loopback != nil && err == nil && time.Since(t).Abs() < time.Hour {
		h.Set("Date", w.now().Format(http.TimeFormat))
	}
}

// raw sends bytes as they are and returns all that comes back until the edge
// closes the connection, or is silent for a second.
func (w *world) raw(t testing.TB, send string) string {
	t.Helper()
	c, err := w.network.DialFrom(context.Background(), clientAddr, edgeAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Second))
	got, _ := io.ReadAll(bufio.NewReader(c))
	return string(got)
}

func (w *world) requests(whole bool) []string {
	w.origin.mu.Lock()
	defer w.origin.mu.Unlock()
	seen := w.origin.seen
	if whole {
		seen = w.origin.whole
	}
	for i := range seen { // on a real socket the client is another
		seen[i] = strings.ReplaceAll(seen[i], "X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: "+clientAddr.String())
	}
	w.origin.seen, w.origin.whole = nil, nil
	return seen
}

func (w *world) say(methodAndPath string, a answer) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.header == nil {
		a.header = http.Header{}
	}
	if a.cut == 0 {
		a.cut = -1
	}
	w.origin.mu.Lock()
	defer w.origin.mu.Unlock()
	w.origin.answers[methodAndPath] = &a
}
