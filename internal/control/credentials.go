package control

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"perigee.example/feed"
)

// Credentials is what a node needs to take part: one file, written by
// `perigee node add`, kept in the node's state folder as node.pem (0600).
type Credentials struct {
	Name    string   // the node
	Feed    string   // host:port of the feed; of several control nodes each, with a space between
	Blobs   string   // host:port of the blob door, likewise
	Control []string // URLs of the admin door, for people and commands on that machine

	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
	CA   *x509.Certificate
}

const (
	nodeBlock = "PERIGEE NODE"
	// maxCredentialBytes bounds the file: two certificates, a key, some addresses.
	maxCredentialBytes = 32 << 10
	// maxControlAddresses bounds the control addresses in it: a cluster of three and room.
	maxControlAddresses = 16
)

// Encode returns the file's content. The first block names the node and says
// where to connect; its body is the SHA-256 of the CA, so that a file put
// together from two fleets is refused.
func (c *Credentials) Encode() ([]byte, error) {
	key, err := keyPEM(c.Key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(c.CA.Raw)
	var buf bytes.Buffer
	err = pem.Encode(&buf, &pem.Block{Type: nodeBlock, Headers: map[string]string{
		"Name": c.Name, "Feed": c.Feed, "Blobs": c.Blobs, "Control": strings.Join(c.Control, " "),
	}, Bytes: sum[:]})
	if err != nil {
		return nil, err
	}
	buf.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Cert.Raw}))
	buf.Write(key)
	buf.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.CA.Raw}))
	if _, err := ParseCredentials(buf.Bytes()); err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", c.Name, err) // never hand out what no node takes
	}
	return buf.Bytes(), nil
}

// LoadCredentials reads the file of a node.
func LoadCredentials(path string) (*Credentials, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxCredentialBytes {
		return nil, fmt.Errorf("%s: %d bytes, more than %d", path, info.Size(), maxCredentialBytes)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read this key: chmod 600 %s", path, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := ParseCredentials(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// ParseCredentials reads the content of a node's file: exactly the four blocks
// of Encode in their order, which must belong together. Whether the certificate
// is still in time is not asked here: see Credentials.Warning.
func ParseCredentials(b []byte) (*Credentials, error) {
	if len(b) > maxCredentialBytes {
		return nil, fmt.Errorf("%d bytes, more than %d", len(b), maxCredentialBytes)
	}
	var blocks [4]*pem.Block
	for i, want := range []string{nodeBlock, "CERTIFICATE", "PRIVATE KEY", "CERTIFICATE"} {
		// Nothing may stand before or between the blocks: what two readers
		// could read in two ways is refused.
		if !bytes.HasPrefix(b, []byte("-----BEGIN "+want+"-----\n")) {
			return nil, fmt.Errorf("part %d must be %s: make the file again with `perigee node add`", i+1, want)
		}
		blocks[i], b = pem.Decode(b)
		if blocks[i] == nil || blocks[i].Type != want {
			return nil, fmt.Errorf("part %d (%s) is damaged", i+1, want)
		}
		if i > 0 && len(blocks[i].Headers) != 0 {
			return nil, fmt.Errorf("part %d (%s) has header lines", i+1, want)
		}
	}
	if len(b) != 0 {
		return nil, errors.New("something follows the last part")
	}
	c := &Credentials{}
	if err := c.parseNode(blocks[0]); err != nil {
		return nil, err
	}
	if err := c.parseKeys(blocks); err != nil {
		return nil, err
	}
	return c, c.check(blocks[0].Bytes)
}

func (c *Credentials) parseNode(block *pem.Block) error {
	if len(block.Headers) != 4 {
		return fmt.Errorf("%s must have the lines Name, Feed, Blobs and Control", nodeBlock)
	}
	for k, v := range block.Headers {
		switch k {
		case "Name":
			c.Name = v
		case "Feed":
			c.Feed = v
		case "Blobs":
			c.Blobs = v
		case "Control":
			c.Control = strings.Fields(v)
		default:
			return fmt.Errorf("%s: unknown line %.40q", nodeBlock, k)
		}
	}
	if err := feed.CheckID(c.Name); err != nil {
		return err
	}
	for _, list := range []string{c.Feed, c.Blobs} {
		addrs := strings.Split(list, " ")
		if len(addrs) > maxControlAddresses {
			return fmt.Errorf("%s: %d addresses, more than %d", nodeBlock, len(addrs), maxControlAddresses)
		}
		for _, a := range addrs {
			if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
				return fmt.Errorf("%s: %.100q is not host:port", nodeBlock, a)
			}
		}
	}
	if len(c.Control) > maxControlAddresses {
		return fmt.Errorf("%s: %d control addresses, more than %d", nodeBlock, len(c.Control), maxControlAddresses)
	}
	for _, a := range c.Control {
		if u, err := url.Parse(a); err != nil || u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("%s: control address %.100q is not https://host:port", nodeBlock, a)
		}
	}
	return nil
}

