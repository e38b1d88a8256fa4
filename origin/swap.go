//go:build !mutant_swap

package origin

// swapNeedsBlobs: a release becomes active only when every blob of it is stored.
const swapNeedsBlobs = true
