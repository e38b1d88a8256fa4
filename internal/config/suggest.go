package config

import "strings"

// maxSuggest bounds the words that a suggestion compares, and their length: it
// is worth a moment, not a second.
const (
	maxSuggest     = 2048
	maxSuggestWord = 64
)

// didYouMean is a hint that names the word nearest to the one written, or "".
func didYouMean(word string, words []string) string {
	if best := nearest(word, words); best != "" {
		return "did you mean " + best + "?"
	}
	return ""
}

// nearest returns the word with the least edit distance to word, if it is near
// enough to be a slip: one edit for up to four letters, two for up to eight,
// then three. The first of equals wins.
func nearest(word string, words []string) string {
	word = strings.ToLower(word)
	if len(word) > maxSuggestWord {
		return ""
	}
	limit := 1 + min(2, (len(word)-1)/4)
	best, least := "", limit+1
	for i, w := range words {
		if i == maxSuggest {
			break
		}
		if len(w) > maxSuggestWord {
			continue
		}
		if d := distance(word, strings.ToLower(w)); d < least && d < len(word) {
			best, least = w, d
		}
	}
	return best
}

// distance is the number of inserted, deleted, replaced or swapped letters
// between a and b (optimal string alignment).
func distance(a, b string) int {
	prev2, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev, row = prev, row, prev2
	}
	return prev[len(b)]
}
