package control

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"perigee.example/origin"
)

// document is openapi.json with its router, read once.
var document = sync.OnceValues(func() (d struct {
	doc    *openapi3.T
	router routers.Router
}, err error) {
	if d.doc, err = openapi3.NewLoader().LoadFromData(openAPI); err == nil {
		d.router, err = legacy.NewRouter(d.doc)
	}
	return d, err
})

// TestOpenAPIHasEveryCall: the document and the table of calls name the same
// calls, with the same rights.
func TestOpenAPIHasEveryCall(t *testing.T) {
	d, err := document()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	described := map[string]string{}
	for path, item := range d.doc.Paths.Map() {
		for method, op := range item.Operations() {
			described[method+" "+path] = fmt.Sprint(op.Extensions["x-right"])
		}
	}
	words := map[need]string{needToken: "any", needReleases: "push or read"}
	for pattern, rt := range new(Server).table() {
		want := words[rt.need]
		if want == "" {
			want = rt.need.word()
		}
		switch got, ok := described[pattern]; {
		case !ok:
			t.Errorf("openapi.json does not describe %s", pattern)
		case got != want:
			t.Errorf("%s: openapi.json says that it needs %s, it needs %s", pattern, got, want)
		}
		delete(described, pattern)
	}
	for pattern := range described {
		t.Errorf("openapi.json describes %s, which there is not", pattern)
	}
}

// described holds what h is asked and answers against openapi.json: the status
// must be one of the call's, the answer of its schema, and what was accepted of
// the request's.
func described(t *testing.T, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := document()
		if err != nil {
			t.Error(err)
		}
		asked, answered := &bytes.Buffer{}, &recorded{ResponseWriter: w}
		if r.Header.Get("Content-Type") == "application/json" {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(r.Body, asked), r.Body}
		}
		h.ServeHTTP(answered, r)
		route, params, err := d.router.FindRoute(r)
		if err != nil {
			return // no call of ours: 404 or 405
		}
		request := r.Clone(context.Background())
		request.Body = io.NopCloser(asked)
		in := &openapi3filter.RequestValidationInput{Request: request, PathParams: params, Route: route, Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, ExcludeRequestBody: asked.Len() == 0, IncludeResponseStatus: true,
		}}
		if answered.status == http.StatusOK {
			if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
				t.Errorf("%s %s was accepted, and openapi.json does not allow it: %v", r.Method, r.URL, err)
			}
		}
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: answered.status, Header: w.Header(), Options: in.Options}
		if err := openapi3filter.ValidateResponse(context.Background(), out.SetBodyBytes(answered.body.Bytes())); err != nil {
			t.Errorf("%s %s answers %d, which openapi.json does not describe: %v", r.Method, r.URL, answered.status, err)
		}
	})
}

// recorded remembers what it passes on.
type recorded struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (w *recorded) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorded) Write(b []byte) (int, error) {
	w.body.Write(b)
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorded) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestEveryCallRefusesAsDescribed: what openapi.json says of a call's refusals
// for its token and the form of its body, it does; and does not where it says nothing.
func TestEveryCallRefusesAsDescribed(t *testing.T) {
	f := newFleet(t)
	d, err := document()
	if err != nil {
		t.Fatal(err)
	}
	none, _ := f.withToken(t, TokenRequest{Name: "none", Can: []string{"purge:a.test/none/"}, Sites: []string{"a"}})
	digest := origin.DigestOf(nil).String()
	names := strings.NewReplacer("{site}", "www", "{id}", digest, "{digest}", digest, "{channel}", "preview-x", "{name}", "nobody")
	h := described(t, f.AdminHandler())
	ask := func(method, path, secret, contentType, body string) int {
		r := httptest.NewRequest(method, "https://127.0.0.1"+path, strings.NewReader(body))
		if secret != "" {
			bearer(secret)(r)
		}
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	admin, _ := f.withToken(t, TokenRequest{Name: "root", Can: []string{"admin"}})
	checked := 0
	for path, item := range d.doc.Paths.Map() {
		for method, op := range item.Operations() {
			at := names.Replace(path)
			said := func(status int) bool { return op.Responses.Status(status) != nil }
			expect := func(what string, status int, got int) {
				t.Helper()
				checked++
				if !said(status) || got != status {
					t.Errorf("%s %s, %s: %d; openapi.json has %d: %v", method, path, what, got, status, said(status))
				}
			}
			expect("no token", 401, ask(method, at, "", "application/json", ""))
			if right := fmt.Sprint(op.Extensions["x-right"]); right != "any" && right != "purge" {
				expect("token without the right", 403, ask(method, at, none, "application/json", ""))
			}
			if op.RequestBody == nil || op.RequestBody.Value.Content["application/json"] == nil {
				continue
			}
			expect("a form", 415, ask(method, at, admin, "application/x-www-form-urlencoded", "a=b"))
			expect("half a value", 400, ask(method, at, admin, "application/json", `{"`))
			if path != "/v1/sites/{site}/releases" { // a manifest may be far larger
				expect("a large body", 413, ask(method, at, admin, "application/json", `{"name":"`+strings.Repeat("x", maxPurgesBytes+maxJSONBytes)))
			}
		}
	}
	if checked < 60 || f.head() != 0 {
		t.Errorf("%d answers checked, the log has %d entries", checked, f.head())
	}
}

// TestOpenAPIIsServed as it is.
func TestOpenAPIIsServed(t *testing.T) {
	f := newFleet(t)
	code, got := f.raw(t, "GET", "/v1/openapi.json", "", nil)
	doc, err := openapi3.NewLoader().LoadFromData([]byte(got))
	if code != 200 || err != nil || doc.Info.Version != "1" {
		t.Fatalf("%d, %v", code, err)
	}
	ours, err := document()
	if err != nil || !slices.Equal(doc.Paths.InMatchingOrder(), ours.doc.Paths.InMatchingOrder()) {
		t.Errorf("the paths served are %v: %v", doc.Paths.InMatchingOrder(), err)
	}
}
