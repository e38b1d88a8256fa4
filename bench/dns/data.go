package main

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The zone: hosts with A and AAAA, wildcards, cuts, chains, large sets, and a
// name that Perigee steers.
const (
	origin    = "bench.test."
	hosts     = 10_000
	wildcards = 100
	cuts      = 100
	chains    = 100
	larges    = 50
	queries   = 50_000

	signedOrigin = "signed.test."
)

// signZone makes a zone with the same hosts and signs it with ldns. It returns
// the path, or an empty one where the signer is missing.
func signZone(dir string) (string, error) {
	if _, err := exec.LookPath("ldns-signzone"); err != nil {
		return "", nil
	}
	path := filepath.Join(dir, "signed.test.zone")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "$ORIGIN %s\n$TTL 3600\n@ IN SOA ns1 hostmaster 1 7200 900 1209600 300\n@ IN NS ns1\nns1 IN A 127.0.0.1\n", signedOrigin)
	for i := range hosts {
		fmt.Fprintf(w, "h%d IN A 10.%d.%d.%d\nh%d IN AAAA 2001:db8::%x\n", i, i>>16, i>>8&255, i&255, i, i)
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return "", err
	}
	keygen := exec.Command("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", signedOrigin)
	keygen.Dir = dir
	key, err := keygen.Output()
	if err != nil {
		return "", fmt.Errorf("ldns-keygen: %w", err)
	}
	sign := exec.Command("ldns-signzone", "-f", path+".signed", path, strings.TrimSpace(string(key)))
	sign.Dir = dir
	if out, err := sign.CombinedOutput(); err != nil {
		return "", fmt.Errorf("ldns-signzone: %w\n%s", err, out)
	}
	return path + ".signed", nil
}

// writeGeo unpacks the country data that Perigee brings along, for the others.
func writeGeo(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, z)
	return errors.Join(err, out.Close())
}

// writeText writes a mix in the form that dnsperf reads.
func writeText(path, mix string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	r := rand.New(rand.NewPCG(1, 2))
	for range queries {
		q, err := oneQuery(r, mix)
		if err != nil {
			return err
		}
		name, rest := "", q[12:]
		for rest[0] != 0 {
			name += string(rest[1:1+rest[0]]) + "."
			rest = rest[1+rest[0]:]
		}
		fmt.Fprintf(w, "%s TYPE%d\n", name, binary.BigEndian.Uint16(rest[1:]))
	}
	return errors.Join(w.Flush(), f.Close())
}

