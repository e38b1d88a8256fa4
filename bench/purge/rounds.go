package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"perigee.example/internal/control"
)

const (
	// applyWait bounds the wait for one purge at one edge.
	applyWait = time.Minute
	// firstLook is when an edge is asked first after a purge, and lookEvery how long
	// after each answer it is asked again, as long as a purge takes usually; then a
	// quarter of the time so far later. What is printed is late by at most that and
	// the GET itself, never early. More looks would be most of the load.
	firstLook = 20 * time.Millisecond
	lookEvery = 10 * time.Millisecond
	lookOften = 250 * time.Millisecond
	// callers purge at the same time in manyCallers, perClient of them share a Client.
	callers   = 64
	perClient = 8
)

// get asks an edge as a client does and returns the body. The connection is its own:
// a Transport would hand each request through three goroutines, which cost more than
// the edge's answer, on the machine whose edges are measured.
func (e *edge) get(ctx context.Context, path string) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.addr)
		if err != nil {
			return "", err
		}
		e.conn, e.in = conn, bufio.NewReader(conn)
	}
	body, err := e.ask(path)
	if err != nil {
		_ = e.conn.Close() // a new one the next time
		e.conn = nil
	}
	return body, err
}

// ask is called with mu held.
func (e *edge) ask(path string) (string, error) {
	host := site
	if strings.HasPrefix(path, "/-/") {
		host = e.addr
	}
	if err := e.conn.SetDeadline(time.Now().Add(applyWait)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(e.conn, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(e.in, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s", e.addr, path, resp.Status)
	}
	return string(b), err
}

// number is which response of the origin an edge gives for a path.
func (e *edge) number(ctx context.Context, path string) (int64, error) {
	body, err := e.get(ctx, path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(body, 10, 64)
}

// each does something at every edge at the same time.
func (f *fleet) each(do func(i int, e *edge) error) error {
	errs := make([]error, len(f.edges))
	var wg sync.WaitGroup
	for i, e := range f.edges {
		wg.Go(func() { errs[i] = do(i, e) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// warm makes sure that every edge has a path stored.
func (f *fleet) warm(ctx context.Context, path string) error {
	return f.each(func(_ int, e *edge) error {
		first, err := e.number(ctx, path)
		if err != nil {
			return err
		}
		if again, err := e.number(ctx, path); err != nil || again != first {
			return fmt.Errorf("edge %s does not store %s: response %d, then %d, %v", e.name, path, first, again, err)
		}
		return nil
	})
}

// fresh waits until every edge gives a response that the origin made after the
// one numbered before, and returns how long after begun each did.
func (f *fleet) fresh(ctx context.Context, path string, before int64, begun time.Time) ([]time.Duration, error) {
	times := make([]time.Duration, len(f.edges))
	err := f.each(func(i int, e *edge) error {
		for next := firstLook; ; {
			timer := time.NewTimer(time.Until(begun.Add(next)))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			}
			n, err := e.number(ctx, path)
			if err != nil {
				return err
			}
			times[i] = time.Since(begun)
			if n > before {
				return nil
			}
			if times[i] > applyWait {
				return fmt.Errorf("edge %s still gives response %d of %s, %s after the purge", e.name, n, path, times[i])
			}
			next = times[i] + lookEvery
			if times[i] > lookOften {
				next = times[i] + times[i]/4
			}
		}
	})
	return times, err
}

// round purges one URL by the API, with a token, over TLS.
func (f *fleet) round(ctx context.Context) (ack time.Duration, times []time.Duration, err error) {
	const path = "/page"
	if err := f.warm(ctx, path); err != nil {
		return 0, nil, err
	}
	before, begun := f.served.Load(), time.Now()
	acked := make(chan error, 1)
	go func() {
		_, err := f.client.Purge(ctx, control.Purge{URL: "http://" + site + path}, false)
		ack = time.Since(begun)
		acked <- err
	}()
	times, err = f.fresh(ctx, path, before, begun)
	return ack, times, errors.Join(err, <-acked)
}

// manyAtOnce purges a file of URLs by the command, as somebody would.
func (f *fleet) manyAtOnce(ctx context.Context) error {
	path := func(i int) string { return fmt.Sprintf("/many/%d", i) }
	var list strings.Builder
	for i := range f.o.many {
		fmt.Fprintf(&list, "http://%s%s\n", site, path(i))
	}
	file := filepath.Join(f.o.dir, "urls.txt")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		return err
	}
	watched := []string{path(0), path(f.o.many / 2), path(f.o.many - 1)}
	for _, p := range watched {
		if err := f.warm(ctx, p); err != nil {
			return err
		}
	}
	st, err := f.client.Status(ctx)
	if err != nil {
		return err
	}
	before, begun := f.served.Load(), time.Now()
	cmd := exec.CommandContext(ctx, f.o.perigee, "purge", "--from", file, "--wait", "all", "--json", "--config", f.config, "--control", "unix:"+f.socket)
	cmd.Stderr = os.Stderr
	var answer struct {
		Seq      uint64           `json:"seq"`
		Receipts control.Receipts `json:"receipts"`
	}
	done := make(chan error, 1)
	var ended time.Duration
	go func() {
		out, err := cmd.Output()
		ended = time.Since(begun)
		if err == nil {
			err = json.Unmarshal(out, &answer)
		}
		done <- err
	}()
	var worst []time.Duration
	for i := range watched { // the last of the list first: the others are applied by then
		times, err := f.fresh(ctx, watched[len(watched)-1-i], before, begun)
		if err != nil {
			return errors.Join(err, <-done)
		}
		worst = append(worst, times...)
		if i == 0 {
			fmt.Printf("%d URLs by `perigee purge --from FILE --wait all`:\n\n", f.o.many)
			fmt.Println("| from the start of the command, in ms | p50 | p90 | p99 | worst |\n| --- | --- | --- | --- | --- |")
			row(fmt.Sprintf("an edge gave a fresh response for the last URL (%d edges)", f.o.edges), times)
		}
	}
	if err := <-done; err != nil {
		return err
	}
	fmt.Printf("| the command ended: %d of %d nodes say that all is applied | %.1f | | | |\n\n", len(answer.Receipts.Applied), answer.Receipts.Nodes, float64(ended.Microseconds())/1000)
	fmt.Printf("%d entries of the log; %d GETs of the first, a middle and the last URL were fresh\n\n", answer.Seq-st.Head.Seq, len(worst))
	return nil
}

// manyCallers purges one URL a call, from several callers at once.
func (f *fleet) manyCallers(ctx context.Context) error {
	st, err := f.client.Status(ctx)
	if err != nil {
		return err
	}
	n, begun := f.o.many/2, time.Now()
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	clients := make([]*control.Client, callers/perClient) // one keeps so many connections open
	for i := range clients {
		if clients[i], err = f.newClient(); err != nil {
			return err
		}
	}
	errs := make([]error, callers)
	var last uint64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range next {
				out, err := clients[c/perClient].Purge(ctx, control.Purge{URL: fmt.Sprintf("http://%s/single/%d", site, i)}, false)
				if err != nil {
					errs[c] = err
					return
				}
				mu.Lock()
				last = max(last, out.Seq)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	acked := time.Since(begun)
	r, err := f.client.Receipts(ctx, last, time.Minute)
	if err != nil {
		return err
	}
	fmt.Printf("%d calls of one URL each, %d callers at once: acknowledged after %.2f s in %d entries of the log; %d of %d nodes say applied after %.2f s\n",
		n, callers, acked.Seconds(), last-st.Head.Seq, len(r.Applied), r.Nodes, time.Since(begun).Seconds())
	if len(r.Waiting) > 0 {
		return fmt.Errorf("still waiting for %v", r.Waiting)
	}
	return nil
}
