package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"perigee.example/feed"
	"perigee.example/origin"
)

// ClientConfig says how commands reach a control node: by Address with a token,
// or by Socket.
type ClientConfig struct {
	// Address is "https://host:port"; of several control nodes each one's, with a
	// comma between: the next is asked when one cannot be reached or may do nothing.
	Address   string
	TokenFile string
	Token     string // used when TokenFile is empty
	// CAFile is the fleet's ca.pem; with it, the control node is known by its
	// certificate of that CA, whatever its address. Without it, by the system's
	// roots and its host name.
	CAFile string
	CA     []byte // PEM; used when CAFile is empty
	Socket string // path of admin.sock; used when Address is empty
}

const (
	dialWait   = 5 * time.Second
	answerWait = maxWait + 15*time.Second
	// maxAnswerBytes bounds what a control node may answer: status of maxNodes nodes.
	maxAnswerBytes = 64 << 20
	maxTokenBytes  = 4 << 10
)

// Client calls the control API. Its errors are *Error when the control node
// refused, else they say what could not be reached. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	where string // for errors
	http  *http.Client

	addrs []string      // host:port of several control nodes
	at    atomic.Int32  // which is asked
	stall time.Duration // in place of stallWait; 0: as it is
}

// NewClient checks the configuration; it connects at the first call.
func NewClient(c ClientConfig) (*Client, error) {
	t := &http.Transport{
		TLSHandshakeTimeout: dialWait, ResponseHeaderTimeout: answerWait,
		MaxIdleConnsPerHost: uploaders, IdleConnTimeout: time.Minute, DisableCompression: true,
	}
	cl := &Client{http: &http.Client{
		Transport: t,
		// A control node never redirects; following one would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	dialer := &net.Dialer{Timeout: dialWait}
	if c.Address == "" {
		if c.Socket == "" {
			return nil, errors.New("no control node is named: give --control, run `perigee login`, or run this on the control node")
		}
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", c.Socket)
		}
		cl.base, cl.where = "http://perigee", c.Socket
		return cl, nil
	}
	var err error
	for _, address := range strings.Split(c.Address, ",") {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return nil, fmt.Errorf("control address %.100q: it must be https://host:port", address)
		}
		cl.addrs = append(cl.addrs, withPort(u))
		if cl.base == "" {
			cl.base, cl.where = "https://"+u.Host, c.Address
		}
	}
	if cl.token = c.Token; c.TokenFile != "" || c.Token == "" {
		if cl.token, err = readToken(c.TokenFile); err != nil {
			return nil, err
		}
	}
	t.DialContext = dialer.DialContext
	if len(cl.addrs) > 1 {
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { return cl.dial(ctx, dialer, network) }
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS13}
	pem := c.CA
	if c.CAFile != "" {
		if pem, err = os.ReadFile(c.CAFile); err != nil {
			return nil, err
		}
	}
	if len(pem) > 0 {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("control node %s: no certificate in the CA given: it must be the control node's ca.pem", c.Address)
		}
		t.TLSClientConfig.RootCAs, t.TLSClientConfig.ServerName = roots, feed.ServerName
	}
	return cl, nil
}

// withPort is where a URL's host is dialled.
func withPort(u *url.URL) string {
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return u.Host
}

// dial connects to the control node that is asked, else to the next.
func (c *Client) dial(ctx context.Context, d *net.Dialer, network string) (conn net.Conn, err error) {
	first := int(c.at.Load())
	for i := range c.addrs {
		at := (first + i) % len(c.addrs)
		if conn, err = d.DialContext(ctx, network, c.addrs[at]); err == nil {
			c.at.Store(int32(at))
			return conn, nil
		}
	}
	return nil, err
}

const (
	// elsewhereWait bounds how long a call goes from one control node to the next:
	// longer than they need to agree on another leader.
	elsewhereWait = 20 * time.Second
	// elsewherePause is between two such tries.
	elsewherePause = 500 * time.Millisecond
)

