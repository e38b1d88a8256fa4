//go:build race

package fleet

// raceEnabled says that the fleet is built with the race detector, too.
const raceEnabled = true
