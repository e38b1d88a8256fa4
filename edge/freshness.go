package edge

import (
	"net/http"
	"strings"
	"time"
)

const (
	// maxErrorLifetime bounds how long a 5xx response is fresh, whatever it
	// says itself: an origin that failed a moment ago is worth asking again.
	maxErrorLifetime = time.Minute
	// maxHeuristic bounds a heuristic lifetime: a page of ten years ago may
	// change today like any other.
	maxHeuristic = 24 * time.Hour
	// maxCutOff bounds how long after its lifetime a response without
	// stale-if-error stands in for origins that nobody can reach: an origin
	// starts again in less, and what it wants to be never older it calls so
	// (must-revalidate, no-cache, s-maxage, no lifetime).
	maxCutOff = time.Minute
	// centuryAhead is how far a two-digit year of an RFC 850 date may lie in
	// the future before it means the past century (RFC 9110 §5.6.7).
	centuryAhead = 50
)

// freshnessLifetime is how long a response is fresh, counted from its
// generation (RFC 9111 §4.2.1): s-maxage, else max-age, else Expires less
// Date. explicit is false when it gives none of them; then the lifetime is 0.
// A targeted field (RFC 9213 §2.2) leaves no say to Expires.
func freshnessLifetime(status int, cc *cacheControl, targeted bool, h http.Header, date time.Time) (lifetime time.Duration, explicit bool) {
	switch {
	case cc.sMaxAge != noDelta:
		lifetime = cc.sMaxAge
	case cc.maxAge != noDelta:
		lifetime = cc.maxAge
	case targeted:
		return 0, false
	default:
		expires, present := h["Expires"]
		if !present {
			return 0, false
		}
		lifetime = expiresLifetime(expires, date)
	}
	if status >= 500 {
		lifetime = min(lifetime, maxErrorLifetime)
	}
	return lifetime, true
}

// heuristicLifetime is what a response without an explicit lifetime gets on a
// site that allows it (RFC 9111 §4.2.2): a tenth of the time since it was
// modified, if its status code or "public" lets it.
func heuristicLifetime(status int, cc *cacheControl, lastModified, date time.Time) time.Duration {
	if lastModified.IsZero() || !cc.public && !heuristicallyCacheable(status) {
		return 0
	}
	lifetime := min(max(0, date.Sub(lastModified)/10), maxHeuristic)
	if status >= 500 {
		lifetime = min(lifetime, maxErrorLifetime)
	}
	return lifetime
}

// expiresLifetime is Expires less Date. Several lines, and whatever is no
// date, "0" in particular, mean that it has expired (RFC 9111 §5.3).
func expiresLifetime(lines []string, date time.Time) time.Duration {
	if len(lines) != 1 {
		return 0
	}
	t, ok := parseDate(lines[0], date)
	if !ok {
		return 0
	}
	return min(max(t.Sub(date), 0), maxDeltaSeconds*time.Second)
}

// ages are what is needed to know a stored response's age at any time (RFC
// 9111 §4.2.3). responseTime carries Go's monotonic reading, so that a step
// of the wall clock ages nothing.
type ages struct {
	responseTime        time.Time
	correctedInitialAge time.Duration
}

// initialAge makes the ages of a response that was asked for at requestTime
// and whose head came at responseTime. ageValue is its Age field, in seconds;
// date its Date, or the zero time when it has none that can be read.
func initialAge(ageValue int64, date, requestTime, responseTime time.Time) ages {
	var apparent time.Duration
	if !date.IsZero() {
		// Date is a wall clock's reading of another machine, in whole seconds.
		apparent = max(0, responseTime.Truncate(time.Second).Sub(date))
	}
	corrected := time.Duration(ageValue)*time.Second + max(0, responseTime.Sub(requestTime))
	return ages{responseTime: responseTime, correctedInitialAge: min(max(apparent, corrected), maxDeltaSeconds*time.Second)}
}

