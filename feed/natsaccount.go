package feed

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nkeys"
)

// ControlRights are the subjects that a control node needs in an external NATS
// cluster, and nothing beyond: to make the stream, read, append and trim it, and to
// tell the other control nodes that it has written, and what nodes report.
func ControlRights() (publish, subscribe []string) {
	const api = "$JS.API.STREAM."
	publish = []string{
		api + "INFO." + streamName, api + "CREATE." + streamName, api + "MSG.GET." + streamName, api + "PURGE." + streamName,
		storedSubject, noteSubject, reportPrefix + "*.*",
	}
	return publish, []string{externalInbox + ".>", noteSubject, reportPrefix + "*.*"}
}

// Account is the account of a fleet as nats-server's configuration has it, for a user
// with this public nkey.
func Account(public string) string {
	list := func(subjects []string) string { return `"` + strings.Join(subjects, "\",\n          \"") + `"` }
	publish, subscribe := ControlRights()
	return fmt.Sprintf(`# The account of perigee's control nodes: it goes into accounts { … } of every
# server's configuration. Nodes do not connect to NATS and need no rights here.
PERIGEE {
  jetstream { max_streams: 1 }
  users [
    {
      nkey: %s
      permissions {
        publish [
          %s
        ]
        subscribe [
          %s
        ]
      }
    }
  ]
}
`, public, list(publish), list(subscribe))
}

// ControlKey reads the nkey of control nodes from the file at path, or makes it, and
// returns its public half.
func ControlKey(path string) (public string, made bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if text, err = makeKey(path); err != nil {
			return "", false, err
		}
		made = true
	}
	if err != nil {
		return "", false, err
	}
	defer clear(text)
	key, err := nkeys.ParseDecoratedUserNKey(text)
	if err != nil {
		return "", false, fmt.Errorf("%s holds no seed of a user's nkey: %w", path, err)
	}
	public, err = key.PublicKey()
	return public, made, err
}

// makeKey writes a new seed to a new file that nobody else can read.
func makeKey(path string) ([]byte, error) {
	key, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	seed = append(seed, '\n')
	_, err = f.Write(seed)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
		return nil, err
	}
	return seed, nil
}