// send makes one call, at another control node if the one that is asked may do
// nothing, or fails, hangs or goes away before it has answered a call that may be made twice.
func (c *Client) send(req *http.Request, out any) error {
	for begun := time.Now(); ; {
		at := c.at.Load()
		err := c.sendOnce(req, out)
		if !c.elsewhere(req, err) {
			return err
		}
		c.moveOn(at)
		var e *Error
		again := errors.As(err, &e) && e.Elsewhere || mayRepeat(req)
		if !again || time.Since(begun) > elsewhereWait || req.Body != nil && req.GetBody == nil {
			return err
		}
		timer := time.NewTimer(elsewherePause)
		select {
		case <-timer.C:
		case <-req.Context().Done():
			timer.Stop()
			return err
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return err
			}
		}
	}
}

func readToken(path string) (string, error) {
	if path == "" {
		return "", errors.New("a token is needed over the network: give --token-file, or set PERIGEE_TOKEN_FILE")
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > maxTokenBytes {
		return "", fmt.Errorf("%s: %d bytes: not a token", path, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("%s: not one token", path)
	}
	return token, nil
}

// do makes one call: in is sent as JSON unless nil, out takes the answer.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.send(req, out)
}

func (c *Client) sendOnce(req *http.Request, out any) error {
	req, moved, end := c.watch(req)
	resp, err := c.start(req)
	if err != nil {
		return end(err)
	}
	defer resp.Body.Close()
	resp.Body = &watchedBody{resp.Body, moved}
	b, err := c.readAll(resp)
	if err = end(err); err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("control node %s: answer: %w", c.where, err)
	}
	return nil
}

func (c *Client) readAll(resp *http.Response) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, c.explain(err)
	}
	if len(b) > maxAnswerBytes {
		return nil, fmt.Errorf("control node %s: the answer has more than %d bytes", c.where, maxAnswerBytes)
	}
	return b, nil
}

// start sends a request and returns the answer, whose body the caller closes,
// when it is no refusal.
func (c *Client) start(req *http.Request) (*http.Response, error) {
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := c.readAll(resp)
	if err != nil {
		return nil, err
	}
	e := &Error{}
	if json.Unmarshal(b, e) != nil || e.Message == "" {
		return nil, fmt.Errorf("control node %s answered %s: is it one?", c.where, resp.Status)
	}
	e.Status = resp.StatusCode
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return nil, e
}

// explain adds the cure to errors of the connection.
func (c *Client) explain(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var op *net.OpError
	hint := ""
	switch {
	case errors.As(err, &unknown):
		hint = " (its certificate is not of the CA given: is this the right control node, and the right ca.pem?)"
	case errors.As(err, &host):
		hint = " (give the fleet's ca.pem, or an address that its certificate covers)"
	case errors.Is(err, fs.ErrPermission):
		hint = " (only the user that runs the control node may use its socket)"
	case errors.As(err, &op) && op.Op == "dial":
		hint = " (is the control node running?)"
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which is said already
	}
	return fmt.Errorf("control node %s: %w%s", c.where, err, hint)
}

func sitePath(site, rest string) string { return "/v1/sites/" + url.PathEscape(site) + rest }

// Activate makes a sealed release the active one of a channel ("" is prod).
// ifGeneration, when not nil, refuses with status 409 unless the channel is at
// that generation.
func (c *Client) Activate(ctx context.Context, site, channel string, release origin.Digest, ifGeneration *uint64) (out Activated, err error) {
	err = c.do(ctx, http.MethodPost, sitePath(site, "/activate"), activateRequest{release, channel, ifGeneration}, &out)
	return out, err
}

// Releases lists a site's releases, newest first.
func (c *Client) Releases(ctx context.Context, site string) (out ReleaseList, err error) {
	err = c.do(ctx, http.MethodGet, sitePath(site, "/releases"), nil, &out)
	return out, err
}

// Rollback activates an older release: the one that id is the beginning of, or,
// when id is "", the one that was active before. It returns which.
func (c *Client) Rollback(ctx context.Context, site, id string) (release origin.Digest, out Activated, err error) {
	list, err := c.Releases(ctx, site)
	if err != nil {
		return release, out, err
	}
	if release, err = pickRelease(list, id); err != nil {
		return release, out, err
	}
	out, err = c.Activate(ctx, site, origin.Prod, release, &list.Generation)
	return release, out, err
}

// findRelease finds the release that id is the beginning of.
func findRelease(list ReleaseList, id string) (found *ListRelease, err error) {
	for i := range list.Releases {
		r := &list.Releases[i]
		full := r.Release.String()
		if !strings.HasPrefix(full, id) && !strings.HasPrefix(full, "sha256-"+id) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("release %.80q of site %s is not clear: %s or %s: give more of it", id, list.Site, found.Release, r.Release)
		}
		found = r
	}
	if found == nil {
		return nil, fmt.Errorf("site %s has no release %.80q: `perigee releases %s` lists them", list.Site, id, list.Site)
	}
	return found, nil
}

