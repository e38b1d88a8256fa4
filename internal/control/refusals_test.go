package control

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"perigee.example/origin"
)

// refusals asks, and notes which call answered what.
type refusals struct {
	t        *testing.T
	f        *fleet
	h        http.Handler
	doc      *openapi3.T
	produced map[string]bool // "GET /v1/status 403"
	admin    string
}

// asked is one request; its zero fields are what a good one has.
type asked struct {
	method, path, body string
	secret             string // "": an administrator's; "-": none
	contentType        string // "": JSON
	from               string
	fields             map[string]string
}

func (r *refusals) ask(a asked) int {
	r.t.Helper()
	q := httptest.NewRequest(a.method, "https://127.0.0.1"+a.path, strings.NewReader(a.body))
	q.RemoteAddr = "192.0.2.1:1"
	if a.from != "" {
		q.RemoteAddr = a.from
	}
	switch a.secret {
	case "-":
	case "":
		bearer(r.admin)(q)
	default:
		bearer(a.secret)(q)
	}
	q.Header.Set("Content-Type", "application/json")
	if a.contentType != "" {
		q.Header.Set("Content-Type", a.contentType)
	}
	for name, v := range a.fields {
		q.Header.Set(name, v)
	}
	w := httptest.NewRecorder()
	r.h.ServeHTTP(w, q)
	d, err := document()
	if err != nil {
		r.t.Fatal(err)
	}
	route, _, err := d.router.FindRoute(q)
	if err != nil {
		r.t.Fatalf("%s %s is no call", a.method, a.path)
	}
	r.produced[fmt.Sprintf("%s %s %d", a.method, route.Path, w.Code)] = true
	return w.Code
}

// want asks, and says when the answer is another.
func (r *refusals) want(status int, a asked) {
	r.t.Helper()
	if got := r.ask(a); got != status {
		r.t.Errorf("%s %s %.80s: %d, want %d", a.method, a.path, a.body, got, status)
	}
}

// TestEveryRefusalIsProduced: each status from 400 to 499 that openapi.json has for a
// call is one that a request gets. What no request can get does not stand there.
func TestEveryRefusalIsProduced(t *testing.T) {
	f := newFleet(t)
	d, err := document()
	if err != nil {
		t.Fatal(err)
	}
	r := &refusals{t: t, f: f, doc: d.doc, produced: map[string]bool{}, h: described(t, f.AdminHandler())}
	r.admin, _ = f.withToken(t, TokenRequest{Name: "root", Can: []string{"admin"}})
	r.ofAll()
	r.ofSites()
	r.ofPushes()
	r.ofCommands()
	r.ofAdministrators()
	missing := 0
	for path, item := range d.doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status := 400; status < 500; status++ {
				if op.Responses.Status(status) != nil && !r.produced[fmt.Sprintf("%s %s %d", method, path, status)] {
					missing++
					t.Errorf("%s %s: no request gets the %d that openapi.json has", method, path, status)
				}
			}
		}
	}
	if missing == 0 && len(r.produced) < 150 {
		t.Errorf("only %d answers are known", len(r.produced))
	}
}

// ofAll is what every call refuses: no token, a page's request, an address that has
// failed too often; and, by its body's form, every one that takes JSON.
func (r *refusals) ofAll() {
	digest := origin.DigestOf(nil).String()
	names := strings.NewReplacer("{site}", "www", "{id}", digest, "{digest}", digest, "{channel}", "preview-x", "{name}", "nobody")
	const guesser = "192.0.2.2:1"
	limited := known
	limited.Limits.Failures = 10
	r.f.SetKnown(limited)
	for range 100 {
		r.ask(asked{method: "GET", path: "/v1/token", secret: "perigee_GUESS", from: guesser})
	}
	for path, item := range r.doc.Paths.Map() {
		for method := range item.Operations() {
			r.want(429, asked{method: method, path: names.Replace(path), from: guesser})
		}
	}
	r.f.SetKnown(known)
	for path, item := range r.doc.Paths.Map() {
		for method, op := range item.Operations() {
			at := names.Replace(path)
			r.want(401, asked{method: method, path: at, secret: "-"})
			r.want(403, asked{method: method, path: at, fields: map[string]string{"Origin": "https://evil.test"}})
			if op.RequestBody == nil || op.RequestBody.Value.Content["application/json"] == nil {
				continue
			}
			r.want(415, asked{method: method, path: at, contentType: "text/plain", body: "{}"})
			r.want(400, asked{method: method, path: at, body: `{"`})
			if path != "/v1/sites/{site}/releases" {
				r.want(413, asked{method: method, path: at, body: `{"name":"` + strings.Repeat("x", maxPurgesBytes+maxJSONBytes)})
			}
		}
	}
}

// ofSites is what the calls below a site refuse: a site that there is not, and one
// that takes no releases.
func (r *refusals) ofSites() {
	digest := origin.DigestOf(nil).String()
	for path, item := range r.doc.Paths.Map() {
		rest, ok := strings.CutPrefix(path, "/v1/sites/{site}")
		if !ok {
			continue
		}
		rest = strings.NewReplacer("{id}", digest, "{digest}", digest, "{channel}", "preview-x").Replace(rest)
		for method, op := range item.Operations() {
			body := ""
			if method == "POST" {
				body = fmt.Sprintf(`{"release":%q}`, digest)
			}
			r.want(404, asked{method: method, path: "/v1/sites/none" + rest, body: body})
			if op.Responses.Status(409) != nil {
				r.want(409, asked{method: method, path: "/v1/sites/shop" + rest, body: body})
			}
		}
	}
}

