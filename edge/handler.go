package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	healthPath = "/-/health"
	readyPath  = "/-/ready"
	// maxTries bounds how often a request joins another's fetch before it
	// makes one of its own.
	maxTries = 3
	// copyBytes is the buffer of a response that is passed through.
	copyBytes = 32 << 10
)

// connFacts is what Serve tells the handler of a connection it hands over.
type connFacts struct {
	state *tls.ConnectionState
	guard *guard
	peer  bool
	// lingers says that the connection ends with this answer, which is whole.
	lingers *bool
}

type connKey struct{}

// ServeHTTP answers one request by all rules of the edge. It may be used with
// any server; with net/http's own, heads are as strict as net/http is.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{e: e, w: w, r: r, ctx: r.Context(), snap: e.snap.Load(), client: r.RemoteAddr}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		x.client = host
	}
	x.facts, _ = x.ctx.Value(connKey{}).(*connFacts)
	state := r.TLS
	if x.facts != nil {
		state = x.facts.state
	}
	if x.facts != nil && x.facts.peer {
		x.fromPeer()
	} else if state != nil {
		x.snap = x.snap.Over(state.ServerName)
	}
	x.serveRequest(state)
}

// serveRequest answers the request of an exchange that knows who asks.
func (x *exchange) serveRequest(state *tls.ConnectionState) {
	r := x.r
	x.rec = AccessRecord{Time: x.e.now(), TLS: state, Method: r.Method, Host: r.Host, Path: r.URL.Path, Cache: "local"}
	defer x.log()
	defer x.end()
	defer x.survive()
	x.answer()
}

func (x *exchange) log() {
	x.e.statsOf(x.site).count(generalShard, pathGeneral, x.rec.Cache, x.rec.Status, x.rec.Bytes)
	if x.e.access == nil {
		return
	}
	x.rec.Proto, x.rec.Referer, x.rec.UserAgent = x.r.Proto, x.e.secrets.reference(x.r.Referer()), x.r.UserAgent()
	x.rec.Duration = x.e.now().Sub(x.rec.Time)
	x.e.access.Log(&x.rec)
}

func (x *exchange) answer() {
	e := x.e
	if x.probe() {
		return
	}
	q, err := readRequest(x.r, x.client, x.snap.tls, x.watch != nil)
	if x.peer {
		q.client = peerClient(x.r.Header, q.client)
	} else {
		q.client = e.clientOf(q.client, q.fields())
	}
	x.q, x.rec.Client = q, q.client
	x.told = !x.peer && e.tells(q.client) // what a peer gets may be stored there, for everybody
	var bad *refused
	if errors.As(err, &bad) {
		if bad.status == http.StatusMethodNotAllowed {
			x.w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		}
		if bad.status == http.StatusBadRequest {
			x.w.Header().Set("Connection", "close")
		}
		x.fail(bad.status, bad.why)
		return
	}
	x.rec.Host, x.rec.Path = q.host, e.secrets.path(q.path, q.query)
	if x.site, x.channel = x.snap.route(&q.target); x.site == nil {
		x.fail(http.StatusMisdirectedRequest, "no site here is called "+q.host)
		return
	}
	x.rec.Site = x.site.Name
	if e.looped(x.r.Header) {
		x.fail(http.StatusLoopDetected, "this request has been here before: the origin of this site leads back to this edge")
		return
	}
	if x.site.Push && !x.peer && x.pushed() {
		return
	}
	if x.channel != "" {
		q.leavePreview(x.channel)
	}
	x.pull()
}

// probe answers health checks, on any host.
func (x *exchange) probe() bool {
	raw := x.r.RequestURI
	if raw != healthPath && raw != readyPath || x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return false
	}
	x.q = &request{method: x.r.Method}
	h := x.w.Header()
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	if raw == readyPath && x.e.notReady.Load() {
		x.fail(http.StatusServiceUnavailable, "not ready")
		return true
	}
	x.writeHeader(http.StatusOK)
	if x.r.Method == http.MethodGet {
		io.WriteString(x, "ok\n")
	}
	return true
}

