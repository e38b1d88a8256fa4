package feed

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	insideUser   = "perigee-inside"
	inboxPrefix  = "_INBOX."
	reportPrefix = "report."
	// selfInbox is where answers to the server's own requests go. It is no
	// valid node name (CheckID), so no node's rights ever cover it.
	selfInbox = "SELF"
)

// authenticator decides who may connect, and with what rights. This process's
// own connections show a random secret that never leaves its memory; everyone
// else is a node, known by its verified certificate alone.
type authenticator struct{ s *Server }

// Check implements server.Authentication.
func (a authenticator) Check(c server.ClientAuthentication) bool {
	opts := c.GetOpts()
	state := c.GetTLSConnectionState()
	if state == nil {
		ok := opts.Username == insideUser && subtle.ConstantTimeCompare([]byte(opts.Password), []byte(a.s.secret)) == 1
		if ok {
			c.RegisterUser(&server.User{Username: insideUser})
		}
		return ok
	}
	id, cert, err := PeerID(state)
	if err != nil {
		a.s.events.Warn("feed connection refused", "from", c.RemoteAddress().String(), "why", err)
		return false
	}
	if !a.s.admit(id, cert) {
		a.s.events.Warn("feed connection refused", "from", c.RemoteAddress().String(), "node", id, "why", "not a node of this fleet (removed?)")
		return false
	}
	a.s.track(c.GetID(), id)
	// Asked again, since the node may have been removed between the two lines
	// above: RemoveNode cuts what is tracked, and this refuses what is not yet.
	if !a.s.admit(id, cert) {
		return false
	}
	account, err := a.s.account(id)
	if err != nil {
		a.s.events.Error("feed connection refused", "node", id, "why", err)
		return false
	}
	c.RegisterUser(&server.User{Username: id, Permissions: nodeRights(id), Account: account})
	return true
}

// nodeRights are exactly what a follower needs: to ask for the next entries of
// its own place, to acknowledge them, to report in its own name, and to get
// answers in an inbox of its own.
func nodeRights(id string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: nodeSubjects(id)},
		Subscribe: &server.SubjectPermission{Allow: []string{inboxPrefix + id + ".>"}},
	}
}

// track remembers which node a connection is, so that it can be cut. Entries of
// connections that ended are swept when the table is twice as large as can be open.
func (s *Server) track(cid uint64, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= 2*maxConns {
		for old := range s.conns {
			if s.ns.GetClient(old) == nil {
				delete(s.conns, old)
			}
		}
	}
	s.conns[cid] = id
}

// natsLog turns the embedded server's log lines into events: warnings and
// errors only, its notices are about itself.
type natsLog struct {
	log   *slog.Logger
	fatal chan<- string // takes the first line of a failed start
}

func (n natsLog) Noticef(format string, v ...any) { n.log.Debug("nats", "line", line(format, v)) }
func (n natsLog) Warnf(format string, v ...any) {
	text := line(format, v)
	if strings.HasPrefix(text, "TLS certificate chain and hostname of solicited routes") {
		return // ClusterConfig.tls verifies them
	}
	n.log.Warn("nats", "line", text)
}
func (n natsLog) Errorf(format string, v ...any) {
	text := line(format, v)
	if strings.HasPrefix(text, "Error trying to connect to route") { // every second for each that is away
		n.log.Debug("nats", "line", text)
		return
	}
	n.log.Warn("nats", "line", text)
}
func (n natsLog) Debugf(string, ...any) {}
func (n natsLog) Tracef(string, ...any) {}

// Fatalf is where nats-server's own program would end.
func (n natsLog) Fatalf(format string, v ...any) {
	n.log.Error("nats", "line", line(format, v))
	select {
	case n.fatal <- line(format, v):
	default:
	}
}

func line(format string, v []any) string { return strings.TrimSpace(fmt.Sprintf(format, v...)) }
