// Package bucket keeps objects in a bucket of S3, or of what speaks its
// protocol: puts, gets, lists and deletes them, each call within a time that is
// bounded, with errors that say what is wrong and the cure. It knows nothing of what is in
// them: whoever gets an object verifies it.
//
//	b, err := bucket.Open(bucket.Config{Name: "blobs", Region: "eu-central-1"}, log)
//	err = b.Put(ctx, "greeting", int64(len(text)), strings.NewReader(text))
//	body, size, err := b.Get(ctx, "greeting")
//	defer body.Close()
//
// Limits: maxCalls calls at a time, and maxBodies bodies of Get; others wait.
// Objects are sent in parts of partSize, at most partsAtOnce of them at a time.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"
)

const (
	dialWait = 5 * time.Second
	// answerWait bounds the wait for the head of an answer, and for the next
	// octets of a body.
	answerWait = 20 * time.Second
	// callWait bounds a call, with its repetitions. One that sends has a second
	// more for each slowest octets.
	callWait = 45 * time.Second
	slowest  = 1 << 20
	// tries is how often a call is made that fails for a reason which may pass.
	tries       = 3
	maxTryPause = 2 * time.Second
	maxCalls    = 64
	maxBodies   = 256
	partSize    = 8 << 20 // 10,000 parts, which S3 allows, are 78 GiB
	partsAtOnce = 3
	pageObjects = 1000 // of one list: the most that S3 gives
	// largePuts is how many objects of more than smallPut are sent at a time: the
	// client holds up to 60 MiB of each.
	largePuts    = 3
	smallPut     = 1 << 20
	contentType  = "application/octet-stream"
	maxReadWhole = 64 << 10 // what Read takes
)

// Config says which bucket, and how to get in.
type Config struct {
	Name     string
	Region   string
	Endpoint string // URL; "": that of AWS for Region
	Prefix   string // of every key; "" or ends in "/"
	// Credentials is the path of a file such as ~/.aws/credentials, read again
	// every credentialsAge; "": as the tools of AWS find them.
	Credentials string
}

// Where names the bucket for people: no secret is in it.
func (c *Config) Where() string {
	at := c.Endpoint
	if at == "" {
		at = c.Region
	}
	return "s3://" + c.Name + "/" + c.Prefix + " at " + at
}

// Object is what a list tells of one.
type Object struct {
	Key     string // without the prefix
	Size    int64
	Written time.Time // by the bucket's clock
}

// Bucket is one. Its methods are safe for concurrent use.
type Bucket struct {
	c      Config
	log    *slog.Logger
	bucket *blob.Bucket
	calls  chan struct{}
	bodies chan struct{}
	large  chan struct{}
	// wait and stall are callWait and answerWait, but in tests.
	wait, stall time.Duration

	mu    sync.Mutex
	stats Stats
}

// Open makes a Bucket; it calls nobody yet. log hears when the bucket goes and
// comes back; nil discards.
func Open(c Config, log *slog.Logger) (*Bucket, error) { return openWith(c, log, maxTryPause) }

func openWith(c Config, log *slog.Logger, tryPause time.Duration) (*Bucket, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	creds, err := credentials(&c)
	if err != nil {
		return nil, err
	}
	o := s3.Options{
		Region: c.Region, Credentials: creds, HTTPClient: &http.Client{Transport: transport()},
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = tries, tryPause }),
		// What is got is verified by its digest, by who gets it.
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}
	var opts s3blob.Options
	if c.Endpoint != "" {
		// Servers other than AWS's know paths, and not all know its checksums.
		o.BaseEndpoint, o.UsePathStyle = aws.String(c.Endpoint), true
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		opts.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	}
	b, err := s3blob.OpenBucket(context.Background(), s3.New(o), c.Name, &opts)
	if err != nil {
		return nil, err
	}
	if c.Prefix != "" {
		b = blob.PrefixedBucket(b, c.Prefix)
	}
	return &Bucket{
		c: c, log: log, bucket: b, wait: callWait, stall: answerWait,
		calls: make(chan struct{}, maxCalls), bodies: make(chan struct{}, maxBodies), large: make(chan struct{}, largePuts),
	}, nil
}

// transport bounds every wait of a connection.
func transport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialWait}).DialContext, TLSHandshakeTimeout: dialWait,
		ResponseHeaderTimeout: answerWait, ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost: maxCalls, IdleConnTimeout: time.Minute, DisableCompression: true,
	}
}

// Close ends idle connections.
func (b *Bucket) Close() error { return b.bucket.Close() }

// Where names the bucket for people.
func (b *Bucket) Where() string { return b.c.Where() }

