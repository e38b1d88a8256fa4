//go:build mutant_ack

package node

import "time"

const purgeFirst = false

// inOrder of this mutant reports before it applies: `make test-fleet-mutants`.
func inOrder(apply, move func()) {
	move()
	time.AfterFunc(300*time.Millisecond, apply)
}
