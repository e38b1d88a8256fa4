package feed

import (
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
)

// A node may name any reply subject in its requests, and the server sends the
// answer there with its own rights. Were nodes in the account of the log, a
// stolen node key could have an empty answer sent to $JS.API.STREAM.DELETE.FEED.
// So each node is in an account of its own, without JetStream, whose only ways
// out are the node's own four subjects: an answer stays in that account.

const (
	msgNextPrefix = "$JS.API.CONSUMER.MSG.NEXT." + streamName + "."
	infoPrefix    = "$JS.API.CONSUMER.INFO." + streamName + "."
	ackPrefix     = "$JS.ACK." + streamName + "."
)

// nodeExports are the subjects of the log's account that node accounts may import.
var nodeExports = []struct {
	subject   string
	responses server.ServiceRespType
}{
	{msgNextPrefix + "*", server.Streamed}, // one request, many entries
	{infoPrefix + "*", server.Singleton},
	{ackPrefix + ">", server.Singleton},
	{reportPrefix + "*.*", server.Singleton},
}

// nodeSubjects are what one node may publish to, and its account imports.
func nodeSubjects(id string) []string {
	return []string{msgNextPrefix + id, infoPrefix + id, ackPrefix + id + ".>", reportPrefix + id + ".*"}
}

// export offers the log's subjects to the accounts of nodes.
func (s *Server) export() error {
	for _, e := range nodeExports {
		if err := s.ns.GlobalAccount().AddServiceExportWithResponse(e.subject, e.responses, nil); err != nil {
			return fmt.Errorf("feed: export %s: %w", e.subject, err)
		}
	}
	return nil
}

// account returns a node's account, made at its first connection. One that is
// removed leaves an empty account behind until the next start.
func (s *Server) account(id string) (*server.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[id]; a != nil {
		return a, nil
	}
	a, _ := s.ns.LookupOrRegisterAccount("node." + id)
	for _, subject := range nodeSubjects(id) {
		if err := a.AddServiceImport(s.ns.GlobalAccount(), subject, subject); err != nil {
			return nil, fmt.Errorf("feed: account of node %s: %w", id, err)
		}
	}
	s.accounts[id] = a
	return a, nil
}
