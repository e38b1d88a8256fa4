//go:build race

package edge

// raceEnabled says that allocations cannot be counted: sync.Pool drops at random.
const raceEnabled = true
