package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"perigee.example/feed"
	"perigee.example/internal/bucket"
	"perigee.example/origin"
)

const (
	// maxJSONBytes bounds the body of a command; manifests and blobs have their own bounds.
	maxJSONBytes = 64 << 10
	// MaxBlobBytes bounds one file of a release.
	MaxBlobBytes = 5 << 30
)

// Error is what the API answers when it refuses: status, what, and the cure.
type Error struct {
	Status  int           `json:"-"`
	Message string        `json:"error"`
	Hint    string        `json:"hint,omitempty"`
	Missing []origin.Blob `json:"missing,omitempty"` // of a release that is not whole
	// Elsewhere: nothing was done here, and another control node may do it.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// RetryAfter is when to try again, at a client that was told; 0: it was not.
	RetryAfter time.Duration `json:"-"`
}

func (e *Error) Error() string {
	if e.Hint != "" {
		return e.Message + " (" + e.Hint + ")"
	}
	return e.Message
}

func refuse(status int, hint, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// call is one call of the API: it answers with a value for JSON, or an error.
type call func(w http.ResponseWriter, r *http.Request) (any, error)

// socketCaller is who comes by the admin socket.
const socketCaller = "socket"

// AdminHandler is the control API for TCP: a bearer token always, and nothing
// that a web page in someone's browser could send.
func (s *Server) AdminHandler() http.Handler {
	api := s.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, err := s.authenticate(w, r)
		if err != nil {
			s.answer(w, r, nil, err)
			return
		}
		api.ServeHTTP(w, withCaller(r, &actor{t.Name, t.Rights}))
	})
}

// authenticate finds the token of a request (RFC 6750 §2.1, §3). An address
// that has failed too often has to wait, whatever it shows next.
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request) (*token, error) {
	now, from := s.now(), addressOf(r)
	rate := float64(s.known.Load().Limits.Failures) / 60
	burst := rate * 60 * failureBurst
	if wait := s.failures.wait(from, rate, burst, now); wait > 0 {
		return nil, tooMany(w, wait, "wait, and use a token that is valid", "too many calls without a valid token from %s", from)
	}
	t, err := s.tokenFor(w, r, now)
	if err != nil {
		s.failures.take(from, 1, rate, burst, now)
		if s.failures.wait(from, rate, burst, now) > 0 {
			s.log.Warn("too many calls without a valid token: the address has to wait", "from", from)
		}
		return nil, err
	}
	s.tokens.use(t.Name, now)
	return t, nil
}

