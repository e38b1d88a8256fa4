package control

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowAnswer is a control node whose answer takes a while for each byte.
type slowAnswer struct {
	each time.Duration
	left string
	done <-chan struct{}
}

func (a *slowAnswer) RoundTrip(req *http.Request) (*http.Response, error) {
	a.done = req.Context().Done()
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(a), Request: req}, nil
}

func (a *slowAnswer) Read(p []byte) (int, error) {
	if a.left == "" {
		return 0, io.EOF
	}
	select {
	case <-time.After(a.each):
	case <-a.done:
		return 0, errors.New("canceled")
	}
	n := copy(p[:1], a.left)
	a.left = a.left[n:]
	return n, nil
}

// TestLongAnswersAreNoStall: a list of many missing blobs over a slow line takes longer
// than a control node may stand still. One that stops in its middle is left.
func TestLongAnswersAreNoStall(t *testing.T) {
	for each, want := range map[time.Duration]error{stallWait / 2: nil, 2 * stallWait: errStalled} {
		synctest.Test(t, func(t *testing.T) {
			c := &Client{addrs: []string{"a:1", "b:1"}, http: &http.Client{Transport: &slowAnswer{each: each, left: `{"n": 1}`}}}
			req, err := http.NewRequest(http.MethodPost, "https://a:1/v1/x", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			var out struct{ N int }
			if err := c.sendOnce(req, &out); !errors.Is(err, want) || want == nil && (err != nil || out.N != 1) {
				t.Errorf("a byte in %s: %v, %+v; want %v", each, err, out, want)
			}
		})
	}
}
