package fleet

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	// patience is how long a client waits for one whole reply: longer than a machine
	// with much to do stands still.
	patience = 30 * time.Second
	// tries is how often a question is asked that gets no answer within asks.
	tries = 4
	// breath is the pause between two pages of a client.
	breath = 60 * time.Millisecond
	// maxBody bounds what a client reads.
	maxBody = 1 << 20
)

// client asks one edge from one place, without end: a page with all its parts, which
// it asks for by the page's release, and some of what the origin has.
type client struct {
	r    *rig
	name string // the host
	edge string
	ctx  context.Context
	http *http.Client
	rand *rand.Rand
}

// startClients has clients everywhere ask every edge, and every server, until ctx ends.
func (r *rig) startClients(ctx context.Context, wg *sync.WaitGroup) {
	for i, name := range clients {
		h := r.w.hosts[name]
		for j, edge := range edges {
			c := &client{r: r, name: name, edge: edge, ctx: ctx, rand: rand.New(rand.NewPCG(uint64(i), uint64(j)))}
			t := &http.Transport{MaxIdleConnsPerHost: 2, DisableCompression: (i+j)%2 == 0,
				DialContext: func(ctx context.Context, _, addr string) (conn net.Conn, err error) {
					err = h.do(func() (err error) {
						conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
						return err
					})
					return conn, err
				}}
			c.http = &http.Client{Transport: t, Timeout: patience}
			wg.Go(func() {
				defer t.CloseIdleConnections()
				for ctx.Err() == nil {
					c.page()
					for range 3 {
						c.get(c.r.wanted(c.rand), 0, "")
					}
					pause(ctx, breath)
				}
			})
		}
		for _, server := range append([]string{""}, servers...) {
			wg.Go(func() {
				for ctx.Err() == nil {
					r.resolve(ctx, name, server)
					pause(ctx, 2*breath)
				}
			})
		}
	}
}

// wanted is a URL with an origin; for two in three the hot one, if there is one.
func (r *rig) wanted(random *rand.Rand) string {
	if hot := r.hot.Load(); hot != nil && random.IntN(3) > 0 {
		return *hot
	}
	return aURL(random)
}

func (r *rig) isHot(url string) bool {
	hot := r.hot.Load()
	return hot != nil && *hot == url
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// page loads a page of the push site.
func (c *client) page() {
	release, version := c.get(pushed+"/", 0, "")
	if release == "" || version == 0 {
		return
	}
	for _, part := range pageParts {
		c.get(pushed+"/"+part, version, release)
	}
}

// get makes one request and notes what came of it. It returns the field
// Perigee-Release and the version of a good reply.
func (c *client) get(url string, page int, release string) (string, int) {
	rep := Reply{Client: c.name, Edge: c.edge, URL: url, Start: c.r.now(), Page: page}
	host, path := url, "/"
	for i := range url {
		if url[i] == '/' {
			host, path = url[:i], url[i:]
			break
		}
	}
	named := c.fetch(&rep, host, path, release)
	if rep.End = c.r.now(); c.ctx.Err() != nil {
		return "", 0 // the round is over
	}
	c.r.note(func(h *History) { h.Replies = append(h.Replies, rep) })
	if rep.Failed != "" || rep.Wrong != "" || rep.Status != 200 {
		return "", 0
	}
	return named, rep.Version
}

func (c *client) fetch(rep *Reply, host, path, release string) (named string) {
	q, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://"+c.r.w.hosts[c.edge].addr.String()+path, nil)
	if err != nil {
		rep.Failed = err.Error()
		return ""
	}
	q.Host = host
	if release != "" {
		q.Header.Set("Perigee-Release", release)
	}
	resp, err := c.http.Do(q)
	if err != nil {
		rep.Failed = err.Error()
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		rep.Failed = err.Error()
		return ""
	}
	if rep.Status = resp.StatusCode; rep.Status == 200 {
		rep.Version, rep.Wrong = readBody(rep.URL, body)
	}
	return resp.Header.Get("Perigee-Release")
}

// resolve asks a server for the steered name, or the resolver with "".
func (r *rig) resolve(ctx context.Context, from, server string) {
	host := server
	if server == "" {
		host = "resolver"
	}
	a := Answer{Server: server, Start: r.now()}
	var err error
	for range tries {
		a.Start = r.now()
		a.Edges, err = r.ask(r.w.hosts[from], netip.AddrPortFrom(r.w.hosts[host].addr, 53))
		if ctx.Err() != nil {
			return // the round is over
		}
		var late net.Error
		if !errors.As(err, &late) || !late.Timeout() {
			break
		}
	}
	if err != nil {
		a.Failed = err.Error()
	}
	a.End = r.now()
	r.note(func(h *History) { h.Answers = append(h.Answers, a) })
}