// route finds the site of a target, and the channel if it is a preview's; nil
// is a misdirected request.
func (s *Snapshot) route(t *target) (site *Site, channel string) {
	if s.tls && !s.peer && s.sni != t.host && (s.sni != "" || s.nameless == nil || !s.nameless(t.host)) {
		return nil, ""
	}
	return s.sites.find(t.host)
}

// pull answers from the store or the origin.
func (x *exchange) pull() {
	q := x.q
	if x.site.Origin == nil {
		x.fail(http.StatusNotFound, "the site has no such path and no origin")
		return
	}
	q.query = x.site.Query.apply(q.query)
	x.key = q.key()
	if q.method != http.MethodGet && q.method != http.MethodHead {
		if x.lastForward() {
			return
		}
		x.pass("method")
		return
	}
	if x.peer {
		if !x.upToPeer() {
			x.pass("bypass")
			return
		}
		x.peerAsOf = x.e.asOf()
	}
	f := x.snap.find(x.site, []byte(x.key), q.fields(), x.e.now())
	if f.obj == nil {
		f = x.secondTier(f)
	}
	if f.obj != nil {
		x.hold(f.obj.body)
	}
	if f.obj != nil && !f.obj.answers(q) {
		f = found{why: "partial"}
	}
	if x.originsToJudge(f.obj) {
		x.status.detail = "" // it comes from no tier
		if x.missAllowed() {
			x.pass("request")
		}
		return
	}
	switch f.use {
	case useFresh:
		if x.goesEarly(f) {
			f.why = "stale"
			break
		}
		if f.ahead {
			x.refreshAhead(f)
		}
		x.serveStored(f.obj, f.age, "hit")
		return
	case useStale:
		x.revalidateBehind(f)
		x.serveStored(f.obj, f.age, "stale")
		return
	case useValidate:
		if f.tolerable && q.cc.maxStale != noDelta && f.age-f.obj.lifetime <= q.cc.maxStale { // RFC 9111 §5.2.1.2
			x.serveStored(f.obj, f.age, "stale")
			return
		}
	}
	switch {
	case q.cc.onlyIfCached: // RFC 9111 §5.2.1.7
		x.status.detail = "only-if-cached"
		x.fail(http.StatusGatewayTimeout, "nothing usable is stored, and the request forbids to fetch it")
	case f.obj == nil && !x.missAllowed():
	case q.method == http.MethodHead, q.cc.noStore:
		x.fallback = f
		x.pass(f.why)
	default:
		x.fetch(f)
	}
}

// originsToJudge reports If-Match or If-Unmodified-Since that what is stored does
// not meet. A cache must not judge these (RFC 9111 §4.3.2): what the origin has by
// now may meet them.
func (x *exchange) originsToJudge(o *stored) bool {
	q := x.q
	return o != nil && o.status == http.StatusOK && !q.cc.onlyIfCached && (q.has("If-Match") || q.has("If-Unmodified-Since")) &&
		o.evaluate(q.fields()) == preconditionFailed
}

// serveStored answers with a response that the store has whole.
func (x *exchange) serveStored(o *stored, age time.Duration, how string) {
	x.status.hit = true
	x.answerStored(o, age, how)
}

// answerStored answers with a stored response, however it came there.
func (x *exchange) answerStored(o *stored, age time.Duration, how string) {
	x.status.ttl, x.status.hasTTL = o.ttl(age), true
	x.rec.Cache = how
	x.storedHeader(o, age)
	x.serve(o.status, &o.validators, x.source(o))
}

