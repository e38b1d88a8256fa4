package edge

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// turns is an origin whose answers come one by one, as the test says.
type turns chan turn

type turn struct {
	r      *http.Request
	answer chan *http.Response
}

func (o turns) RoundTrip(r *http.Request) (*http.Response, error) {
	t := turn{r, make(chan *http.Response, 1)}
	o <- t
	select {
	case resp := <-t.answer:
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// say answers with a body, and a field that says of which version it is.
func (t turn) say(status int, version, body string, fields ...string) {
	h := http.Header{"Cache-Control": {"max-age=60"}, "Version": {version}}
	for i := 0; i < len(fields); i += 2 {
		h[fields[i]] = []string{fields[i+1]}
	}
	t.answer <- &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: t.r}
}

// late is an edge before such an origin, in a bubble.
type late struct {
	t      *testing.T
	e      *Edge
	origin turns
}

func inLate(t *testing.T, f func(w *late)) {
	synctest.Test(t, func(t *testing.T) {
		w := &late{t: t, origin: make(turns)}
		var err error
		if w.e, err = New(Config{MemoryBytes: 8 << 20, Limits: &Limits{}, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: w.origin, EarlyHintsAll: true}}}); err != nil {
			t.Fatal(err)
		}
		f(w)
		w.e.Close()
		synctest.Wait()
		holdsNothing(t, w.e.store)
	})
}

// ask begins a request for the page.
func (w *late) ask(method string, fields ...string) chan *http.Response {
	return w.askBy(nil, method, fields...)
}

