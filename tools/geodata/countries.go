package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// continents says on which continent each country lies, in the two letters
// that GeoIP2 uses. Countries on two continents, and islands, stand where
// GeoNames and MaxMind put them: Russia and Cyprus in Europe, Turkey and
// Kazakhstan in Asia, Egypt in Africa, Timor-Leste in Oceania.
var continents = map[string]string{
	"AF": `AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW
		KE KM LR LS LY MA MG ML MR MU MW MZ NA NE NG RE RW SC SD SH SL SN SO SS ST
		SZ TD TG TN TZ UG YT ZA ZM ZW`,
	"AN": `AQ BV GS HM TF`,
	"AS": `AE AF AM AZ BD BH BN BT CC CN GE HK ID IL IN IO IQ IR JO JP KG KH KP
		KR KW KZ LA LB LK MM MN MO MV MY NP OM PH PK PS QA SA SG SY TH TJ TM TR TW
		UZ VN YE`,
	"EU": `AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FO FR GB GG GI GR HR
		HU IE IM IS IT JE LI LT LU LV MC MD ME MK MT NL NO PL PT RO RS RU SE SI SJ
		SK SM UA VA XK`,
	"NA": `AG AI AW BB BL BM BQ BS BZ CA CR CU CW DM DO GD GL GP GT HN HT JM KN
		KY LC MF MQ MS MX NI PA PM PR SV SX TC TT US VC VG VI`,
	"OC": `AS AU CK CX FJ FM GU KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TL TO
		TV UM VU WF WS`,
	"SA": `AR BO BR CL CO EC FK GF GY PE PY SR UY VE`,
}

// mainZones names the time zone whose place stands for a country where the
// first line of zone.tab would be a poor choice. zone.tab lists a country's
// zones by geography first and by population second, so Kaliningrad comes
// first in Russia. For the United States it is Chicago and not New York: it is
// nearest to where half of the people live on either side.
var mainZones = map[string]string{
	"AU": "Australia/Sydney",
	"BR": "America/Sao_Paulo",
	"CA": "America/Toronto",
	"FM": "Pacific/Pohnpei",
	"RU": "Europe/Moscow",
	"UA": "Europe/Kyiv",
	"US": "America/Chicago",
	"UZ": "Asia/Tashkent",
}

// noZone holds the countries that zone.tab does not have: two islands where
// nobody lives, and Kosovo, whose code is not in ISO 3166.
var noZone = map[string]place{
	"BV": {lat: -54.42, lon: 3.36, zone: "Bouvet Island"},
	"HM": {lat: -53.10, lon: 73.51, zone: "Heard Island"},
	"XK": {lat: 42.67, lon: 21.17, zone: "Pristina"},
}

// place is where a country's people are, as one point.
type place struct {
	lat, lon float64 // degrees north and east
	zone     string  // the time zone, or the words, that the point is taken from
}

// country is one row of the generated table.
type country struct {
	continent string
	place
}

// continentOf turns continents round: country to continent.
func continentOf() (map[string]string, error) {
	of := make(map[string]string)
	for continent, list := range continents {
		for code := range strings.FieldsSeq(list) {
			if other, twice := of[code]; twice {
				return nil, fmt.Errorf("continents: %s stands in %s and in %s", code, other, continent)
			}
			of[code] = continent
		}
	}
	return of, nil
}

// countryTable joins continents and zone.tab. It is an error if a code of
// iso3166.tab is in neither, or a code of ours in no place.
func countryTable(zoneTab, iso3166 io.Reader) (map[string]country, error) {
	of, err := continentOf()
	if err != nil {
		return nil, err
	}
	places, err := readZoneTab(zoneTab)
	if err != nil {
		return nil, err
	}
	table := make(map[string]country)
	for code, continent := range of {
		p, ok := places[code]
		if !ok {
			p, ok = noZone[code]
		}
		if !ok {
			return nil, fmt.Errorf("zone.tab has no zone for %s: add it to noZone", code)
		}
		table[code] = country{continent: continent, place: p}
	}
	rows, err := readTab(iso3166)
	if err != nil {
		return nil, fmt.Errorf("iso3166.tab: %w", err)
	}
	for _, row := range rows {
		if _, ok := table[row[0]]; !ok {
			return nil, fmt.Errorf("iso3166.tab has %s, which is on no continent: add it to continents", row[0])
		}
	}
	return table, nil
}

// readZoneTab returns the place of each country of zone.tab: its main zone,
// or else the first.
func readZoneTab(r io.Reader) (map[string]place, error) {
	rows, err := readTab(r)
	if err != nil {
		return nil, fmt.Errorf("zone.tab: %w", err)
	}
	places := make(map[string]place)
	met := make(map[string]bool)
	for _, row := range rows {
		if len(row) < 3 {
			return nil, fmt.Errorf("zone.tab: %q has fewer than three columns", strings.Join(row, "\t"))
		}
		code, zone := row[0], row[2]
		main, wanted := mainZones[code]
		if _, have := places[code]; have && zone != main {
			continue
		}
		lat, lon, err := parseISO6709(row[1])
		if err != nil {
			return nil, fmt.Errorf("zone.tab: %s: %w", zone, err)
		}
		places[code] = place{lat: lat, lon: lon, zone: zone}
		if wanted && zone == main {
			met[code] = true
		}
	}
	for code, zone := range mainZones {
		if !met[code] {
			return nil, fmt.Errorf("zone.tab has no zone %s for %s: choose another in mainZones", zone, code)
		}
	}
	return places, nil
}

// readTab reads one of tzdata's tables: columns cut by tabs, # for comments.
func readTab(r io.Reader) ([][]string, error) {
	var rows [][]string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if line := lines.Text(); line != "" && !strings.HasPrefix(line, "#") {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	if len(rows) == 0 && lines.Err() == nil {
		return nil, io.ErrUnexpectedEOF
	}
	return rows, lines.Err()
}

// parseISO6709 reads ±DDMM±DDDMM or ±DDMMSS±DDDMMSS: latitude and longitude
// in degrees, minutes and seconds, as zone.tab writes them.
func parseISO6709(s string) (lat, lon float64, err error) {
	cut := strings.LastIndexAny(s, "+-")
	if cut < 1 {
		return 0, 0, fmt.Errorf("%q is not ±DDMM±DDDMM", s)
	}
	if lat, err = parseAngle(s[:cut], 2); err != nil {
		return 0, 0, err
	}
	lon, err = parseAngle(s[cut:], 3)
	return lat, lon, err
}

// parseAngle reads a sign, the degrees in so many digits, then two digits
// each of minutes and, perhaps, seconds. The result has four decimals, which
// is eleven metres.
func parseAngle(s string, digits int) (float64, error) {
	parts := s[1:]
	if len(parts) != digits+2 && len(parts) != digits+4 {
		return 0, fmt.Errorf("%q is not an angle of %d digits of degrees", s, digits)
	}
	unit, sum := 3600, 0
	for len(parts) > 0 {
		n, err := strconv.ParseUint(parts[:digits], 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is not an angle: %w", s, err)
		}
		sum += int(n) * unit
		parts, digits, unit = parts[digits:], 2, unit/60
	}
	if s[0] == '-' {
		sum = -sum
	}
	return strconv.ParseFloat(strconv.FormatFloat(float64(sum)/3600, 'f', 4, 64), 64)
}
