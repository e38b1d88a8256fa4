package control

import (
	"net/http"
	"time"

	"perigee.example/feed"
)

// Token is what is known of a token; never what it is.
type Token struct {
	Name    string     `json:"name"`
	Can     []string   `json:"can"`
	Sites   []string   `json:"sites,omitempty"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	// Used is its last use, to the minute if the control node was killed since.
	Used *time.Time `json:"used,omitempty"`
}

// TokenAdded answers a token's addition: the only time that it is shown.
type TokenAdded struct {
	Token
	Secret string `json:"token"`
}

// TokenList is every token, by name.
type TokenList struct {
	Tokens []Token   `json:"tokens"`
	Time   time.Time `json:"time"` // of the control node
	// Silent are control nodes that did not answer: a use there is not known.
	Silent []string `json:"silent,omitempty"`
}

// TokenRemoved answers a token's removal.
type TokenRemoved struct {
	Name string `json:"name"`
}

// TokenRequest is the body of an addition.
type TokenRequest struct {
	Name  string   `json:"name"`
	Can   []string `json:"can"`
	Sites []string `json:"sites,omitempty"`
	// ExpiresIn is in seconds; 0 is no end.
	ExpiresIn int64 `json:"expires_in,omitempty"`
}

func shown(t *token, used time.Time) Token {
	out := Token{Name: t.Name, Can: t.Can, Sites: t.Sites, Created: t.Created, Expires: t.Expires}
	if !used.IsZero() {
		out.Used = &used
	}
	return out
}

// ownToken answers /v1/token: what the caller may do.
func (s *Server) ownToken(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	c := callerOf(r)
	s.tokens.mu.RLock()
	defer s.tokens.mu.RUnlock()
	for i := range s.tokens.tokens {
		if t := &s.tokens.tokens[i]; t.Name == c.name {
			return shown(t, s.tokens.lastUse(t.Name)), nil
		}
	}
	return Token{Name: c.name, Can: c.rights.Can}, nil
}

func (s *Server) getTokens(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	uses, silent := s.usesOfAll(r.Context())
	out := TokenList{Tokens: []Token{}, Time: s.now().UTC(), Silent: silent}
	s.tokens.mu.RLock()
	defer s.tokens.mu.RUnlock()
	for i := range s.tokens.tokens {
		t := &s.tokens.tokens[i]
		out.Tokens = append(out.Tokens, shown(t, uses[t.Name]))
	}
	return out, nil
}

func (s *Server) addToken(w http.ResponseWriter, r *http.Request) (any, error) {
	var req TokenRequest
	if err := readJSON(w, r, &req); err != nil {
		return nil, err
	}
	remark(r, "token %.100s", req.Name)
	if err := feed.CheckID(req.Name); err != nil || req.Name == socketCaller {
		return nil, refuse(http.StatusBadRequest, "", "token name %.80q: only a-z, 0-9 and inner hyphens, and not %q", req.Name, socketCaller)
	}
	rights, err := Rights{Can: req.Can, Sites: req.Sites}.normal()
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "for example push and purge on a site, or read", "%v", err)
	}
	for _, site := range rights.Sites {
		if _, err := s.site(site); err != nil {
			return nil, err
		}
	}
	if req.ExpiresIn < 0 || req.ExpiresIn > int64(maxTokenLife/time.Second) {
		return nil, refuse(http.StatusBadRequest, "in seconds; 0 is no end", "expires_in must be from 0 to %d", int64(maxTokenLife/time.Second))
	}
	secret, t, err := s.tokens.add(req.Name, rights, time.Duration(req.ExpiresIn)*time.Second, s.now())
	if err != nil {
		return nil, err
	}
	return TokenAdded{Token: shown(&t, time.Time{}), Secret: secret}, nil
}

func (s *Server) removeToken(_ http.ResponseWriter, r *http.Request) (any, error) {
	name := r.PathValue("name")
	if err := s.tokens.remove(name); err != nil {
		return nil, err
	}
	return TokenRemoved{Name: name}, nil
}
