package config

import (
	"strings"
	"testing"
)

// [control.bucket]: what is taken, and each mistake with its word and its cure.
func TestBucket(t *testing.T) {
	c := mustParse(t, "version = 1\n[control.bucket]\nname = \"blobs\"\nregion = \"eu-central-1\"\nprefix = \"a/b\"\ncredentials = \"keys\"\n")
	if got, want := c.Control.Bucket, (Bucket{Name: "blobs", Region: "eu-central-1", Prefix: "a/b/", Credentials: "/etc/perigee/keys"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c = mustParse(t, "version = 1\n[control.bucket]\nname = \"blobs\"\nendpoint = \"http://127.0.0.1:9000\"\n")
	if b := c.Control.Bucket; b.Region != defaultRegion || b.Endpoint.String() != "http://127.0.0.1:9000" || b.Prefix != "" {
		t.Errorf("%+v", b)
	}
	const name = "name = \"blobs\"\nregion = \"eu-central-1\"\n"
	for _, x := range []struct{ text, wrong, hint string }{
		{"region = \"eu-central-1\"", "has no name", `write name = "perigee-blobs"`},
		{"name = \"blobs\"", "has no region", `endpoint = "https://…"`},
		{"name = \"s3://blobs/x\"\nregion = \"eu-central-1\"", "this is a URL", `name = "blobs"`},
		{"name = \"Blobs\"\nregion = \"eu-central-1\"", `"Blobs" cannot be the name of a bucket`, "lower-case"},
		{"name = \"a..b\"\nregion = \"eu-central-1\"", "cannot be the name", ""},
		{"name = 7\nregion = \"eu-central-1\"", "expected a string", ""},
		{"name = \"blobs\"\nregion = \"Frankfurt\"", `"Frankfurt" cannot be a region`, "eu-central-1"},
		{name + "endpoint = \"s3.example.net\"", "has no scheme", `"https://s3.example.net"`},
		{name + "endpoint = \"https://key:secret@s3.example.net\"", "no user and no password", ""},
		{name + "prefix = \"/a\"", "cannot begin the names of objects", "folders"},
		{name + "prefix = \"a/../b\"", "cannot begin", ""},
		{name + "prefix = \"a//b\"", "cannot begin", ""},
		{name + "secret_access_key = \"wJalrXUtnFEMI\"", "this looks like a secret", "mode 0600"},
		{name + "buckets = 1", "there is no such key", "credentials, endpoint, name, prefix, region"},
	} {
		_, err := Parse("perigee.toml", []byte("version = 1\n[control.bucket]\n"+x.text+"\n"), "/etc/perigee")
		if err == nil {
			t.Errorf("%s: taken", x.text)
			continue
		}
		text := Render(err)
		if !strings.Contains(text, x.wrong) || !strings.Contains(text, x.hint) || strings.Contains(text, "wJalr") {
			t.Errorf("%s:\n%s\nwant %q and %q", x.text, text, x.wrong, x.hint)
		}
	}
}