func (c *Credentials) parseKeys(blocks [4]*pem.Block) (err error) {
	if c.Cert, err = x509.ParseCertificate(blocks[1].Bytes); err != nil {
		return fmt.Errorf("node certificate: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(blocks[2].Bytes)
	if err != nil {
		return errors.New("private key: it cannot be parsed") // its error could quote the key
	}
	var ok bool
	if c.Key, ok = key.(*ecdsa.PrivateKey); !ok {
		return errors.New("private key: not ECDSA")
	}
	if c.CA, err = x509.ParseCertificate(blocks[3].Bytes); err != nil {
		return fmt.Errorf("CA certificate: %w", err)
	}
	return nil
}

func (c *Credentials) check(caSum []byte) error {
	if sum := sha256.Sum256(c.CA.Raw); !bytes.Equal(sum[:], caSum) {
		return errors.New("the CA is not the one that the node was added to")
	}
	if !c.CA.IsCA {
		return errors.New("the CA certificate is not one of a CA")
	}
	if err := c.Cert.CheckSignatureFrom(c.CA); err != nil {
		return fmt.Errorf("the node certificate is not from this CA: %w", err)
	}
	if !c.Key.PublicKey.Equal(c.Cert.PublicKey) {
		return errors.New("the key does not belong to the certificate")
	}
	id, _, err := feed.PeerID(&tls.ConnectionState{HandshakeComplete: true, VerifiedChains: [][]*x509.Certificate{{c.Cert, c.CA}}})
	if err != nil {
		return err
	}
	if id != c.Name {
		return fmt.Errorf("the certificate is for node %s, the file for %s", id, c.Name)
	}
	return nil
}

// TLS returns the client side of both node doors: it proves to be the node, and
// asks the other side to be the control node of the same fleet.
func (c *Credentials) TLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(c.CA)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		ServerName:   feed.ServerName,
		RootCAs:      roots,
		Certificates: []tls.Certificate{{Certificate: [][]byte{c.Cert.Raw}, PrivateKey: c.Key, Leaf: c.Cert}},
	}
}

// PeerServer is the server's side of an edge's peer door: nodes of the same
// fleet get in, and feed.PeerID tells which one came.
func (c *Credentials) PeerServer() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(c.CA)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{c.Cert.Raw}, PrivateKey: c.Key, Leaf: c.Cert}},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    roots,
	}
}

// PeerClient is the client's side: the other end must prove to be the node of
// that name, of the same fleet. A node's certificate names no host and is for
// clients, so it is verified here as such, and by the node's name alone.
func (c *Credentials) PeerClient(name string) *tls.Config {
	config := c.PeerServer()
	config.InsecureSkipVerify = true // VerifyConnection does it
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("the peer has no certificate")
		}
		chains, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: config.ClientCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err != nil {
			return fmt.Errorf("the peer is not of this fleet: %w", err)
		}
		cs.VerifiedChains, cs.HandshakeComplete = chains, true
		id, _, err := feed.PeerID(&cs)
		if err == nil && id != name {
			err = fmt.Errorf("the peer is node %s, not %s", id, name)
		}
		return err
	}
	return config
}

// warnBefore is how long before its end a node's certificate is spoken of.
const warnBefore = 60 * 24 * time.Hour

// Warning says what is wrong with the certificate's time at now, or "". A part
// in the control node's own process has a name and no certificate.
func (c *Credentials) Warning(now time.Time) string {
	if c.Cert == nil {
		return ""
	}
	cure := fmt.Sprintf("run `perigee node add %s --replace` on the control node and replace the file", c.Name)
	switch {
	case now.Before(c.Cert.NotBefore):
		return fmt.Sprintf("node certificate begins on %s: is this machine's clock right?", c.Cert.NotBefore.Format(time.DateTime))
	case now.After(c.Cert.NotAfter):
		return fmt.Sprintf("node certificate ended on %s: %s", c.Cert.NotAfter.Format(time.DateOnly), cure)
	case now.After(c.Cert.NotAfter.Add(-warnBefore)):
		return fmt.Sprintf("node certificate ends on %s: %s", c.Cert.NotAfter.Format(time.DateOnly), cure)
	}
	return ""
}
