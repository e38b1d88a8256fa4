package control

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"perigee.example/feed"
)

// An edge's peer door knows nodes of its own fleet by their certificates, and
// who dials it knows whom it has reached; nobody else gets a byte through.
func TestPeerDoor(t *testing.T) {
	ca, err := openCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	near, _ := credentialsOf(t, ca, "near")
	far, _ := credentialsOf(t, ca, "far")
	stranger, _ := newCredentials(t, "near")
	for name, test := range map[string]struct {
		client, server *tls.Config
		works          bool
	}{
		"far dials near":                        {far.PeerClient("near"), near.PeerServer(), true},
		"far dials near and meets far":          {far.PeerClient("near"), far.PeerServer(), false},
		"far dials near of another fleet":       {far.PeerClient("near"), stranger.PeerServer(), false},
		"near of another fleet dials":           {stranger.PeerClient("near"), near.PeerServer(), false},
		"without a certificate":                 {&tls.Config{InsecureSkipVerify: true}, near.PeerServer(), false},
		"the control node's name is no peer's":  {far.TLS(), near.PeerServer(), false},
		"a server whose certificate is missing": {far.PeerClient("near"), &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			server := tls.Server(b, test.server)
			met := make(chan string, 1)
			go func() {
				defer b.Close()
				err := server.Handshake()
				state := server.ConnectionState()
				id, _, idErr := feed.PeerID(&state)
				if err == nil && idErr == nil {
					server.Write([]byte("x"))
					met <- id
				}
				close(met)
			}()
			client := tls.Client(a, test.client)
			_, err := client.Read(make([]byte, 1))
			a.Close()
			if id := <-met; (err == nil) != test.works || (id == "far") != test.works {
				t.Errorf("client: %v; the server met %q", err, id)
			}
		})
	}
}
