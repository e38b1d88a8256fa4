package policy

import (
	"math"
	"time"
)

const (
	earthRadius = 6371.0088 // km, the mean radius

	// rttPerKm turns a great-circle distance into a round trip: light in
	// fibre takes about 10 µs there and back for each kilometre, and cables
	// are about half as long again as the way a bird flies. Only comparing an
	// estimate with a row of a static table depends on it.
	rttPerKm = 15 * time.Microsecond

	// rttStep is what estimates are rounded to, about 67 km. Choices that are
	// as near as that are equal and stand in the order written, so that
	// neighbouring networks have the same ranking and share a block.
	rttStep = time.Millisecond
)

// distance is the great-circle distance in km between two points given in
// degrees, by the haversine formula, which stays exact for near points.
func distance(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	sinLat, sinLon := math.Sin((lat2-lat1)*rad/2), math.Sin((lon2-lon1)*rad/2)
	h := sinLat*sinLat + math.Cos(lat1*rad)*math.Cos(lat2*rad)*sinLon*sinLon
	return 2 * earthRadius * math.Asin(math.Sqrt(min(1, h)))
}

// estimateRTT is the round trip to expect over km kilometres.
func estimateRTT(km float64) time.Duration {
	return time.Duration(km * float64(rttPerKm)).Round(rttStep)
}
