// Package geo reads MaxMind DB files (GeoIP2, GeoLite2: City, Country, ASN)
// into policy.Location, and holds the built-in country database.
package geo
