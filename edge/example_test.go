package edge_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	"perigee.example/edge"
)

// The cache before a handler of the same program.
func Example() {
	var asked atomic.Int64
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
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
		fmt.Printf("%s\n", body)
	}
	fmt.Println("requests to the application:", asked.Load())
	// Output:
	// hello
	// hello
	// requests to the application: 1
}
