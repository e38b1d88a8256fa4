// Package node is what a node of the fleet does with the feed: it follows the
// log, checks epoch, sequence and chain, applies entries through callbacks,
// keeps its watermark durably, fetches blobs, and reports.
package node