// ofPushes is what a push is refused for.
func (r *refusals) ofPushes() {
	text := strings.Repeat("0123456789abcdef", 16<<10) // 256 KiB
	_, manifest, id, blob := page(r.t, text)
	releases, blobs := "/v1/sites/www/releases", "/v1/sites/www/blobs"
	one := origin.DigestOf([]byte("x"))
	list := func(release origin.Digest) string {
		return fmt.Sprintf(`{"release":%q,"pages":[{"digest":%q,"size":1}]}`, release, one)
	}
	r.want(413, asked{method: "POST", path: releases, contentType: pageType, body: strings.Repeat(" ", maxPageListBytes+1)})
	r.want(200, asked{method: "POST", path: releases, contentType: pageType, body: list(id)})
	r.want(422, asked{method: "PUT", path: "/v1/sites/www/pages/" + one.String(), body: "y"})
	r.want(400, asked{method: "PUT", path: "/v1/sites/www/pages/sha256-0", body: "x"})
	r.want(404, asked{method: "PUT", path: "/v1/sites/www/pages/" + id.String(), body: "x"})
	r.want(200, asked{method: "PUT", path: "/v1/sites/www/pages/" + one.String(), body: "x"})
	r.want(422, asked{method: "POST", path: releases, contentType: pageType, body: list(id)})

	r.want(200, asked{method: "POST", path: releases, body: string(manifest)})
	line := origin.BatchLine(origin.Blob{Digest: blob, Size: int64(len(text))}) + text
	r.want(415, asked{method: "PUT", path: blobs, body: line})
	r.want(400, asked{method: "PUT", path: blobs, contentType: origin.BatchType, body: "hello"})
	r.want(422, asked{method: "PUT", path: blobs, contentType: origin.BatchType, body: origin.BatchLine(origin.Blob{Digest: blob, Size: 1}) + "x"})
	r.want(413, asked{method: "PUT", path: blobs, contentType: origin.BatchType, body: strings.Repeat(line, origin.MaxBatchBytes/len(text)+1)})
	r.want(200, asked{method: "PUT", path: blobs, contentType: origin.BatchType, body: line})

	at := blobs + "/" + blob.String()
	digest := map[string]string{"Content-Digest": ContentDigest(blob)}
	r.want(400, asked{method: "PUT", path: at, body: text})
	r.want(422, asked{method: "PUT", path: at, body: "x", fields: digest})
	r.want(400, asked{method: "GET", path: blobs + "/sha256-0"})
	r.want(400, asked{method: "POST", path: releases + "/sha256-0/seal"})
	// What a site may hold was made less while it was pushed.
	k := known
	k.Sites = append([]KnownSite(nil), known.Sites...)
	k.Sites[0].Quota = Quota{Stored: 10}
	r.f.SetKnown(k)
	r.want(413, asked{method: "POST", path: releases + "/" + id.String() + "/seal"})
	r.f.SetKnown(known)
}

// ofCommands is what commands, and questions about them, are refused for.
func (r *refusals) ofCommands() {
	for _, edge := range []string{"/v1/drain", "/v1/undrain"} {
		r.want(404, asked{method: "POST", path: edge, body: `{"edge":"nowhere"}`})
	}
	r.want(404, asked{method: "POST", path: "/v1/force", body: `{"edge":"nowhere","force":"up"}`})
	r.want(404, asked{method: "POST", path: "/v1/purge", body: `{"url":"http://nowhere.test/"}`})
	r.want(404, asked{method: "POST", path: "/v1/purges", body: `{"purges":[{"url":"http://nowhere.test/"}]}`})
	r.want(409, asked{method: "POST", path: "/v1/purge", body: `{"site":"www","url":"http://a.test/"}`})
	r.want(409, asked{method: "POST", path: "/v1/purges", body: `{"purges":[{"site":"www","url":"http://a.test/"}]}`})
	r.want(400, asked{method: "GET", path: "/v1/receipts?seq=none"})
	r.want(404, asked{method: "GET", path: "/v1/receipts?seq=99"})
	r.want(400, asked{method: "DELETE", path: "/v1/sites/www/channels/preview-x?if_generation=x"})
	r.want(404, asked{method: "DELETE", path: "/v1/sites/www/channels/preview-x"})
}

// ofAdministrators is what calls about the fleet itself are refused for.
func (r *refusals) ofAdministrators() {
	for _, path := range []string{"/v1/status?x=1", "/v1/token?x=1", "/v1/tokens?x=1", "/v1/audit?limit=0", "/v1/backup?blobs=all"} {
		r.want(400, asked{method: "GET", path: path})
	}
	r.want(200, asked{method: "POST", path: "/v1/nodes", body: `{"name":"fra1"}`})
	r.want(409, asked{method: "POST", path: "/v1/nodes", body: `{"name":"fra1"}`})
	r.want(404, asked{method: "DELETE", path: "/v1/nodes/nobody"})
	r.want(404, asked{method: "DELETE", path: "/v1/tokens/nobody"})
	r.want(404, asked{method: "POST", path: "/v1/tokens", body: `{"name":"x","can":["push"],"sites":["none"]}`})
	r.want(409, asked{method: "POST", path: "/v1/tokens", body: `{"name":"root","can":["read"]}`})
}