func writeZone(path, besides string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "$ORIGIN %s\n$TTL 3600\n@ IN SOA ns1 hostmaster 1 7200 900 1209600 300\n@ IN NS ns1\nns1 IN A 127.0.0.1\n", origin)
	for i := range hosts {
		fmt.Fprintf(w, "h%d IN A 10.%d.%d.%d\nh%d IN AAAA 2001:db8::%x\n", i, i>>16, i>>8&255, i&255, i, i)
	}
	for i := range wildcards {
		fmt.Fprintf(w, "*.w%d IN A 10.200.0.%d\n", i, i)
	}
	for i := range cuts {
		fmt.Fprintf(w, "c%d IN NS ns1.c%d\nc%d IN NS ns2.c%d\nns1.c%d IN A 10.201.0.%d\nns2.c%d IN A 10.201.1.%d\n", i, i, i, i, i, i, i, i)
	}
	for i := range chains {
		fmt.Fprintf(w, "a%d IN CNAME b%d\nb%d IN CNAME h%d\n", i, i, i, i)
	}
	for i := range larges {
		for j := range 20 {
			fmt.Fprintf(w, "l%d IN AAAA 2001:db8:1::%x\n", i, i*32+j)
		}
	}
	fmt.Fprintf(w, "plain IN A 10.202.0.1\n%s", besides)
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// writeQueries writes a mix in the form that flood reads. The seed is fixed: all
// servers get the same queries, run after run.
func writeQueries(path, mix string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	r := rand.New(rand.NewPCG(1, 2))
	n := queries
	if mix == "ecs" || mix == "steered" || mix == "weighted" {
		n = 1_000_000 // as many client networks: no cache of ours holds them
	}
	for range n {
		q, err := oneQuery(r, mix)
		if err != nil {
			return err
		}
		if err := binary.Write(w, binary.BigEndian, uint16(len(q))); err != nil {
			return err
		}
		if _, err := w.Write(q); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

const (
	typeA    = 1
	typeMX   = 15
	typeAAAA = 28
)

func oneQuery(r *rand.Rand, mix string) ([]byte, error) {
	edns := r.IntN(2) == 0
	switch mix {
	case "mix", "tcp", "paced": // as measured elsewhere: 60 % A, 20 % AAAA, 5 % wildcard, 15 % NXDOMAIN
		switch p := r.IntN(100); {
		case p < 60:
			return query(fmt.Sprintf("h%d", r.IntN(hosts)), typeA, edns, 0), nil
		case p < 80:
			return query(fmt.Sprintf("h%d", r.IntN(hosts)), typeAAAA, edns, 0), nil
		case p < 85:
			return query(fmt.Sprintf("x%d.w%d", r.IntN(1000), r.IntN(wildcards)), typeA, edns, 0), nil
		}
		return query(fmt.Sprintf("n%d", r.IntN(1_000_000)), typeA, edns, 0), nil
	case "referral":
		return query(fmt.Sprintf("x.c%d", r.IntN(cuts)), typeA, edns, 0), nil
	case "cname":
		return query(fmt.Sprintf("a%d", r.IntN(chains)), typeA, edns, 0), nil
	case "large":
		return query(fmt.Sprintf("l%d", r.IntN(larges)), typeAAAA, true, 0), nil
	case "truncated": // without EDNS: 512 octets
		return query(fmt.Sprintf("l%d", r.IntN(larges)), typeAAAA, false, 0), nil
	case "signed":
		switch p := r.IntN(100); {
		case p < 60:
			return signedQuery(fmt.Sprintf("h%d", r.IntN(hosts)), typeA), nil
		case p < 80:
			return signedQuery(fmt.Sprintf("h%d", r.IntN(hosts)), typeAAAA), nil
		case p < 85:
			return signedQuery(fmt.Sprintf("h%d", r.IntN(hosts)), typeMX), nil // no data
		}
		return signedQuery(fmt.Sprintf("n%d", r.IntN(1_000_000)), typeA), nil
	case "weighted":
		return query("weighted", typeA, true, r.Uint32()|1<<24), nil
	case "ecs":
		return query("plain", typeA, true, r.Uint32()|1<<24), nil
	case "steered":
		return query("steered", typeA, true, r.Uint32()|1<<24), nil
	}
	return nil, fmt.Errorf("mix %q: want mix, referral, cname, large, truncated, signed, ecs, steered, weighted, tcp or paced", mix)
}

// signedQuery is a query with DO for a name of the signed zone.
func signedQuery(name string, qtype uint16) []byte {
	b := queryIn(signedOrigin, name, qtype, true, 0)
	b[len(b)-4] = 0x80
	return b
}

// query is a query in wire form; with a client network (a /24) when it is not 0.
func query(name string, qtype uint16, edns bool, client uint32) []byte {
	return queryIn(origin, name, qtype, edns, client)
}

func queryIn(origin, name string, qtype uint16, edns bool, client uint32) []byte {
	b := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name+"."+strings.TrimSuffix(origin, "."), ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, qtype)
	b = append(b, 0, 1)
	if !edns {
		return b
	}
	b[11] = 1
	b = append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0) // OPT, 1232 octets
	if client == 0 {
		return append(b, 0, 0)
	}
	b = append(b, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0) // RFC 7871: family 1, SOURCE 24, SCOPE 0
	return append(b, byte(client>>24), byte(client>>16), byte(client>>8))
}
