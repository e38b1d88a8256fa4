// Package txtest runs txtar conversations: files that an operator can read
// and that "go test -update" rewrites. It also knows which outside programs
// tests need, and says by name which tests were skipped for want of one.
package txtest