func (s *Server) tokenFor(w http.ResponseWriter, r *http.Request, now time.Time) (*token, error) {
	if err := s.checkOrigin(r); err != nil {
		return nil, err
	}
	why, code := "a valid token is needed", ""
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if ok && len(r.Header.Values("Authorization")) == 1 {
		t := s.tokens.of(secret)
		if t != nil && !t.expired(now) {
			return t, nil
		}
		code = `, error="invalid_token"`
		if t != nil {
			why = fmt.Sprintf("token %s expired on %s", t.Name, t.Expires.Format(time.DateOnly))
		}
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="perigee"`+code)
	return nil, refuse(http.StatusUnauthorized, "use the token in the control node's admin.token, or run `perigee login`", "%s", why)
}

// LocalHandler is the control API for the admin unix socket, whose permission
// is the credential.
func (s *Server) LocalHandler() http.Handler {
	api := s.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" {
			s.answer(w, r, nil, refuse(http.StatusForbidden, "", "requests from web pages are refused"))
			return
		}
		api.ServeHTTP(w, withCaller(r, &actor{socketCaller, Rights{Can: []string{CanAdmin}}}))
	})
}

// checkOrigin refuses what a browser may send on behalf of a page: any Origin
// field, and a Host that is a name we do not have (DNS rebinding makes a
// stranger's name resolve to us; addresses cannot be rebound).
func (s *Server) checkOrigin(r *http.Request) error {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Mode") != "" {
		return refuse(http.StatusForbidden, "", "requests from web pages are refused")
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if net.ParseIP(host) != nil || host == "localhost" || host == feed.ServerName || slices.Contains(s.ca.names, host) {
		return nil
	}
	return refuse(http.StatusForbidden, "add https://"+host+" to [control] addresses if it is this node's name", "this control node is not called %.100q", host)
}

// route is one call and the right that it needs.
type route struct {
	need need
	call call
}

// table is the API. Adding a call: one line here, one in docs/ARCHITECTURE.md,
// its description in openapi.json, one method of Client.
func (s *Server) table() map[string]route {
	return map[string]route{
		"POST /v1/sites/{site}/releases":             {needPush, s.postRelease},
		"GET /v1/sites/{site}/releases":              {needReleases, s.getReleases},
		"PUT /v1/sites/{site}/blobs/{digest}":        {needPush, s.putBlob},
		"GET /v1/sites/{site}/blobs/{digest}":        {needPush, s.getPart},
		"PUT /v1/sites/{site}/blobs":                 {needPush, s.putBatch},
		"PUT /v1/sites/{site}/pages/{digest}":        {needPush, s.putPage},
		"POST /v1/sites/{site}/releases/{id}/seal":   {needPush, s.seal},
		"POST /v1/sites/{site}/activate":             {needPush, s.activate},
		"POST /v1/sites/{site}/forget":               {needPush, s.forget},
		"GET /v1/sites/{site}/channels":              {needReleases, s.getChannels},
		"DELETE /v1/sites/{site}/channels/{channel}": {needPush, s.deleteChannel},
		"POST /v1/purge":                             {needPurge, s.purge},
		"POST /v1/purges":                            {needPurge, s.purgeMany},
		"POST /v1/drain":                             {needDrain, s.drain},
		"POST /v1/undrain":                           {needDrain, s.drain},
		"POST /v1/force":                             {needDrain, s.force},
		"GET /v1/receipts":                           {needToken, s.receipts},
		"GET /v1/status":                             {needRead, s.status},
		"POST /v1/nodes":                             {needAdmin, s.addNode},
		"DELETE /v1/nodes/{name}":                    {needAdmin, s.removeNode},
		"GET /v1/token":                              {needToken, s.ownToken},
		"GET /v1/tokens":                             {needAdmin, s.getTokens},
		"POST /v1/tokens":                            {needAdmin, s.addToken},
		"DELETE /v1/tokens/{name}":                   {needAdmin, s.removeToken},
		"GET /v1/audit":                              {needAdmin, s.getAudit},
		"GET /v1/backup":                             {needAdmin, s.getBackup},
		"GET /v1/openapi.json":                       {needToken, s.getOpenAPI},
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, rt := range s.table() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r = r.WithContext(context.WithValue(r.Context(), remarkKey{}, new(string)))
			if err := s.admit(w, r, rt.need); err != nil {
				s.answer(w, r, nil, err)
				return
			}
			v, err := rt.call(w, r)
			s.answer(w, r, v, err)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// One spelling of each path: "/sites/a/../b" and "/sites/%61" are nobody's site.
		if r.URL.RawPath != "" || path.Clean(r.URL.Path) != r.URL.Path || strings.Contains(r.RequestURI, "%") && strings.Contains(cutQuery(r.RequestURI), "%") {
			s.answer(w, r, nil, refuse(http.StatusBadRequest, "", "the path %.100q is not in its plain form", r.URL.EscapedPath()))
			return
		}
		if _, pattern := mux.Handler(r); pattern == "" {
			// ServeMux answers 404 and 405 by itself, but not in JSON.
			s.notFound(w, r, mux)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// admit says whether a call may begin: its caller has the right, keeps to its
// rate, and what it changes can be written down.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, n need) error {
	c := callerOf(r)
	if !c.rights.allowed(n, r) {
		return forbidden(w, r, n)
	}
	if rate := float64(s.known.Load().Limits.Calls); r.Method != http.MethodPut && n != needPurge { // files come as fast as they can; purges have a rate of their own
		if wait := s.calls.take(c.name, 1, rate, rate*callBurst, s.now()); wait > 0 {
			return tooMany(w, wait, "wait a little between calls", "more than %.0f calls a second", rate)
		}
	}
	if r.Method != http.MethodGet {
		return s.audit.ready()
	}
	return nil
}

func cutQuery(uri string) string {
	p, _, _ := strings.Cut(uri, "?")
	return p
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe := &http.Request{Method: m, URL: r.URL, Host: r.Host}
		if _, pattern := mux.Handler(probe); pattern != "" {
			w.Header().Add("Allow", m)
		}
	}
	if w.Header().Get("Allow") != "" {
		s.answer(w, r, nil, refuse(http.StatusMethodNotAllowed, "", "%s is not possible here", r.Method))
		return
	}
	s.answer(w, r, nil, refuse(http.StatusNotFound, "docs/ARCHITECTURE.md lists the calls", "no call %.100q", r.URL.Path))
}

// answer writes v or err as JSON, after the call's line in the audit log.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	status := http.StatusOK
	if err != nil {
		e := asError(err)
		if e.Status >= 500 {
			s.log.Error("control call failed", "call", r.Method+" "+r.URL.Path, "err", err)
		}
		v, status = e, e.Status
	}
	s.record(r, status, err)
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if write, ok := v.(stream); ok {
		h.Set("Content-Type", "application/octet-stream")
		w.WriteHeader(status)
		if err := write(w); err != nil {
			s.log.Error("answer broken off", "call", r.Method+" "+r.URL.Path, "err", err)
			panic(http.ErrAbortHandler) // net/http cuts the connection and says nothing
		}
		return
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// Not json.Marshal: what is missing of a large release are tens of MiB, and that copies them.
	if err := json.NewEncoder(w).Encode(v); err != nil { // most likely the caller's connection is gone
		s.log.Debug("answer not written", "call", r.Method+" "+r.URL.Path, "err", err)
	}
}

// asError gives every error a status.
func asError(err error) *Error {
	var e *Error
	var big *http.MaxBytesError
	var mismatch *origin.MismatchError
	var away *bucket.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &away):
		e := refuse(http.StatusServiceUnavailable, away.Hint, "%v; nothing was changed", away)
		e.Elsewhere = true // another control node may get through
		return e
	case errors.As(err, &big):
		return refuse(http.StatusRequestEntityTooLarge, "", "the body has more than %d bytes", big.Limit)
	case errors.As(err, &mismatch):
		return refuse(http.StatusUnprocessableEntity, "the file changed while it was sent: push again", "%v", err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return refuse(http.StatusInsufficientStorage, "make room on the control node; nothing was changed", "disk full: %v", err)
	case errors.Is(err, syscall.EROFS):
		return refuse(http.StatusInsufficientStorage, "see to the control node's disk; nothing was changed", "disk read-only: %v", err)
	}
	return refuse(http.StatusInternalServerError, "the control node's log says more", "%v", err)
}

// readJSON reads a command's body: JSON by its type, of v's shape exactly.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	return readJSONUpTo(w, r, maxJSONBytes, v)
}

func readJSONUpTo(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "send Content-Type: application/json", "the body must be JSON")
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return readError(err)
	}
	if !utf8.Valid(b) { // encoding/json would read it as U+FFFD
		return refuse(http.StatusBadRequest, "", "the body is not UTF-8")
	}
	if err := decodeStrict(bytes.NewReader(b), v); err != nil {
		return refuse(http.StatusBadRequest, "", "the body is not what this call takes: %v", err)
	}
	return nil
}

// query returns the only value of a query parameter, or "", and refuses unknown ones.
func query(r *http.Request, allowed ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "", "the query cannot be parsed")
	}
	for k, v := range q {
		if !slices.Contains(allowed, k) || len(v) != 1 {
			return nil, refuse(http.StatusBadRequest, "allowed: "+strings.Join(allowed, ", "), "query parameter %.40q is unknown or given twice", k)
		}
	}
	return q, nil
}

// site finds a site of the configuration.
func (s *Server) site(name string) (*KnownSite, error) {
	known := s.known.Load()
	var names []string
	for i := range known.Sites {
		if known.Sites[i].Name == name {
			return &known.Sites[i], nil
		}
		names = append(names, known.Sites[i].Name)
	}
	return nil, refuse(http.StatusNotFound, exist("sites", names), "no site is called %.100q", name)
}

// pushSite finds a site that takes releases.
func (s *Server) pushSite(name string) error {
	site, err := s.site(name)
	if err != nil {
		return err
	}
	if !site.Push {
		return refuse(http.StatusConflict, "set push = true in [site."+name+"]", "site %s takes no releases", name)
	}
	return nil
}

func (s *Server) edge(name string) error {
	known := s.known.Load()
	if slices.Contains(known.Edges, name) {
		return nil
	}
	return refuse(http.StatusNotFound, exist("edges", known.Edges), "no edge is called %.100q", name)
}

// exist is the hint of a name that does not.
func exist(what string, names []string) string {
	if len(names) == 0 {
		return "perigee.toml of the control node has no " + what
	}
	return what + ": " + strings.Join(names, ", ")
}

// siteOf finds the site that a host belongs to: by its exact name, else by a
// wildcard that covers one label.
func (s *Server) siteOf(host string) (string, error) {
	known := s.known.Load()
	wild := ""
	if _, parent, ok := strings.Cut(host, "."); ok {
		wild = "*." + parent
	}
	found := ""
	var hosts []string
	for _, site := range known.Sites {
		hosts = append(hosts, site.Hosts...)
		if slices.Contains(site.Hosts, host) {
			return site.Name, nil
		}
		if wild != "" && slices.Contains(site.Hosts, wild) {
			found = site.Name
		}
	}
	if found == "" {
		return "", refuse(http.StatusNotFound, exist("hosts", hosts), "no site has the host %.100q", host)
	}
	return found, nil
}
