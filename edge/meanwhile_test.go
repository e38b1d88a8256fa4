package edge

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A request that finds nothing, and comes to the fetches when that of another has
// just ended, has what that one stored.
func TestStoredMeanwhile(t *testing.T) {
	t.Run("whole", func(t *testing.T) { storedMeanwhile(t) })
	t.Run("part", func(t *testing.T) { storedMeanwhile(t, "Range", "bytes=2-3") })
}

func storedMeanwhile(t *testing.T, fields ...string) {
	synctest.Test(t, func(t *testing.T) {
		f := newLargeFile(100)
		var e *Edge
		var late atomic.Bool
		now := func() time.Time { // it is asked for between the two
			pc := make([]uintptr, 1)
			runtime.Callers(2, pc)
			caller, _ := runtime.CallersFrames(pc).Next()
			if strings.HasSuffix(caller.Function, ").missAllowed") && late.CompareAndSwap(true, false) {
				call(t.Context(), e, newAnswer(), fields...)
				synctest.Wait()
			}
			return time.Now()
		}
		var err error
		e, err = New(Config{Now: now, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: HandlerTransport(f)}}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		late.Store(true)
		w := newAnswer()
		call(t.Context(), e, w, fields...)
		if asked, cs := f.requests(), w.header.Get("Cache-Status"); strings.Count(asked, "GET") != 1 || !strings.Contains(cs, "hit") || late.Load() {
			t.Errorf("the origin was asked %s; the late one: %s", asked, cs)
		}
	})
}

// inWarn calls what it is with each warning.
type inWarn func()

func (w inWarn) Enabled(context.Context, slog.Level) bool      { return true }
func (w inWarn) Handle(_ context.Context, r slog.Record) error { w(); return nil }
func (w inWarn) WithAttrs([]slog.Attr) slog.Handler            { return w }
func (w inWarn) WithGroup(string) slog.Handler                 { return w }

// Who asks again when a body was cut short does not get the same again, though its
// fetch has not quite ended.
func TestCutShortIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGated("max-age=60")
		g.fail = io.ErrUnexpectedEOF
		close(g.head)
		g.body <- "half"
		close(g.body)
		var e *Edge
		again := newAnswer()
		var err error
		log := slog.New(inWarn(func() {
			if g.requests.Load() == 1 { // it has been said that it is cut short, and the fetch is not over
				g.fail = nil
				call(t.Context(), e, again)
			}
		}))
		e, err = New(Config{Log: log, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: g}}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if !call(t.Context(), e, newAnswer()) {
			t.Error("half a response has a proper end")
		}
		synctest.Wait()
		if n := g.requests.Load(); n != 2 || again.status != 200 {
			t.Errorf("%d requests; the second client got %d", n, again.status)
		}
	})
}
