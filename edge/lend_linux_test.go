//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	"perigee.example/internal/arena"
)

// TestLentAndGone: a client reads what it was sent, whatever has become of it in
// the store meanwhile: here it is removed, and others have all of the memory.
func TestLentAndGone(t *testing.T) {
	for _, size := range []int{arena.LendFrom, 100<<10 + 1} {
		body := bytes.Repeat([]byte("lent"), size/4+1)[:size]
		e, dial := serveStored(t, files{"/a": body})
		c := dial()
		c.SetReadBuffer(4 * size) // all of it
		fmt.Fprintf(c, "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		if err := until("all to be sent", func() bool { return e.Stats().Sites["shop"].Requests[Answered{"hit", "fast"}] == 1 }); err != nil {
			t.Fatal(err)
		}
		e.store.remove("http://shop.test/a")
		if err := until("the store to let go", func() bool { return e.store.arena.Stats().Used == 0 }); err != nil {
			t.Fatal(err)
		}
		e.store.arena.SetCeiling(8 << 20)
		for b := e.store.arena.Build(); ; {
			mem := b.Next(arena.SlabBytes)
			if mem == nil {
				break
			}
			for i := range mem {
				mem[i] = '?'
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, body) {
			t.Errorf("of %d octets %d are others', %v", len(got), bytes.Count(got, []byte("?")), err)
		}
		if pipes.refused.Load() {
			t.Error("this system does not lend")
		}
	}
}
