// Package mmsg receives and sends datagrams in batches, by recvmmsg(2) and
// sendmmsg(2). It is the one place of the DNS server with unsafe and raw system
// calls; where they do not exist Supported is false and the caller reads one
// datagram at a time.
//
// Contract: a Batch belongs to one goroutine; several may read one Socket, each
// with a Batch of its own. What Recv gives is valid until the next Recv. Recv and
// Send never wait, and are made without telling the scheduler, since 64
// datagrams take the kernel less than a tenth of a millisecond.
package mmsg

// Size is how many datagrams one call moves at the most. From 64 on the system
// call is under 2 % of what the kernel does for each datagram.
const Size = 64
