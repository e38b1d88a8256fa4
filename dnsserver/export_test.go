package dnsserver

// Generally and Plainly are the two ways to answer, for tests that hold them
// against each other.
var Generally = (*View).generally

func Plainly(v *View, dst, packet []byte, c *Context, out *Outcome) ([]byte, bool) {
	var q plainQuestion
	if !q.look(v, packet) {
		return dst, false
	}
	return v.plainly(dst, packet, &q, c, out)
}
