package control

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"perigee.example/feed"
)

// Appended answers a command: wait for receipts of Seq.
type Appended struct {
	Seq uint64 `json:"seq"`
}

func free(*State) error { return nil }

// drain answers /v1/drain and /v1/undrain.
func (s *Server) drain(w http.ResponseWriter, r *http.Request) (any, error) {
	var d Drain
	if err := readJSON(w, r, &d); err != nil {
		return nil, err
	}
	remark(r, "edge %.100s", d.Edge)
	kind := KindDrain
	if strings.HasSuffix(r.URL.Path, "/undrain") {
		kind = KindUndrain
	}
	return s.edgeCommand(r, kind, d.Edge, d)
}

func (s *Server) force(w http.ResponseWriter, r *http.Request) (any, error) {
	var f Force
	if err := readJSON(w, r, &f); err != nil {
		return nil, err
	}
	remark(r, "edge %.100s %.10s", f.Edge, f.Force)
	return s.edgeCommand(r, KindForce, f.Edge, f)
}

func (s *Server) edgeCommand(r *http.Request, kind, edge string, body any) (any, error) {
	if err := s.edge(edge); err != nil {
		// An edge that is gone from the configuration can still be let out of its drain.
		s.mu.Lock()
		_, drained := s.state.Drained[edge]
		_, forced := s.state.Forced[edge]
		s.mu.Unlock()
		if kind == KindDrain || !drained && !forced {
			return nil, err
		}
	}
	if f, ok := body.(Force); ok {
		if err := checkCommand(&f); err != nil {
			return nil, refuse(http.StatusBadRequest, "", "%v", err)
		}
	}
	e, err := s.command(r.Context(), kind, body, free)
	if err != nil {
		return nil, err
	}
	return Appended{Seq: e.Seq}, nil
}

// NodeAdded answers a node's addition. Credentials is the content of its file:
// the control node does not keep it.
type NodeAdded struct {
	Name        string `json:"name"`
	Credentials string `json:"credentials"`
}

func (s *Server) addNode(w http.ResponseWriter, r *http.Request) (any, error) {
	var req struct {
		Name    string `json:"name"`
		Replace bool   `json:"replace"` // the node's old credentials stop working
	}
	if err := readJSON(w, r, &req); err != nil {
		return nil, err
	}
	remark(r, "node %.100s", req.Name)
	if err := feed.CheckID(req.Name); err != nil {
		return nil, refuse(http.StatusBadRequest, "", "%v", err)
	}
	c := &Credentials{Name: req.Name, Feed: s.c.FeedAddress, Blobs: s.c.BlobAddress, Control: s.c.Addresses, CA: s.ca.cert}
	if addr := s.feed.Addr(); c.Feed == "" && addr != nil {
		c.Feed = addr.String()
	}
	if c.Feed == "" || c.Blobs == "" {
		return nil, refuse(http.StatusConflict, "set feed_listen and blob_listen in [control] and restart", "this control node has no door for nodes: every node runs in its process")
	}
	der, key, err := s.ca.issueNode(req.Name)
	if err != nil {
		return nil, err
	}
	if c.Cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	c.Key = key
	file, err := c.Encode()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	entry := nodeEntry{Name: req.Name, Cert: hex.EncodeToString(sum[:]), Added: s.now().UTC(), Until: c.Cert.NotAfter.UTC()}
	replaced, err := s.mayAdd(req.Name, req.Replace)
	if err != nil {
		return nil, err
	}
	// Told to the others before the list is changed: if the list cannot be, the
	// node's old certificate is refused a little early, and never a little late.
	// Among several control nodes the others know it from there.
	if err := s.tellCert(r.Context(), entry.Name, entry.Cert, replaced || s.c.Cluster != nil); err != nil {
		return nil, err
	}
	err = s.nodes.change(func(m map[string]nodeEntry) error {
		if old, there := m[req.Name]; there && !req.Replace && old.Cert != entry.Cert {
			return refuse(http.StatusConflict, "", "node %s was added just now", req.Name)
		}
		m[req.Name] = entry
		return nil
	})
	if err != nil {
		return nil, err
	}
	if replaced {
		if err := s.feed.RemoveNode(r.Context(), req.Name); err != nil {
			return nil, err
		}
	}
	if err := s.feed.AddNode(r.Context(), req.Name); err != nil {
		return nil, err
	}
	return NodeAdded{Name: req.Name, Credentials: string(file)}, nil
}

// mayAdd says whether a node may be added, and whether it replaces one.
func (s *Server) mayAdd(name string, replace bool) (replaced bool, err error) {
	switch replaced = s.nodes.has(name); {
	case replaced && !replace:
		return true, refuse(http.StatusConflict, "remove it first, or replace its credentials with --replace", "node %s exists", name)
	case !replaced && len(s.nodes.all()) >= maxNodes:
		return false, refuse(http.StatusConflict, "", "the fleet has %d nodes already", maxNodes)
	}
	return replaced, nil
}

// tellCert puts on the log which certificate is a node's only one. Of a node
// that had none before, and of whose name the log says nothing, there is nothing
// to say.
func (s *Server) tellCert(ctx context.Context, name, cert string, always bool) error {
	known := errors.New("as it is")
	_, err := s.command(ctx, KindNode, NodeCert{Node: name, Cert: cert}, func(st *State) error {
		if told, ok := st.Nodes[name]; !always && !ok || ok && told == cert {
			return known
		}
		return nil
	})
	if err == known {
		return nil
	}
	return err
}

// NodeRemoved answers a node's removal.
type NodeRemoved struct {
	Name string `json:"name"`
}

func (s *Server) removeNode(_ http.ResponseWriter, r *http.Request) (any, error) {
	name := r.PathValue("name")
	known := s.nodes.has(name)
	if known {
		if err := s.tellCert(r.Context(), name, "", true); err != nil {
			return nil, err
		}
	}
	err := s.nodes.change(func(m map[string]nodeEntry) error {
		if _, ok := m[name]; !ok && !known {
			var names []string
			for n := range m {
				names = append(names, n)
			}
			return refuse(http.StatusNotFound, exist("nodes", names), "no node is called %.100q", name)
		}
		delete(m, name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.reportMu.Lock()
	delete(s.reports, name)
	s.reportMu.Unlock()
	s.wake()
	// The list is saved, so the node is out whatever happens to this call.
	if err := s.feed.RemoveNode(r.Context(), name); err != nil {
		return nil, err
	}
	return NodeRemoved{Name: name}, nil
}
