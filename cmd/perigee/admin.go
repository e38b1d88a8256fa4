package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"perigee.example/internal/config"
	"perigee.example/zones"
)

// adminSocket is the name of each process's admin socket in its state folder.
// It is 0600: who may open the file may command the process.
const adminSocket = "admin.sock"

// maxSocketPath is the longest path that a unix socket may have (104 on the
// BSDs and macOS, 108 on Linux, each with the final NUL).
const maxSocketPath = 103

// localStatus is what a process says of itself on its admin socket.
type localStatus struct {
	Role      string           `json:"role"` // dns, control, edge, or several with "+"
	Name      string           `json:"name,omitempty"`
	PID       int              `json:"pid"`
	Version   string           `json:"version"`
	Started   time.Time        `json:"started"`
	Ready     bool             `json:"ready"`
	Config    string           `json:"config,omitempty"` // hash of perigee.toml
	Problems  []string         `json:"problems,omitempty"`
	Zones     []zoneStatus     `json:"zones,omitempty"`
	Endpoints []endpointStatus `json:"endpoints,omitempty"`
	Feed      *feedStatus      `json:"feed,omitempty"`
}

// zoneStatus is one zone of a DNS node.
type zoneStatus struct {
	Origin  string `json:"origin"`
	Serial  uint32 `json:"serial"`
	Names   int    `json:"names"`
	Problem string `json:"problem,omitempty"`
}

// endpointStatus is what a DNS node thinks of one endpoint.
type endpointStatus struct {
	Name     string `json:"name"`
	Health   string `json:"health"` // up, down, unknown
	Why      string `json:"why,omitempty"`
	Draining bool   `json:"draining,omitempty"`
	Force    string `json:"force,omitempty"`
}

// feedStatus is a node's place on the feed.
type feedStatus struct {
	Connected bool      `json:"connected"`
	LostSince time.Time `json:"lost_since,omitzero"`
	Applied   uint64    `json:"applied"`
}

// part is one role that a process plays. A process may play several.
type part interface {
	// status adds what the part knows to s.
	status(s *localStatus)
	// configure takes a new configuration whole, or keeps the old one whole and
	// says why.
	configure(ctx context.Context, cfg *config.Config) error
	// reload reads the part's files again: zones, databases, certificates. One
	// that is bad keeps its last good version; the error says so.
	reload(ctx context.Context) error
}

// admin serves a process's admin socket.
type admin struct {
	parts   []part
	control http.Handler // the control API, on a control node
	accept  func(zone string) error
	zone    func(name string) (*zones.Zone, error) // as it is served
	reload  func(ctx context.Context) error
	upgrade func() (pid int, err error)
	about   func(*localStatus) // what the process as a whole has to say
	ready   atomic.Bool
	socket  atomic.Pointer[net.UnixListener]
	server  atomic.Pointer[http.Server]
	started time.Time
	log     *slog.Logger
}

// handOver leaves the socket's path to the next process.
func (a *admin) handOver() {
	if l := a.socket.Load(); l != nil {
		l.SetUnlinkOnClose(false)
	}
}

// takeBack listens at the socket's path again, which the next process had and
// has died with.
func (a *admin) takeBack() error {
	old, srv := a.socket.Load(), a.server.Load()
	if old == nil || srv == nil {
		return nil // a process without state folder has none
	}
	path := old.Addr().String()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := listenPrivate(path)
	if err != nil {
		return err
	}
	a.socket.Store(l)
	go srv.Serve(l) // until the server is shut down
	return nil
}

// serve listens on the socket in dir until ctx is done.
func (a *admin) serve(ctx context.Context, dir string) error {
	path := filepath.Join(dir, adminSocket)
	if len(path) > maxSocketPath {
		return withHint(fmt.Errorf("%s is too long for a unix socket (%d bytes, at most %d)", path, len(path), maxSocketPath), "name a shorter state folder with --state DIR")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // of a process that ended without removing it: the folder's lock is ours
	}
	l, err := listenPrivate(path)
	if err != nil {
		return err
	}
	a.socket.Store(l)
	srv := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn)}
	a.server.Store(srv)
	ended := make(chan struct{})
	context.AfterFunc(ctx, func() { // who asked for an upgrade gets the answer
		defer close(ended)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminShutdown)
		defer cancel()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
	})
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-ended
	return nil
}

