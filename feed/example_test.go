package feed_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"perigee.example/feed"
)

// The log in one process: append a command, follow it as a node does.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "feed")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	srv, err := feed.OpenServer(ctx, feed.ServerConfig{Dir: dir}) // no Listen: in process only
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	if err := srv.AddNode(ctx, "fra1"); err != nil {
		log.Fatal(err)
	}
	if _, err := srv.Log().Append(ctx, "drain", map[string]string{"edge": "iad1"}); err != nil {
		log.Fatal(err)
	}
	var last feed.Position // a real node reads it from its disk
	f, err := srv.Follow(ctx, "fra1", last)
	if err != nil {
		log.Fatal(err)
	}
	e, err := f.Next(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(e.Seq, e.Kind, string(e.Body), feed.Verify(last, e).Kind, f.Ack(e))
	// Output: 1 drain {"edge":"iad1"} next <nil>
}
