package control

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/durable"
)

const (
	tokenName    = "admin.token"
	tokensName   = "tokens.json"
	tokenUseName = "token-use.json"
	tokenPrefix  = "perigee_" // so that secret scanners can know one
	// tokensVersion is that of tokens.json. Version 0 was a bare list, whose
	// tokens are all administrators'.
	tokensVersion = 1
	// maxTokens bounds the tokens: each is compared at each call.
	maxTokens = 500
	// maxTokenLife bounds how long a token with an end lives.
	maxTokenLife = 10 * 365 * 24 * time.Hour
	// useEvery is how exactly the last use of a token is kept on disk.
	useEvery = time.Minute
)

// token is one entry of tokens.json. The token itself is 128 random bits or
// more, so a plain hash cannot be searched.
type token struct {
	Name    string     `json:"name"`
	SHA256  string     `json:"sha256"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"` // none: it does not
	Rights
}

// tokenList is who may call. Changes are saved before they count.
type tokenList struct {
	path, usePath string
	log           *slog.Logger
	// share, when there are several control nodes, puts a change on the log, from
	// where every one of them takes it; nil when alone.
	share func(TokenChange) error

	mu     sync.RWMutex
	tokens []token

	useMu sync.Mutex
	used  map[string]time.Time // by name: the last use
	saved time.Time            // of used
}

// openTokens reads the tokens' hashes, or makes the admin token at the first
// start. made is the path of its file then.
func openTokens(dir string, now time.Time, log *slog.Logger) (l *tokenList, made string, err error) {
	l = &tokenList{path: filepath.Join(dir, tokensName), usePath: filepath.Join(dir, tokenUseName), log: log, used: map[string]time.Time{}}
	b, err := readFile(l.path, maxListBytes)
	if err == nil {
		l.tokens, err = parseTokens(b)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", l.path, err) // never "no tokens, so all may": refuse to start
		}
		return l, "", l.readUse()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	secret, t := newToken("admin", Rights{Can: []string{CanAdmin}}, now)
	made = filepath.Join(dir, tokenName)
	if err := durable.WriteFile(made, []byte(secret+"\n"), 0o600); err != nil {
		return nil, "", err
	}
	l.tokens = []token{t}
	return l, made, l.save(l.tokens)
}

func newToken(name string, rights Rights, now time.Time) (secret string, t token) {
	secret = tokenPrefix + rand.Text()
	sum := sha256.Sum256([]byte(secret))
	return secret, token{Name: name, SHA256: hex.EncodeToString(sum[:]), Created: now.UTC(), Rights: rights}
}

// tokensFile is tokens.json.
type tokensFile struct {
	Version int     `json:"version"`
	Tokens  []token `json:"tokens"`
}

// parseTokens reads tokens.json of any version up to ours. What is not
// understood to the last field is an error: a field that is passed over might
// have been a limit of a right.
func parseTokens(b []byte) ([]token, error) {
	const cure = "restore the file from a backup, or remove it for a new admin token"
	if strings.HasPrefix(strings.TrimSpace(string(b)), "[") {
		var list []token
		if err := decodeStrict(bytes.NewReader(b), &list); err != nil {
			return nil, fmt.Errorf("%w: %s", err, cure)
		}
		for i := range list {
			if list[i].Can == nil {
				list[i].Can = []string{CanAdmin}
			}
		}
		return list, checkTokens(list)
	}
	var head struct{ Version int }
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("%w: %s", err, cure)
	}
	if head.Version != tokensVersion {
		return nil, fmt.Errorf("version %d is not known here (only 0 and %d): update the control node", head.Version, tokensVersion)
	}
	var f tokensFile
	if err := decodeStrict(bytes.NewReader(b), &f); err != nil {
		return nil, fmt.Errorf("%w: %s", err, cure)
	}
	return f.Tokens, checkTokens(f.Tokens)
}

func checkTokens(list []token) error {
	for i, t := range list {
		if err := feed.CheckID(t.Name); err != nil {
			return err
		}
		if b, err := hex.DecodeString(t.SHA256); err != nil || len(b) != sha256.Size {
			return fmt.Errorf("token %s: sha256 is none", t.Name)
		}
		if _, err := t.normal(); err != nil {
			return fmt.Errorf("token %s: %w", t.Name, err)
		}
		if slices.ContainsFunc(list[:i], func(o token) bool { return o.Name == t.Name }) {
			return fmt.Errorf("token %s stands there twice", t.Name)
		}
	}
	return nil
}

func (l *tokenList) save(list []token) error {
	return writeList(l.path, tokensFile{Version: tokensVersion, Tokens: list})
}

// of returns the token that the secret is, or nil. Every entry is compared, in
// constant time.
func (l *tokenList) of(secret string) *token {
	sum := sha256.Sum256([]byte(secret))
	got := []byte(hex.EncodeToString(sum[:]))
	l.mu.RLock()
	defer l.mu.RUnlock()
	var found *token
	for i := range l.tokens {
		if subtle.ConstantTimeCompare(got, []byte(l.tokens[i].SHA256)) == 1 {
			found = &l.tokens[i]
		}
	}
	if found == nil {
		return nil
	}
	t := *found
	return &t
}

// expired reports whether the token's time is up.
func (t *token) expired(now time.Time) bool { return t.Expires != nil && !now.Before(*t.Expires) }

// add makes a token and returns its secret, which is kept nowhere.
func (l *tokenList) add(name string, rights Rights, life time.Duration, now time.Time) (secret string, t token, err error) {
	secret, t = newToken(name, rights, now)
	if life > 0 {
		end := now.Add(life).UTC().Truncate(time.Second)
		t.Expires = &end
	}
	err = l.change(func(list []token) ([]token, error) {
		if slices.ContainsFunc(list, func(o token) bool { return o.Name == name }) {
			return nil, tokenExists(name)
		}
		if len(list) >= maxTokens {
			return nil, refuse(409, "`perigee token list` shows which are not used any more", "there are %d tokens already", len(list))
		}
		return append(list, t), nil
	})
	return secret, t, err
}