// currentAge is the age of a stored response (RFC 9111 §4.2.3).
func (a *ages) currentAge(now time.Time) time.Duration {
	return min(a.correctedInitialAge+max(0, now.Sub(a.responseTime)), maxDeltaSeconds*time.Second)
}

// ttl is the freshness left at an age, in whole seconds like Age itself: it
// is positive while the response is fresh.
func (o *stored) ttl(age time.Duration) time.Duration { return o.lifetime - age.Truncate(time.Second) }

// parseAge reads an Age field (RFC 9111 §5.1): of several members the first,
// and 0 when that is no delta-seconds.
func parseAge(lines []string) int64 {
	if len(lines) == 0 {
		return 0
	}
	first, _, _ := strings.Cut(lines[0], ",")
	n, ok := parseDelta(trimOWS(first))
	if !ok {
		return 0
	}
	return n
}

// dateForms are the three forms of an HTTP-date (RFC 9110 §5.6.7).
var dateForms = [...]string{
	http.TimeFormat,
	"Monday, 02-Jan-06 15:04:05 GMT",
	"Mon Jan _2 15:04:05 2006",
}

// parseDate reads an HTTP-date. near tells which century a two-digit year is in.
func parseDate(s string, near time.Time) (time.Time, bool) {
	s = trimOWS(s)
	if t, ok := parseFixdate(s); ok {
		return t, true
	}
	if zone := len(s) - len("GMT"); zone > 0 && strings.EqualFold(s[zone:], "GMT") {
		s = s[:zone] + "GMT" // names of days and months are read in any case too
	}
	for i, form := range dateForms {
		t, err := time.Parse(form, s)
		if err != nil || !strings.EqualFold(afterWeekday(t.Format(form)), afterWeekday(s)) {
			continue // time.Parse takes more spaces, and fewer digits, than there must be
		}
		if i == 1 {
			if near.IsZero() {
				near = time.Now()
			}
			t = t.AddDate(near.Year()-near.Year()%100+t.Year()%100-t.Year(), 0, 0)
			if t.After(near.AddDate(centuryAhead, 0, 0)) {
				t = t.AddDate(-100, 0, 0)
			}
		}
		return t.UTC(), true
	}
	return time.Time{}, false
}

// parseFixdate reads the form that everybody sends, in the case that everybody
// writes it in; what it does not take may be a date all the same. It allocates
// nothing, and takes a tenth of what time.Parse does, for which
// If-Modified-Since made a hit half as dear again.
func parseFixdate(s string) (time.Time, bool) {
	const days, months = "SunMonTueWedThuFriSat", "JanFebMarAprMayJunJulAugSepOctNovDec"
	if len(s) != len(http.TimeFormat) || s[3:5] != ", " || s[7] != ' ' || s[11] != ' ' || s[16] != ' ' || s[19] != ':' || s[22] != ':' || s[25:] != " GMT" {
		return time.Time{}, false
	}
	weekday, month := strings.Index(days, s[:3]), strings.Index(months, s[8:11])
	day, year := digits(s[5:7]), digits(s[12:16])
	hour, minute, second := digits(s[17:19]), digits(s[20:22]), digits(s[23:25])
	if weekday < 0 || weekday%3 != 0 || month < 0 || month%3 != 0 || day < 1 || year < 0 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month/3+1), day, hour, minute, second, 0, time.UTC)
	return t, t.Day() == day
}

// digits is the number that s writes with digits alone, or below 0.
func digits(s string) (n int) {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return -1
		}
		n = 10*n + int(s[i]-'0')
	}
	return n
}

// afterWeekday is a date without the day of the week, whose name depends on
// the century that a two-digit year is in.
func afterWeekday(date string) string {
	if i := strings.IndexAny(date, ", "); i >= 0 {
		return date[i:]
	}
	return date
}

// singleDate reads a field that must be one line with one date.
func singleDate(lines []string, near time.Time) (time.Time, bool) {
	if len(lines) != 1 {
		return time.Time{}, false
	}
	return parseDate(lines[0], near)
}