// enter takes a place in a queue, and returns what gives it back.
func enter(ctx context.Context, queue chan struct{}) (leave func(), err error) {
	select {
	case queue <- struct{}{}:
		return func() { <-queue }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// call makes one call within wait, when its turn has come.
func (b *Bucket) call(ctx context.Context, op, key string, wait time.Duration, f func(context.Context) error) error {
	leave, err := enter(ctx, b.calls)
	if err != nil {
		return err
	}
	defer leave()
	within, cancel := context.WithTimeoutCause(ctx, wait, errSlow)
	defer cancel()
	if err = f(within); err != nil && within.Err() != nil {
		err = context.Cause(within)
	}
	return b.outcome(ctx, op, key, err)
}

// Put makes size octets of r an object, in the place of one of that key. It is
// there as a whole, or not at all. A nil error means that the bucket has it for good.
func (b *Bucket) Put(ctx context.Context, key string, size int64, r io.ReadSeeker) error {
	if size > smallPut {
		leave, err := enter(ctx, b.large)
		if err != nil {
			return err
		}
		defer leave()
	}
	src := &source{ReadSeeker: r}
	wait := b.wait + time.Duration(size/slowest)*time.Second
	err := b.call(ctx, "put", key, wait, func(ctx context.Context) error {
		err := b.bucket.Upload(ctx, key, src, &blob.WriterOptions{ContentType: contentType, BufferSize: partSize, MaxConcurrency: partsAtOnce})
		if broken := src.broken(); broken != nil {
			return &sourceError{broken}
		}
		return err
	})
	if err == nil {
		b.count(&b.stats.Sent, size)
	}
	return err
}

// sourceError: what is to be sent cannot be read.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// source notes that what is to be sent cannot be read.
type source struct {
	io.ReadSeeker
	mu  sync.Mutex
	err error
}

func (s *source) note(err error) {
	if err != nil && err != io.EOF {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
	}
}

func (s *source) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.ReadSeeker.Read(p)
	s.note(err)
	return n, err
}

// Get opens an object, of as many octets as the bucket says. The caller closes it. The error is
// fs.ErrNotExist when it is not there.
func (b *Bucket) Get(ctx context.Context, key string) (_ io.ReadCloser, size int64, err error) {
	leave, err := enter(ctx, b.bodies)
	if err != nil {
		return nil, 0, err
	}
	during, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(b.wait, func() { cancel(errSlow) })
	r, err := b.bucket.NewReader(during, key, nil)
	timer.Stop()
	if err != nil && during.Err() != nil {
		err = context.Cause(during)
	}
	if err := b.outcome(ctx, "get", key, err); err != nil {
		cancel(nil)
		leave()
		return nil, 0, err
	}
	return &body{b: b, ctx: ctx, r: r, key: key, timer: timer, cancel: cancel, during: during, leave: sync.OnceFunc(leave)}, r.Size(), nil
}

// body is what Get returns: it fails when the bucket stops sending.
type body struct {
	b      *Bucket
	ctx    context.Context
	during context.Context
	r      *blob.Reader
	key    string
	timer  *time.Timer
	cancel context.CancelCauseFunc
	leave  func()
}

func (r *body) Read(p []byte) (int, error) {
	r.timer.Reset(r.b.stall) // not while the caller does something else
	n, err := r.r.Read(p)
	r.timer.Stop()
	r.b.count(&r.b.stats.Got, int64(n))
	if err != nil && err != io.EOF {
		if r.during.Err() != nil {
			err = context.Cause(r.during)
		}
		err = r.b.outcome(r.ctx, "get", r.key, err)
	}
	return n, err
}

func (r *body) Close() error {
	r.timer.Stop()
	err := r.r.Close()
	r.cancel(nil)
	r.leave()
	return err
}

// Read returns a small object whole.
func (b *Bucket) Read(ctx context.Context, key string) ([]byte, error) {
	r, size, err := b.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxReadWhole {
		return nil, fmt.Errorf("bucket %s: %s has %d bytes: it is not what was to be there", b.c.Name, key, size)
	}
	return io.ReadAll(io.LimitReader(r, maxReadWhole))
}

// Head tells of one object. The error is fs.ErrNotExist when it is not there.
func (b *Bucket) Head(ctx context.Context, key string) (o Object, err error) {
	err = b.call(ctx, "head", key, b.wait, func(ctx context.Context) error {
		a, err := b.bucket.Attributes(ctx, key)
		if err == nil {
			o = Object{key, a.Size, a.ModTime}
		}
		return err
	})
	return o, err
}

// Delete removes an object; one that is not there is removed already.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	err := b.call(ctx, "delete", key, b.wait, func(ctx context.Context) error { return b.bucket.Delete(ctx, key) })
	if errors.Is(err, errNotThere) {
		return nil
	}
	return err
}

// List yields the objects whose keys begin with prefix, in the order of keys. An error ends it.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		token := blob.FirstPageToken
		for len(token) > 0 {
			var page []*blob.ListObject
			err := b.call(ctx, "list", prefix, b.wait, func(ctx context.Context) (err error) {
				page, token, err = b.bucket.ListPage(ctx, token, pageObjects, &blob.ListOptions{Prefix: prefix})
				return err
			})
			if err != nil {
				yield(Object{}, err)
				return
			}
			for _, o := range page {
				if !yield(Object{o.Key, o.Size, o.ModTime}, nil) {
					return
				}
			}
		}
	}
}
