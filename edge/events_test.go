package edge

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
)

// TestEventsHideSecrets: the log of events names the URL that failed, and keeps
// from it what the access log does not show either.
func TestEventsHideSecrets(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		var log bytes.Buffer
		e, err := New(Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Sites: []Site{{Name: "s", Hosts: []string{"s.test"},
			Origin: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, errors.New("down") })}}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		r, err := http.NewRequest(method, "http://s.test/a?token=hunter2&b=c", nil)
		if err != nil {
			t.Fatal(err)
		}
		e.ServeHTTP(newAnswer(), r)
		if got := log.String(); strings.Contains(got, "hunter2") || !strings.Contains(got, "http://s.test/a?token=…&b=c") {
			t.Errorf("%s: %s", method, got)
		}
	}
}
