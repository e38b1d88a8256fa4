package metrics

import (
	"io"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// TestTable: names, helps and labels have the form that Prometheus wants.
func TestTable(t *testing.T) {
	name := regexp.MustCompile(`^perigee_[a-z]+(_[a-z]+)*$`)
	seen := map[string]bool{}
	for _, m := range Table {
		if !name.MatchString(m.Name) || seen[m.Name] || !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%+v: name or help is not as it should be, or stands here twice", m)
		}
		if strings.HasSuffix(m.Name, "_total") != (m.Kind == Counter) {
			t.Errorf("%s: counters, and nothing else, end in _total", m.Name)
		}
		seen[m.Name] = true
	}
}

// TestScrape: values come out in the text format; a mistake fails the scrape and
// is not left out in silence.
func TestScrape(t *testing.T) {
	r := New("v1")
	wrong := ""
	r.Add(func(e *Emitter) {
		e.Value("perigee_edge_bytes_total", 7, "www")
		e.Bool("perigee_ready", true)
		switch wrong {
		case "name":
			e.Value("perigee_nonsense", 1)
		case "labels":
			e.Value("perigee_edge_bytes_total", 1, "a", "b")
		}
	})
	scrape := func() (int, string) {
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		b, _ := io.ReadAll(w.Body)
		return w.Code, string(b)
	}
	code, text := scrape()
	for _, want := range []string{"perigee_build_info{version=\"v1\"} 1\n", "perigee_edge_bytes_total{site=\"www\"} 7\n", "# TYPE perigee_edge_bytes_total counter\n", "perigee_ready 1\n", "go_goroutines ", "process_open_fds "} {
		if code != 200 || !strings.Contains(text, want) {
			t.Errorf("%d, no %q in\n%s", code, want, text)
		}
	}
	for _, wrong = range []string{"name", "labels"} {
		if code, text := scrape(); code != 500 {
			t.Errorf("a wrong %s: %d\n%s", wrong, code, text)
		}
	}
}
