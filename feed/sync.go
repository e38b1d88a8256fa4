//go:build !mutant_nosync

package feed

// syncAlways: an acknowledgement means synced. With JetStream's default a loss of power
// takes every message with it.
const syncAlways = true
