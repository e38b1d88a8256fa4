// Package metrics shows what the parts of a process have counted, in the text
// format of Prometheus.
//
// It counts nothing itself: parts count where it costs least, and hand out sums
// when they are asked. Table has every metric that there is, with the words of
// docs/operating.md; a value of another name is a mistake.
//
//	r := metrics.New(version)
//	r.Add(func(e *metrics.Emitter) { e.Value("perigee_edge_connections", 12) })
//	http.Handle("GET /metrics", r.Handler())
//
// Labels are bounded by those who emit: sites, edges, policies and zones of the
// configuration, and words that the code knows, never what a client sends.
package metrics

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Kind is what a value means.
type Kind uint8

// The kinds.
const (
	Counter Kind = iota + 1 // only rises, until the process ends
	Gauge                   // as it is now
)

// Metric is one line of Table.
type Metric struct {
	Name   string
	Kind   Kind
	Help   string
	Labels []string
}

// Source hands out the values of one part.
type Source func(e *Emitter)

// Registry is the metrics of one process.
type Registry struct {
	registry *prometheus.Registry
	descs    map[string]*prometheus.Desc
	kinds    map[string]Kind

	mu      sync.Mutex
	sources []Source
}

const (
	// maxScrapes bounds the scrapes at a time, and scrapeTimeout each: one is
	// enough, and a person looks too.
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// New makes a Registry that has the Go runtime's and the process's own metrics.
func New(version string) *Registry {
	r := &Registry{registry: prometheus.NewRegistry(), descs: map[string]*prometheus.Desc{}, kinds: map[string]Kind{}}
	for _, m := range Table {
		r.descs[m.Name] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
		r.kinds[m.Name] = m.Kind
	}
	r.registry.MustRegister(r, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.Add(func(e *Emitter) { e.Value("perigee_build_info", 1, version) })
	return r
}

// Add adds a part.
func (r *Registry) Add(s Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources = append(r.sources, s)
}

// Handler answers scrapes.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout})
}

// Describe implements prometheus.Collector.
func (r *Registry) Describe(out chan<- *prometheus.Desc) {
	for _, d := range r.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (r *Registry) Collect(out chan<- prometheus.Metric) {
	r.mu.Lock()
	sources := r.sources[:len(r.sources):len(r.sources)]
	r.mu.Unlock()
	e := &Emitter{r: r, out: out}
	for _, s := range sources {
		s(e)
	}
}

// Emitter takes the values of one scrape.
type Emitter struct {
	r   *Registry
	out chan<- prometheus.Metric
}

// Value gives one value of a metric of Table, with its labels in their order.
// Another name, or another number of labels, shows as an error of the scrape.
func (e *Emitter) Value(name string, v float64, labels ...string) {
	d := e.r.descs[name]
	if d == nil {
		e.out <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(fmt.Errorf("%s is not in metrics.Table", name)), fmt.Errorf("%s is not in metrics.Table", name))
		return
	}
	kind := prometheus.CounterValue
	if e.r.kinds[name] == Gauge {
		kind = prometheus.GaugeValue
	}
	m, err := prometheus.NewConstMetric(d, kind, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	e.out <- m
}

// Bool is Value for what is so (1) or not (0).
func (e *Emitter) Bool(name string, is bool, labels ...string) {
	v := 0.0
	if is {
		v = 1
	}
	e.Value(name, v, labels...)
}
