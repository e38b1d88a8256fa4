//go:build !mutant_swap

package node

// swapEarly: an activation is tried when every blob has come, not before.
const swapEarly = false