// pickRelease finds the release to roll back to.
func pickRelease(list ReleaseList, id string) (origin.Digest, error) {
	var found *ListRelease
	if id != "" {
		r, err := findRelease(list, id)
		if err != nil {
			return origin.Digest{}, err
		}
		if found = r; r.Active {
			return origin.Digest{}, fmt.Errorf("release %s of site %s is active already", r.Release, list.Site)
		}
	}
	for i := range list.Releases {
		if r := &list.Releases[i]; id == "" && !r.Active && r.Activated != nil && (found == nil || r.Activated.After(*found.Activated)) {
			found = r
		}
	}
	if found == nil {
		return origin.Digest{}, fmt.Errorf("site %s has no release that was active before: `perigee releases %s` lists them", list.Site, list.Site)
	}
	return found.Release, nil
}

// Purge purges what p names; the site of a URL or prefix is found by its host.
// With dryRun it says what would be purged, and nothing is.
func (c *Client) Purge(ctx context.Context, p Purge, dryRun bool) (out Purged, err error) {
	req := struct {
		Purge
		DryRun bool `json:"dry_run,omitempty"`
	}{p, dryRun}
	err = c.do(ctx, http.MethodPost, "/v1/purge", req, &out)
	return out, err
}

// Drain takes an edge out of steering.
func (c *Client) Drain(ctx context.Context, edge string) (out Appended, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/drain", Drain{edge}, &out)
	return out, err
}

// Undrain takes it back in.
func (c *Client) Undrain(ctx context.Context, edge string) (out Appended, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/undrain", Drain{edge}, &out)
	return out, err
}

// Force says that an edge is "up" or "down" whatever its health, or "obey".
func (c *Client) Force(ctx context.Context, edge, force string) (out Appended, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/force", Force{edge, force}, &out)
	return out, err
}

// Receipts says which nodes have applied an entry. It returns when all have, or
// after wait (at most a minute).
func (c *Client) Receipts(ctx context.Context, seq uint64, wait time.Duration) (out Receipts, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/receipts?seq="+strconv.FormatUint(seq, 10)+"&wait="+url.QueryEscape(wait.String()), nil, &out)
	return out, err
}

// Status returns the whole picture.
func (c *Client) Status(ctx context.Context) (out Status, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/status", nil, &out)
	return out, err
}

// NodeAdd makes a node and returns the content of its credentials file. With
// replace, an existing node gets new ones and its old ones stop working.
func (c *Client) NodeAdd(ctx context.Context, name string, replace bool) (out NodeAdded, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/nodes", map[string]any{"name": name, "replace": replace}, &out)
	return out, err
}

// NodeRemove cuts a node off, at both doors, within 5 s.
func (c *Client) NodeRemove(ctx context.Context, name string) (out NodeRemoved, err error) {
	if err := feed.CheckID(name); err != nil {
		return out, err
	}
	err = c.do(ctx, http.MethodDelete, "/v1/nodes/"+name, nil, &out)
	return out, err
}

// Token says what the client's own token may do.
func (c *Client) Token(ctx context.Context) (out Token, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/token", nil, &out)
	return out, err
}

// Tokens lists the tokens.
func (c *Client) Tokens(ctx context.Context) (out TokenList, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/tokens", nil, &out)
	return out, err
}

// TokenAdd makes a token; the answer holds it, and is the only one that does.
func (c *Client) TokenAdd(ctx context.Context, req TokenRequest) (out TokenAdded, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/tokens", req, &out)
	return out, err
}

// TokenRemove takes a token away: the next call with it is refused.
func (c *Client) TokenRemove(ctx context.Context, name string) (out TokenRemoved, err error) {
	if err := feed.CheckID(name); err != nil {
		return out, err
	}
	err = c.do(ctx, http.MethodDelete, "/v1/tokens/"+name, nil, &out)
	return out, err
}

// Audit returns the newest n lines of the audit log, oldest first.
func (c *Client) Audit(ctx context.Context, n int) (out AuditLines, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/audit?limit="+strconv.Itoa(n), nil, &out)
	return out, err
}
