package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"time"

	"github.com/aws/smithy-go"
	"gocloud.dev/gcerrors"
)

// Error is a call that the bucket, or the way to it, did not do.
type Error struct {
	Bucket, Op, Key string
	Why             string
	Hint            string // the cure
}

func (e *Error) Error() string {
	return fmt.Sprintf("bucket %s: %s %s: %s", e.Bucket, e.Op, e.Key, e.Why)
}

var (
	errSlow = errors.New("it takes too long to answer")
	// errNotThere is fs.ErrNotExist, of an object in a bucket that answers.
	errNotThere = fs.ErrNotExist
)

// cures are the hints for what S3 calls errors.
var cures = map[string]string{
	"NoSuchBucket":                 "make the bucket, or correct name, region and endpoint in [control.bucket]",
	"InvalidBucketName":            "correct name in [control.bucket]",
	"PermanentRedirect":            "the bucket is in another region: correct region in [control.bucket]",
	"MovedPermanently":             "the bucket is in another region: correct region in [control.bucket]",
	"AuthorizationHeaderMalformed": "the bucket is in another region: correct region in [control.bucket]",
	"AccessDenied":                 "let these credentials get, put, delete and list objects of the bucket",
	"Forbidden":                    "let these credentials get, put, delete and list objects of the bucket",
	"InvalidAccessKeyId":           "correct the credentials that [control.bucket] names",
	"SignatureDoesNotMatch":        "correct the credentials that [control.bucket] names",
	"ExpiredToken":                 "renew the credentials that [control.bucket] names",
	"RequestTimeTooSkewed":         "set this machine's clock",
}

const (
	awayHint   = "see to the bucket, and the way to it; edges serve what they have meanwhile"
	noCredHint = "write credentials = \"FILE\" in [control.bucket], or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)

// outcome counts a call, notes whether the bucket answers, and makes the error one
// that people understand. caller is the context of who called: when that has ended,
// nothing is known of the bucket.
func (b *Bucket) outcome(caller context.Context, op, key string, err error) error {
	if err != nil && caller.Err() != nil {
		return fmt.Errorf("bucket %s: %s %s: %w", b.c.Name, op, key, context.Cause(caller))
	}
	if err == nil {
		b.answers(op, "ok")
		return nil
	}
	var own *sourceError
	if errors.As(err, &own) { // not the bucket's fault
		return fmt.Errorf("bucket %s: put %s: %w", b.c.Name, key, own.err)
	}
	e := &Error{Bucket: b.c.Name, Op: op, Key: key, Hint: awayHint}
	var api smithy.APIError
	var way *url.Error
	var none *credentialsError
	switch {
	case errors.As(err, &none):
		e.Why, e.Hint = none.Error(), noCredHint
	case errors.As(err, &api):
		if gcerrors.Code(err) == gcerrors.NotFound && api.ErrorCode() != "NoSuchBucket" {
			b.answers(op, "ok")
			return fmt.Errorf("bucket %s: %s: %w", b.c.Name, key, errNotThere)
		}
		e.Why = api.ErrorCode()
		if m := api.ErrorMessage(); m != "" && m != e.Why {
			e.Why += ": " + m
		}
		if cure := cures[api.ErrorCode()]; cure != "" {
			e.Hint = cure
		}
	case errors.Is(err, errSlow), errors.Is(err, context.DeadlineExceeded):
		e.Why = errSlow.Error()
	case errors.As(err, &way):
		e.Why = way.Err.Error()
	default:
		e.Why = err.Error()
	}
	b.lost(op, e)
	return e
}

// Stats is how the bucket stands.
type Stats struct {
	// Lost is since when calls fail; zero: the last one did not. Why says why.
	Lost time.Time
	Why  string
	// Calls counts them by what they did (put, get, head, list, delete) and how they ended (ok, failed).
	Calls     map[[2]string]uint64
	Sent, Got int64 // octets
}

// Stats returns how the bucket stands.
func (b *Bucket) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Calls = maps.Clone(s.Calls)
	return s
}

func (b *Bucket) count(n *int64, by int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*n += by
}

func (b *Bucket) counted(op, how string) {
	if b.stats.Calls == nil {
		b.stats.Calls = map[[2]string]uint64{}
	}
	b.stats.Calls[[2]string{op, how}]++
}

func (b *Bucket) answers(op, how string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counted(op, how)
	if !b.stats.Lost.IsZero() {
		b.log.Info("the bucket answers again", "bucket", b.c.Name, "away", time.Since(b.stats.Lost).Round(time.Second))
	}
	b.stats.Lost, b.stats.Why = time.Time{}, ""
}

func (b *Bucket) lost(op string, e *Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counted(op, "failed")
	if b.stats.Lost.IsZero() {
		b.stats.Lost = time.Now()
		b.log.Error("the bucket cannot be used: uploads are refused, edges serve what they have", "bucket", b.c.Where(), "call", e.Op, "why", e.Why, "hint", e.Hint)
	}
	b.stats.Why = e.Why
}
