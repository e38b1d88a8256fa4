// Package memnet is an in-memory network for tests: packet conns and stream
// listeners that work inside a testing/synctest bubble.
package memnet