// askBy begins a request whose client takes interim responses when it is told to.
func (w *late) askBy(takes chan struct{}, method string, fields ...string) chan *http.Response {
	r := httptest.NewRequest(method, "http://s.test/page", nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	done := make(chan *http.Response, 1)
	go func() {
		rec := httptest.NewRecorder()
		w.e.ServeHTTP(interimWriter{rec, takes}, r)
		done <- rec.Result()
	}()
	return done
}

// stored brings a version to memory.
func (w *late) stored(version string, fields ...string) {
	w.t.Helper()
	asked := w.ask("GET", fields...)
	(<-w.origin).say(200, version, "the body", "Vary", "Accept-Language", "Etag", `"x"`)
	<-asked
	synctest.Wait()
}

// has checks that a request is answered with a version, without the origin.
func (w *late) has(version string, fields ...string) {
	w.t.Helper()
	asked := w.ask("GET", fields...)
	synctest.Wait()
	select {
	case resp := <-asked:
		if got := resp.Header.Get("Version"); got != version {
			w.t.Errorf("version %s, want %s: %v", got, version, resp.Header["Cache-Status"])
		}
	case turn := <-w.origin:
		w.t.Error("the origin is asked")
		turn.say(200, version, "the body")
		<-asked
	}
}

// posted changes the page, and returns when that is acknowledged.
func (w *late) posted() {
	asked := w.ask("POST")
	(<-w.origin).say(204, "", "")
	<-asked
}

// interimWriter holds up its client's interim responses.
type interimWriter struct {
	*httptest.ResponseRecorder
	takes chan struct{}
}

func (w interimWriter) WriteHeader(status int) {
	if status >= 200 {
		w.ResponseRecorder.WriteHeader(status)
	} else if w.takes != nil {
		<-w.takes
	}
}

// What a HEAD from before an unsafe request brings does not update what a GET from
// after it has stored.
func TestLateHead(t *testing.T) {
	inLate(t, func(w *late) {
		head := w.ask("HEAD")
		old := <-w.origin
		w.posted()
		w.stored("2")
		old.say(200, "1", "", "Etag", `"x"`, "Vary", "Accept-Language")
		<-head
		w.has("2")
	})
}

// Nor does a validation from before it, for another variant, whose tag is the same.
func TestLateValidation(t *testing.T) {
	inLate(t, func(w *late) {
		w.stored("1", "Accept-Language", "de")
		time.Sleep(2 * time.Minute) // now it is stale
		de := w.ask("GET", "Accept-Language", "de")
		old := <-w.origin
		w.posted()
		w.stored("2", "Accept-Language", "de")
		w.stored("2", "Accept-Language", "fr")
		old.say(304, "1", "", "Etag", `"x"`)
		<-de
		w.has("2", "Accept-Language", "de")
		w.has("2", "Accept-Language", "fr")
	})
}

// What is larger than memory keeps, and came before an unsafe request, does not go
// to disk, though it is then that its client takes it.
func TestLateLarge(t *testing.T) {
	inLate(t, func(w *late) {
		if err := w.e.OpenDisk(DiskConfig{Dir: t.TempDir(), Bytes: 64 << 20, SegmentBytes: 8 << 20}); err != nil {
			t.Fatal(err)
		}
		body := strings.Repeat("x", 3<<20)
		takes := make(chan struct{})
		first := w.askBy(takes, "GET")
		old := <-w.origin
		httptrace.ContextClientTrace(old.r.Context()).Got1xxResponse(103, textproto.MIMEHeader{"Link": {"</a.css>"}})
		synctest.Wait()
		old.say(200, "1", body)
		synctest.Wait() // the response is there, and its client still takes the interim one
		w.posted()
		close(takes)
		if resp := <-first; resp.Header.Get("Version") != "1" {
			t.Errorf("who asked first got version %s", resp.Header.Get("Version"))
		}
		w.e.disk.Load().log.Load().Flush()
		second := w.ask("GET")
		select {
		case turn := <-w.origin:
			turn.say(200, "2", body)
			<-second
		case resp := <-second:
			t.Errorf("version %s comes from the disk", resp.Header.Get("Version"))
		}
		w.e.disk.Load().log.Load().Flush()
		w.has("2")
	})
}

// Of two POSTs at a time, of which the first one's answer may be kept, it is not
// when the second is acknowledged before it has come to its end.
func TestLatePost(t *testing.T) {
	w := &late{t: t, origin: make(turns)}
	var err error
	if w.e, err = New(Config{Limits: &Limits{}, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: w.origin}}}); err != nil {
		t.Fatal(err)
	}
	defer w.e.Close()
	const key = "http://s.test/page"
	stored := func() bool {
		list := w.e.store.variants(key)
		w.e.store.letGo(list...)
		return len(list) > 0
	}
	until := func(what bool) {
		for stored() != what {
			time.Sleep(time.Millisecond)
		}
	}
	get := w.ask("GET")
	(<-w.origin).say(200, "0", "the body")
	<-get
	until(true)
	w.e.applyMu.Lock() // the first POST has invalidated the page, and waits here for what else it invalidates
	first := w.ask("POST")
	(<-w.origin).say(200, "1", "the body", "Content-Location", "/page", "Cache-Group-Invalidation", `"others"`)
	until(false)
	w.posted()
	w.e.applyMu.Unlock()
	<-first
	get = w.ask("GET")
	select {
	case turn := <-w.origin:
		turn.say(200, "2", "the body")
		<-get
	case resp := <-get:
		t.Errorf("version %s is kept, and 2 was acknowledged", resp.Header.Get("Version"))
	}
}

// What is taken out while it is being replaced stays out.
func TestReplaceAgainstRemove(t *testing.T) {
	s, err := newStore(1<<20, S3FIFO, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		old := &stored{key: "k", status: 200, header: http.Header{}}
		if !s.put(old) {
			t.Fatal("there is no room")
		}
		var wg sync.WaitGroup
		wg.Go(func() { s.replace(old, &stored{key: "k", status: 200, header: http.Header{}}) })
		s.remove("k")
		wg.Wait()
		if left := s.variants("k"); len(left) > 0 {
			t.Fatal("it is back")
		}
	}
}
