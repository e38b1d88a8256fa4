package feed

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// ServerName is the name in the control node's certificate that nodes and
// commands check, whatever address they dial: the fleet's CA is private, so the
// name need not exist in DNS.
const ServerName = "control.perigee.internal"

// nodeURIPrefix starts the one name in a node's certificate.
const nodeURIPrefix = "perigee://node/"

// NodeURI is the identity of a node: the only subject alternative name of its
// certificate (a URI, RFC 5280 §4.2.1.6).
func NodeURI(id string) (*url.URL, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	return url.Parse(nodeURIPrefix + id)
}

// PeerID returns the node at the other end of a TLS connection whose client
// certificate was verified against the fleet's CA. The identity is the exact
// and only name in the certificate: a distinguished name counts for nothing,
// and a certificate with a second name of any kind is refused.
func PeerID(cs *tls.ConnectionState) (id string, cert *x509.Certificate, err error) {
	if cs == nil || !cs.HandshakeComplete || len(cs.VerifiedChains) == 0 || len(cs.VerifiedChains[0]) == 0 {
		return "", nil, errors.New("no verified client certificate")
	}
	cert = cs.VerifiedChains[0][0]
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.EmailAddresses)+len(cert.IPAddresses) != 0 {
		return "", nil, fmt.Errorf("client certificate %x: it must have exactly one name, a node's URI", cert.SerialNumber)
	}
	id, ok := strings.CutPrefix(cert.URIs[0].String(), nodeURIPrefix)
	if !ok {
		return "", nil, fmt.Errorf("client certificate %x: %.100q is no node's URI", cert.SerialNumber, cert.URIs[0])
	}
	if err := CheckID(id); err != nil {
		return "", nil, fmt.Errorf("client certificate %x: %w", cert.SerialNumber, err)
	}
	if len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		return "", nil, fmt.Errorf("client certificate %x: it is not for clients only", cert.SerialNumber)
	}
	return id, cert, nil
}