// adminShutdown is how long commands under way may take at the end.
const adminShutdown = time.Second

// listenPrivate opens a unix socket of mode 0600. The folder is 0700 already;
// the mode says it once more.
func listenPrivate(path string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/local", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, a.status())
	})
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) {
		if err := a.reload(r.Context()); err != nil {
			writeError(w, http.StatusUnprocessableEntity, err)
			return
		}
		writeJSON(w, http.StatusOK, a.status())
	})
	mux.HandleFunc("POST /v1/upgrade", func(w http.ResponseWriter, _ *http.Request) {
		pid, err := a.upgrade()
		if err != nil {
			writeError(w, http.StatusConflict, err)
			return
		}
		writeJSON(w, http.StatusOK, upgradeResult{Old: os.Getpid(), New: pid})
	})
	mux.HandleFunc("POST /v1/zones/accept", func(w http.ResponseWriter, r *http.Request) {
		if a.accept == nil {
			writeError(w, http.StatusNotFound, errNoDNS)
			return
		}
		if err := a.accept(r.URL.Query().Get("zone")); err != nil {
			writeError(w, http.StatusConflict, err)
			return
		}
		writeJSON(w, http.StatusOK, a.status())
	})
	mux.HandleFunc("GET /v1/zones/text", a.zoneText)
	if a.control != nil {
		mux.Handle("/", a.control)
	}
	return mux
}

// errNoDNS is for questions about zones where there are none.
var errNoDNS = withHint(errors.New("this process serves no DNS"), "--state DIR names the state folder of the one that does")

// zoneText hands out a zone as it is served, as a master file.
func (a *admin) zoneText(w http.ResponseWriter, r *http.Request) {
	if a.zone == nil {
		writeError(w, http.StatusNotFound, errNoDNS)
		return
	}
	z, err := a.zone(r.URL.Query().Get("zone"))
	if err != nil {
		writeError(w, http.StatusNotFound, err)
		return
	}
	w.Header().Set("Content-Type", "text/dns") // RFC 4027
	if z.WriteText(w) != nil {
		panic(http.ErrAbortHandler) // so that nobody takes a part for the whole
	}
}

func (a *admin) status() localStatus {
	s := localStatus{PID: os.Getpid(), Version: version(), Started: a.started, Ready: a.ready.Load()}
	a.about(&s)
	for _, p := range a.parts {
		p.status(&s)
	}
	return s
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nothing to tell it
}

// adminError is an error on the admin socket. Lines is the whole of it as the
// command line shows it, with carets and cures.
type adminError struct {
	Error string `json:"error"`
	Lines string `json:"lines,omitempty"`
}

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, adminError{err.Error(), errorLines(err)})
}

// localTimeout bounds one question to an admin socket. A reload of large zones
// takes a while.
const localTimeout = 60 * time.Second

// localCall sends one request to the admin socket in a state folder and decodes
// its answer into v.
func localCall(ctx context.Context, dir, method, path string, query url.Values, v any) error {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	return localDo(ctx, dir, method, path, query, func(body io.Reader) error { return json.NewDecoder(body).Decode(v) })
}

// localDo is localCall for an answer that read reads, in as much time as ctx has.
func localDo(ctx context.Context, dir, method, path string, query url.Values, read func(io.Reader) error) error {
	socket := filepath.Join(dir, adminSocket)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	u := url.URL{Scheme: "http", Host: "local", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return withHint(fmt.Errorf("no perigee answers at %s: %w", socket, errors.Unwrap(err)), "is it running? --state DIR names its state folder")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var e adminError
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Error == "" {
			return fmt.Errorf("%s: %s", socket, resp.Status)
		}
		if e.Lines == "" {
			return errors.New(e.Error)
		}
		return &remoteError{e.Error, e.Lines}
	}
	return read(resp.Body)
}

// askLocal asks the process with this state folder for its status.
func askLocal(ctx context.Context, dir string) (*localStatus, error) {
	var s localStatus
	if err := localCall(ctx, dir, http.MethodGet, "/v1/local", nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}
