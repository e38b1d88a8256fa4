package zones_test

import (
	"fmt"

	"perigee.example/zones"
)

// Load a zone, and look a name up that its wildcard covers.
func Example() {
	const text = `
$TTL 300
@       SOA   ns1 hostmaster 1 7200 900 1209600 60
@       NS    ns1
ns1     A     192.0.2.1
*.shops A     192.0.2.90
`
	zone, findings := zones.Parse("example.test.zone", []byte(text), zones.Options{Origin: "example.test"})
	for _, f := range findings {
		fmt.Printf("%s:%d: %s\n", f.File, f.Line, f.Text)
	}
	name, err := zones.ParseName("berlin.shops.example.test")
	if err != nil {
		fmt.Println(err)
		return
	}
	const typeA = 1
	var r zones.Result
	zone.Lookup(name, typeA, &r)
	set, _ := zone.RRset(r.Node, typeA)
	fmt.Println(r.Kind == zones.Found, r.Wildcard, zones.FormatName(zone.Owner(r.Node, nil)))
	fmt.Println(set.Count, "record, TTL", set.TTL)
	// Output:
	// true true *.shops.example.test.
	// 1 record, TTL 300
}
