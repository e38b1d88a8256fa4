package control

import "time"

// BucketStatus is how the bucket stands in which blobs are.
type BucketStatus struct {
	Where string `json:"where"` // "s3://NAME/PREFIX at ENDPOINT"
	// LostSince is since when calls fail, and Why says why.
	LostSince *time.Time `json:"lost_since,omitempty"`
	Why       string     `json:"why,omitempty"`
	// Listed is when all of it was looked at last: it had Objects then, of Bytes.
	Listed  *time.Time `json:"listed,omitempty"`
	Objects int        `json:"objects"`
	Bytes   int64      `json:"bytes"`
	// Waiting are blobs that are still on their way there from the folder, or another control node's.
	Waiting int `json:"waiting"`
	// Missing are blobs of sealed releases that are not there, or are not what they are to be.
	Missing int `json:"missing"`
}

// bucketStatus is nil when blobs are in the folder.
func (s *Server) bucketStatus() *BucketStatus {
	b := s.bucket
	if b == nil {
		return nil
	}
	out := &BucketStatus{Where: b.Where()}
	stats := b.Stats()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !stats.Lost.IsZero():
		lost := stats.Lost.UTC()
		out.LostSince, out.Why = &lost, stats.Why
	case b.refused != nil:
		since := b.refusedAt.UTC()
		out.LostSince, out.Why = &since, b.refused.Error()
	}
	if !b.listed.IsZero() {
		listed := b.listed.UTC()
		out.Listed = &listed
	}
	out.Objects, out.Bytes, out.Waiting, out.Missing = b.objects, b.bytes, b.waiting, len(b.absent)
	return out
}

// BucketCalls are the calls of the bucket, by what they did and how they ended, and
// the octets that went there and came from there: none without a bucket.
func (s *Server) BucketCalls() (calls map[[2]string]uint64, sent, got int64) {
	if s.bucket == nil {
		return nil, 0, 0
	}
	st := s.bucket.Stats()
	return st.Calls, st.Sent, st.Got
}