func tokenExists(name string) error {
	return refuse(409, "remove it first, or choose another name", "token %s exists", name)
}

// remove takes a token away: the next call with it is refused.
func (l *tokenList) remove(name string) error {
	err := l.change(func(list []token) ([]token, error) {
		i := slices.IndexFunc(list, func(o token) bool { return o.Name == name })
		if i < 0 {
			return nil, refuse(404, "`perigee token list` lists them", "no token is called %.100q", name)
		}
		if l.share == nil { // else take does it, when the log has the change
			l.dropFile(list[i])
		}
		return slices.Delete(list, i, i+1), nil
	})
	if err != nil {
		return err
	}
	l.useMu.Lock()
	delete(l.used, name)
	l.useMu.Unlock()
	return nil
}

// change edits a copy of the list and saves it before it counts.
func (l *tokenList) change(edit func([]token) ([]token, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, err := edit(slices.Clone(l.tokens))
	if err != nil {
		return err
	}
	if l.share != nil {
		return l.publish(next)
	}
	if err := l.save(next); err != nil {
		return err
	}
	l.tokens = next
	return nil
}

// TokenChange is a token that was added, or removed.
type TokenChange struct {
	Name  string `json:"name"`
	Token *token `json:"token,omitempty"` // none: removed
}

func (c *TokenChange) check() error {
	if c.Token == nil {
		return feed.CheckID(c.Name)
	}
	if c.Token.Name != c.Name {
		return fmt.Errorf("token %.80q under the name %.80q", c.Token.Name, c.Name)
	}
	return checkTokens([]token{*c.Token})
}

// publish has every control node take the changes from the list to next. Called
// with mu held, which it gives back meanwhile: the list is taken from the log.
func (l *tokenList) publish(next []token) error {
	var changes []TokenChange
	for _, t := range l.tokens {
		if !slices.ContainsFunc(next, func(o token) bool { return o.Name == t.Name }) {
			changes = append(changes, TokenChange{Name: t.Name})
		}
	}
	for _, t := range next {
		if !slices.ContainsFunc(l.tokens, func(o token) bool { return o.Name == t.Name }) {
			changes = append(changes, TokenChange{t.Name, &t})
		}
	}
	l.mu.Unlock()
	defer l.mu.Lock()
	for _, c := range changes {
		if err := l.share(c); err != nil {
			return err
		}
	}
	return nil
}

// take brings the list to what the log says of tokens.
func (l *tokenList) take(told map[string]*token) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, changed := slices.Clone(l.tokens), false
	for name, t := range told {
		i := slices.IndexFunc(next, func(o token) bool { return o.Name == name })
		switch {
		case t == nil && i >= 0:
			l.dropFile(next[i])
			next, changed = slices.Delete(next, i, i+1), true
		case t != nil && i < 0:
			next, changed = append(next, *t), true
		case t != nil && next[i].SHA256 != t.SHA256:
			next[i], changed = *t, true
		}
	}
	if !changed {
		return nil
	}
	if err := l.save(next); err != nil {
		return err
	}
	l.tokens = next
	return nil
}

// dropFile removes admin.token with the token that it holds: a secret that opens
// nothing any more would be taken for one that does.
func (l *tokenList) dropFile(t token) {
	path := filepath.Join(filepath.Dir(l.path), tokenName)
	secret, err := readToken(path)
	if err != nil {
		return // there is none
	}
	sum := sha256.Sum256([]byte(secret))
	if hex.EncodeToString(sum[:]) != t.SHA256 {
		return
	}
	if err := os.Remove(path); err != nil {
		l.log.Warn("file of a removed token not removed", "err", err)
	}
}

// use notes that a token was used. It is saved now and then, and at the end:
// the last minute of it may be lost.
func (l *tokenList) use(name string, now time.Time) {
	l.useMu.Lock()
	defer l.useMu.Unlock()
	l.used[name] = now.UTC().Truncate(time.Second)
	if now.Sub(l.saved) >= useEvery {
		l.saved = now
		l.saveUse()
	}
}

// lastUse is when a token was last used, or zero.
func (l *tokenList) lastUse(name string) time.Time {
	l.useMu.Lock()
	defer l.useMu.Unlock()
	return l.used[name]
}

// uses is when each token was last used here, a copy.
func (l *tokenList) uses() map[string]time.Time {
	l.useMu.Lock()
	defer l.useMu.Unlock()
	return maps.Clone(l.used)
}

// saveUse is called with useMu held.
func (l *tokenList) saveUse() {
	if err := writeList(l.usePath, l.used); err != nil {
		l.log.Warn("last use of tokens not saved", "err", err)
	}
}

// readUse reads the last uses. They decide nothing, so a file that cannot be
// read is said and written anew.
func (l *tokenList) readUse() error {
	b, err := readFile(l.usePath, maxListBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &l.used)
	}
	if err != nil || l.used == nil {
		l.log.Warn("last use of tokens cannot be read: beginning anew", "file", l.usePath, "err", err)
		l.used = map[string]time.Time{}
	}
	return nil
}

func (l *tokenList) close() {
	l.useMu.Lock()
	defer l.useMu.Unlock()
	if len(l.used) > 0 {
		l.saveUse()
	}
}

// readFile reads a file of at most so many bytes.
func readFile(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, fmt.Errorf("%s: %d bytes, more than %d", path, info.Size(), most)
	}
	return os.ReadFile(path)
}
