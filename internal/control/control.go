// Package control is the control node: the control API (HTTP and JSON), its
// client, and the keys of the fleet: the node CA, node credentials and the
// admin token. It alone appends to the feed.
//
// What it knows is a fold of the log (State) and nothing else, besides blobs,
// keys and the list of nodes. It decides nothing about DNS or caching.
//
//	srv, err := control.Open(ctx, control.Config{Dir: "state/control", …})
//	go srv.ServeAdmin(l1) // HTTPS, bearer token always
//	go srv.ServeBlobs(l2) // HTTPS, node certificates only
//	go srv.ServeLocal(l3) // unix socket: the file's permission is the credential
//
//	c, err := control.NewClient(control.ClientConfig{Address: …, TokenFile: …, CAFile: …})
//	out, err := c.Push(ctx, control.PushOptions{Site: "www", Dir: "public"})
//
// Limits stand beside what they bound; the API's are in api.go.
package control
