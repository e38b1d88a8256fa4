package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

const (
	// maxHeadBytes and maxBodyBytes bound what a probe reads: a health page
	// has a few words. A longer body is not a failure; the rest is not read.
	maxHeadBytes = 64 << 10
	maxBodyBytes = 64 << 10
	// maxWhyBytes bounds the reason that is kept and shown.
	maxWhyBytes = 300
)

// newClient makes the client of all HTTP probes: a new connection each time,
// so that a listener that accepts no more is seen; no redirects, no proxy.
func newClient(o Options) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            o.DialContext,
			TLSClientConfig:        o.TLS,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeadBytes,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// try probes a target once and says in words what came.
func (c *Checker) try(ctx context.Context, t Target) (why string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, fmt.Errorf("no answer within %s", c.o.Timeout))
	defer cancel()
	if t.URL == "" {
		why, err = c.tryTCP(ctx, t)
	} else {
		why, err = c.tryHTTP(ctx, t)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) {
		err = urlErr.Err // the method and URL are known from the target
	}
	if err != nil {
		if text := err.Error(); len(text) > maxWhyBytes {
			err = errors.New(text[:maxWhyBytes] + "…")
		}
	}
	return why, err
}

func (c *Checker) tryTCP(ctx context.Context, t Target) (string, error) {
	conn, err := c.o.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return "", err
	}
	_ = conn.Close() // that it opened is the result
	return "connected", nil
}

func (c *Checker) tryHTTP(ctx context.Context, t Target) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "perigee-health")
	client := c.client
	if t.Host != "" {
		req.Host = t.Host
	}
	if t.ServerName != "" {
		client = c.clientFor(t.ServerName)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBodyBytes)); err != nil {
		return "", fmt.Errorf("status %d, then: %w", resp.StatusCode, err)
	}
	if resp.StatusCode/100 != 2 {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	return fmt.Sprintf("status %d", resp.StatusCode), nil
}

// clientFor returns a client that wants a certificate for name. It is made
// for each probe: no connection outlives one anyway.
func (c *Checker) clientFor(name string) *http.Client {
	o := c.o
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
	} else {
		o.TLS = &tls.Config{}
	}
	o.TLS.ServerName = name
	return newClient(o)
}
