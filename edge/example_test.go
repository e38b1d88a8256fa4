package edge_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"perigee.example/edge"
)

// The cache before a handler of the same program.
func Example() {
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "hello")
	})
	e, err := edge.New(edge.Config{
		Sites: []edge.Site{{Name: "app", Hosts: []string{"127.0.0.1"}, Origin: edge.HandlerTransport(app)}},
	})
	if err != nil {
		panic(err)
	}
	defer e.Close()
	server := httptest.NewServer(e)
	defer server.Close()
	for range 2 {
		resp, err := http.Get(server.URL + "/greeting")
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Printf("%s (%s)\n", body, resp.Header.Get("Cache-Status"))
	}
	// Output:
	// hello (perigee; fwd=uri-miss; ttl=60; stored)
	// hello (perigee; hit; ttl=60)
}
