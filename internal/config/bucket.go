package config

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Bucket is [control.bucket]: where the control node keeps blobs instead of its
// folder. The zero Bucket is none.
type Bucket struct {
	Name     string
	Region   string
	Endpoint *url.URL // nil: that of AWS for Region
	Prefix   string   // of every object's name; empty, or ends in "/"
	// Credentials is the path of a file such as ~/.aws/credentials; empty: they
	// come from where the tools of AWS take them.
	Credentials string
}

const (
	// defaultRegion is what servers other than AWS's expect, which have no regions.
	defaultRegion = "us-east-1"
	exampleBucket = "perigee-blobs"
	// maxPrefix leaves room for the digest in a key of 1,024 octets.
	maxPrefix = 512
)

var (
	// bucketName is the form of a bucket's name, as S3 has it: 3 to 63 octets.
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	regionName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	// keyPrefix has what needs no escaping in a key.
	keyPrefix = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*/?$`)
)

// readBucket reads control.bucket.
func (c *Config) readBucket(t *table) {
	b := &c.Control.Bucket
	b.Name = t.string("name", "", exampleBucket)
	b.Region = t.string("region", "", "eu-central-1")
	b.Endpoint = t.oneURL("endpoint", "https://s3.example.net")
	b.Prefix = t.string("prefix", "", "perigee/")
	b.Credentials = t.file("credentials", "bucket.credentials")
	t.done()
	if t.n == nil {
		*b = Bucket{}
		return
	}
	switch name, isURL := strings.CutPrefix(b.Name, "s3://"); {
	case !t.has("name"):
		t.missing("has no name", fmt.Sprintf("write name = %q, the bucket's", exampleBucket))
	case t.n.child("name").kind != stringKind: // said already
	case isURL:
		name, _, _ = strings.Cut(name, "/")
		t.wrong(t.n.child("name"), "name", "this is a URL", fmt.Sprintf("write the bucket's name alone: name = %q; region, endpoint and prefix have keys of their own", name))
	case !bucketName.MatchString(b.Name) || strings.Contains(b.Name, ".."):
		t.wrong(t.n.child("name"), "name", fmt.Sprintf("%q cannot be the name of a bucket", b.Name), "it has 3 to 63 lower-case letters, digits, hyphens and dots")
	}
	switch {
	case b.Region != "" && !regionName.MatchString(b.Region):
		t.wrong(t.n.child("region"), "region", fmt.Sprintf("%q cannot be a region", b.Region), `write it as it stands in the bucket's address, such as "eu-central-1"`)
	case b.Region == "" && !t.has("endpoint") && !t.has("region"):
		t.missing("has no region", `write region = "eu-central-1", the bucket's; or, when it is not at AWS, endpoint = "https://…"`)
	case b.Region == "":
		b.Region = defaultRegion
	}
	if b.Prefix == "" {
		return
	}
	if !keyPrefix.MatchString(b.Prefix) || len(b.Prefix) > maxPrefix || strings.Contains("/"+b.Prefix+"/", "/../") || strings.Contains("/"+b.Prefix+"/", "/./") {
		t.wrong(t.n.child("prefix"), "prefix", fmt.Sprintf("%q cannot begin the names of objects", b.Prefix), `write folders without "/" before them, of letters, digits, "_", "." and "-": "perigee/"`)
		b.Prefix = ""
		return
	}
	b.Prefix = strings.TrimSuffix(b.Prefix, "/") + "/"
}

// oneURL is the http or https address of a server, or nil.
func (t *table) oneURL(key, example string) *url.URL {
	n := t.want(key, stringKind, fmt.Sprintf("%q", example))
	if n == nil {
		return nil
	}
	u, text, hint := serverURL(n.text, example, []string{"https", "http"})
	if text != "" {
		t.wrong(n, key, text, hint)
		return nil
	}
	return u
}