// revalidateBehind starts a fetch that nobody waits for, unless there is one.
func (x *exchange) revalidateBehind(f found) {
	e := x.e
	fl, leader := e.join(x.route(flightKey(x.key, f.obj.sel, x.q.fields())), x.key, f.obj.scopes)
	if !leader {
		e.leave(fl, false)
		return
	}
	w := x.newFill(fl, f)
	e.flights.mu.Lock()
	fl.behind = true
	e.flights.mu.Unlock()
	go func() {
		w.run()
		e.leave(fl, true)
	}()
}

// originFailed answers when there is neither a response nor a stale one.
func (x *exchange) originFailed(err error) {
	x.rec.Cache = "error"
	if x.site.failed != nil {
		x.site.failed.Add(1)
	}
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	if errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout() {
		x.fail(http.StatusGatewayTimeout, "the origin took too long")
	} else {
		x.fail(http.StatusBadGateway, "the origin gave no usable response")
	}
	x.e.log.Warn("origin failed", "site", x.site.Name, "url", x.e.shown(&x.q.target), "why", err)
}

// pass forwards the request as it is, and stores nothing.
func (x *exchange) pass(why string) {
	q, e := x.q, x.e
	x.status.fwd, x.rec.Cache = why, "pass"
	req := (&http.Request{Method: q.method, URL: q.url(), Host: q.authority, Header: e.forwarded(x.site, q),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody}).WithContext(withInterim(x.ctx, x.inform))
	// A body on GET or HEAD is dropped: no key covers it (RFC 9110 §9.3.1).
	var body *clientBody
	if q.method != http.MethodGet && q.method != http.MethodHead && x.r.ContentLength != 0 {
		body = &clientBody{ReadCloser: x.r.Body, control: http.NewResponseController(x.w), done: make(chan struct{})}
		req.Body, req.ContentLength = body, x.r.ContentLength
		if q.has("Expect") {
			req.Header["Expect"] = []string{"100-continue"} // the only one that net/http lets through
		}
		defer body.stop()
	}
	asOf, asked := e.asOf(), e.now()
	x.peerAsOf = asOf
	var before *flight
	if q.method == http.MethodPost || q.method == http.MethodHead {
		before = e.watch(x.key)
		defer e.unwatch(before)
	}
	resp, asOf, err := x.sendOn(req, asOf)
	came := e.now()
	// net/http ends the request's context when a body turns out to be malformed,
	// and an origin may answer before it has all of it: what counts is the body.
	if body != nil && (err != nil || resp.StatusCode < 400) && body.fails() && err == nil {
		resp.Body.Close()
		err = errBadBody
	}
	if err != nil && body != nil && x.badBody(body) {
		return
	}
	if err != nil {
		if x.ctx.Err() != nil {
			x.abort()
		}
		if !x.fallBack(err, 0) {
			x.originFailed(err)
		}
		return
	}
	if x.fallBack(nil, resp.StatusCode) {
		resp.Body.Close()
		return
	}
	if q.method == http.MethodHead {
		if o := x.headed(resp, before, asked, came); o != nil {
			resp.Body.Close()
			x.status.fwdStatus, x.status.stored = resp.StatusCode, true
			x.answerStored(o, o.currentAge(came), "revalidated")
			return
		}
	}
	var keep *keeper
	if !q.safe() && resp.StatusCode >= 200 && resp.StatusCode < 400 {
		if before != nil {
			keep = x.posted(resp, before, asOf, asked, came)
		}
		x.invalidated(resp.Header, before)
	}
	x.passOn(resp, keep)
}

// badBody answers when it was the client's body that failed the request.
func (x *exchange) badBody(body *clientBody) bool {
	switch {
	case body.late.Load() || x.facts != nil && x.facts.guard.slow.Load():
		x.w.Header().Set("Connection", "close")
		x.fail(http.StatusRequestTimeout, "the request's body did not come in time")
	case body.failed.Load():
		x.w.Header().Set("Connection", "close")
		x.fail(http.StatusBadRequest, "the request's body is malformed, or broke off")
	default:
		return false
	}
	return true
}

