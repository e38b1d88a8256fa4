//go:build !mutant_ack

package node

// purgeFirst: purges are applied before they are journalled.
const purgeFirst = true

// inOrder applies what was read, and only then moves the place that is reported.
func inOrder(apply, move func()) {
	apply()
	move()
}