// clientBody is a request's body on its way to the origin. It holds the client
// to a least rate, and knows that it was the client who failed.
type clientBody struct {
	io.ReadCloser
	control *http.ResponseController
	pace    pace
	failed  atomic.Bool
	late    atomic.Bool // it failed because it did not come in time
	ended   atomic.Bool
	once    sync.Once
	done    chan struct{} // closed when it has ended or failed, or nobody reads it any more
}

// earlyAnswer is how long a success that comes before the request's end waits
// for that: a request whose body is malformed has none.
const earlyAnswer = time.Second

var errBadBody = errors.New("the request's body is malformed, or did not come")

// Close implements io.Closer: nobody reads it any more.
func (b *clientBody) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.ReadCloser.Close()
}

// fails reports whether the body turns out to be malformed, within earlyAnswer.
func (b *clientBody) fails() bool {
	t := time.NewTimer(earlyAnswer)
	defer t.Stop()
	select {
	case <-b.done:
	case <-t.C:
	}
	return b.failed.Load()
}

// stop ends a read of what the origin did not want, so that the answer does
// not wait for it.
func (b *clientBody) stop() {
	if !b.ended.Load() {
		b.control.SetReadDeadline(time.Unix(1, 0))
	}
}

func (b *clientBody) Read(p []byte) (int, error) {
	now := time.Now()
	b.control.SetReadDeadline(b.pace.deadline(now, slowGrace)) // not every server can
	n, err := b.ReadCloser.Read(p)
	if !b.pace.moved(n, time.Since(now), minSendRate) && err == nil {
		err = os.ErrDeadlineExceeded
	}
	if err == io.EOF {
		b.ended.Store(true)
		b.once.Do(func() { close(b.done) })
		b.control.SetReadDeadline(time.Time{}) // the answer may take longer
	}
	if err != nil && err != io.EOF && !errors.Is(err, http.ErrBodyReadAfterClose) {
		b.late.Store(errors.Is(err, os.ErrDeadlineExceeded))
		b.failed.Store(true)
		b.once.Do(func() { close(b.done) })
	}
	return n, err
}

// passOn streams a response that is this client's alone, but for what keep
// makes of it.
func (x *exchange) passOn(resp *http.Response, keep *keeper) {
	defer resp.Body.Close()
	whole := false
	defer func() { keep.end(whole); x.tee.end(whole) }()
	x.status.fwdStatus = resp.StatusCode
	h := x.w.Header()
	for name, lines := range received(resp.Header) {
		if name != vendorControl || x.q.has("Cdn-Loop") {
			h[name] = lines
		}
	}
	x.tellPeer(x.peerAsOf, resp.Header)
	if _, ok := h["Date"]; !ok {
		h["Date"] = []string{x.e.now().UTC().Format(http.TimeFormat)}
	}
	if resp.ContentLength >= 0 && bodyAllowed(resp.StatusCode) {
		h["Content-Length"] = []string{strconv.FormatInt(resp.ContentLength, 10)}
	}
	if resp.StatusCode < 200 {
		x.fail(http.StatusBadGateway, "the origin switched protocols")
		return
	}
	x.writeHeader(resp.StatusCode)
	if x.q.method == http.MethodHead || !bodyAllowed(resp.StatusCode) {
		return
	}
	flush := http.NewResponseController(x.w)
	buf := make([]byte, copyBytes)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			keep.add(buf[:n])
			x.tee.add(buf[:n])
			if _, werr := x.Write(buf[:n]); werr != nil {
				x.abort()
			}
		}
		if err == io.EOF {
			whole = true
			if resp.ContentLength < 0 {
				x.trailers(resp.Trailer)
			}
			return
		}
		if err != nil {
			x.e.log.Warn("response cut short", "url", x.e.shown(&x.q.target), "why", err)
			x.abort()
		}
		flush.Flush()
	}
}
