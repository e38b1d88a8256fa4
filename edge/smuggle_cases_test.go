package edge

import (
	"fmt"
	"strings"
)

// framingCase is one request that parsers read in different ways, or nearly so.
type framingCase struct {
	group, name, send string
	// want is what must become of it: the request line that reaches the
	// origin, exactly once and with one framing; or the status of the refusal,
	// after which the connection ends and nothing has reached the origin whole.
	want string
}

// inside is what an attacker would have the origin take for a request.
const inside = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n"

const (
	passes  = "POST /a HTTP/1.1"
	post    = "POST /a HTTP/1.1\r\nHost: shop.test\r\n"
	get     = "GET /a HTTP/1.1\r\nHost: shop.test\r\n"
	chunked = "Transfer-Encoding: chunked\r\n"
)

// framingCases is the corpus.
var framingCases = func() []framingCase {
	var all []framingCase
	for _, cases := range [][]framingCase{sound(), bothFramings(), codings(), lengths(), chunks(), trailers(), lines(), requestLines(), hosts(), hops()} {
		all = append(all, cases...)
	}
	return all
}()

func of(group string, cases ...framingCase) []framingCase {
	for i := range cases {
		cases[i].group = group
	}
	return cases
}

// sound requests pass; what is in their bodies is nobody's request.
func sound() []framingCase {
	size := fmt.Sprintf("%x", len(inside))
	length := fmt.Sprintf("Content-Length: %d\r\n", len(inside))
	return of("sound",
		framingCase{name: "length", send: post + length + "\r\n" + inside, want: passes},
		framingCase{name: "chunked", send: post + chunked + "\r\n" + size + "\r\n" + inside + "\r\n0\r\n\r\n", want: passes},
		framingCase{name: "many chunks", send: post + chunked + "\r\n" + strings.Repeat("1\r\nx\r\n", 200) + "0\r\n\r\n", want: passes},
		framingCase{name: "chunked in capitals", send: post + "TRANSFER-ENCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: passes},
		framingCase{name: "size in capitals", send: post + chunked + "\r\nA\r\n0123456789\r\n0\r\n\r\n", want: passes},
		framingCase{name: "size with zeros", send: post + chunked + "\r\n0005\r\nhello\r\n000\r\n\r\n", want: passes},
		framingCase{name: "extension", send: post + chunked + "\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n", want: passes},
		framingCase{name: "quoted extension", send: post + chunked + "\r\n5;a=\"x y\"\r\nhello\r\n0\r\n\r\n", want: passes},
		framingCase{name: "empty body in chunks", send: post + chunked + "\r\n0\r\n\r\n", want: passes},
		framingCase{name: "no body", send: post + "\r\n", want: passes},
		framingCase{name: "length 0", send: post + "Content-Length: 0\r\n\r\n", want: passes},
		framingCase{name: "length with zeros", send: post + "Content-Length: 0005\r\n\r\nhello", want: passes},
		framingCase{name: "white space around the length", send: post + "Content-Length: \t 5 \t\r\n\r\nhello", want: passes},
		framingCase{name: "white space around the coding", send: post + "Transfer-Encoding:\tchunked \r\n\r\n0\r\n\r\n", want: passes},
		framingCase{name: "body on GET", send: get + length + "\r\n" + inside, want: "GET /a HTTP/1.1"},
		framingCase{name: "chunks on GET", send: get + chunked + "\r\n" + size + "\r\n" + inside + "\r\n0\r\n\r\n", want: "GET /a HTTP/1.1"},
		framingCase{name: "body on HEAD", send: "HEAD /a HTTP/1.1\r\nHost: shop.test\r\n" + length + "\r\n" + inside, want: "HEAD /a HTTP/1.1"},
		framingCase{name: "body on OPTIONS", send: "OPTIONS /a HTTP/1.1\r\nHost: shop.test\r\n" + length + "\r\n" + inside, want: "OPTIONS /a HTTP/1.1"},
		framingCase{name: "body on DELETE", send: "DELETE /a HTTP/1.1\r\nHost: shop.test\r\n" + length + "\r\n" + inside, want: "DELETE /a HTTP/1.1"},
		framingCase{name: "unknown method", send: "FROB /a HTTP/1.1\r\nHost: shop.test\r\n" + length + "\r\n" + inside, want: "FROB /a HTTP/1.1"},
		framingCase{name: "Content-Encoding: chunked", send: post + "Content-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", want: passes},
		framingCase{name: "trailers", send: post + "Trailer: X\r\n" + chunked + "\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n", want: passes},
		framingCase{name: "an empty line before", send: "\r\n" + post + "Content-Length: 5\r\n\r\nhello", want: passes},
	)
}

// bothFramings at once are refused (RFC 9112 §6.1), in whatever order and spelling.
func bothFramings() []framingCase {
	cl := "Content-Length: %d\r\n"
	body := "0\r\n\r\n" + inside
	var cases []framingCase
	for name, head := range map[string]string{
		"length first":            fmt.Sprintf(cl, len(body)) + chunked,
		"coding first":            chunked + fmt.Sprintf(cl, 4),
		"length 0":                "Content-Length: 0\r\n" + chunked,
		"coding, length 0":        chunked + "Content-Length: 0\r\n",
		"fields between":          fmt.Sprintf(cl, 6) + "X: y\r\nZ: w\r\n" + chunked,
		"lower case":              strings.ToLower(fmt.Sprintf(cl, 6) + chunked),
		"capitals":                strings.ToUpper(fmt.Sprintf(cl, 6) + chunked),
		"length twice":            fmt.Sprintf(cl, 6) + chunked + fmt.Sprintf(cl, 6),
		"coding twice":            chunked + fmt.Sprintf(cl, 6) + chunked,
		"named by Connection":     "Connection: content-length\r\n" + fmt.Sprintf(cl, 6) + chunked,
		"coding named by it":      "Connection: transfer-encoding\r\n" + fmt.Sprintf(cl, 6) + chunked,
		"identity":                fmt.Sprintf(cl, 5) + "Transfer-Encoding: identity\r\n",
		"unknown coding":          fmt.Sprintf(cl, 5) + "Transfer-Encoding: cow\r\n",
		"empty coding":            fmt.Sprintf(cl, 5) + "Transfer-Encoding:\r\n",
		"space before the colon":  fmt.Sprintf(cl, 5) + "Transfer-Encoding : chunked\r\n",
		"folded coding":           fmt.Sprintf(cl, 5) + "Transfer-Encoding:\r\n chunked\r\n",
		"length that is no digit": "Content-Length: x\r\n" + chunked,
		"expecting 100":           "Expect: 100-continue\r\n" + fmt.Sprintf(cl, 6) + chunked,
	} {
		cases = append(cases, framingCase{name: name, send: post + head + "\r\n" + body, want: "400"})
	}
	return of("both framings", cases...)
}

// codings are values and spellings of Transfer-Encoding that some parser
// takes for chunked, and another does not.
func codings() []framingCase {
	var cases []framingCase
	for _, field := range []string{
		"Transfer-Encoding: xchunked", "Transfer-Encoding: chunkedx", "Transfer-Encoding: chunk", "Transfer-Encoding: identity", "Transfer-Encoding: cow",
		"Transfer-Encoding: gzip", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, gzip", "Transfer-Encoding: chunked, identity",
		"Transfer-Encoding: identity, chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: ,chunked", "Transfer-Encoding: chunked,",
		"Transfer-Encoding: , chunked ,", "Transfer-Encoding: chunked chunked", "Transfer-Encoding: chunked;q=1", "Transfer-Encoding: chunked; x", `Transfer-Encoding: "chunked"`,
		"Transfer-Encoding: 'chunked'", "Transfer-Encoding: \x0bchunked", "Transfer-Encoding: \x0cchunked", "Transfer-Encoding: chunked\x0b", "Transfer-Encoding: \x00chunked",
		"Transfer-Encoding: chunked\x00", "Transfer-Encoding: \x01chunked", "Transfer-Encoding: \x7fchunked", "Transfer-Encoding: \xa0chunked", "Transfer-Encoding: \x85chunked",
		"Transfer-Encoding: chu\tnked", "Transfer-Encoding: c\u0127unked", "Transfer-Encoding: \ufeffchunked", "Transfer-Encoding: chun\u212aed", "Transfer-Encoding:", "Transfer-Encoding: ",
		"Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", "Transfer-Encoding\x0b: chunked", "Transfer-Encoding\x00: chunked", "Transfer-Encoding\r: chunked",
		" Transfer-Encoding: chunked", "\tTransfer-Encoding: chunked", "X: y\r\n Transfer-Encoding: chunked", "Transfer-Encoding:\r\n chunked", "Transfer-Encoding: \r\n\tchunked",
		"Transfer-Encoding: chunked\r\n , identity", "X: y\rTransfer-Encoding: chunked", "X: y\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\nX: y", "\nTransfer-Encoding: chunked",
		"Transfer-Encoding", "Transfer-Encoding chunked", "Transfer Encoding: chunked", "Transfer-Encoding= chunked", "Transf\u00e9r-Encoding: chunked", "Transfer\u2010Encoding: chunked",
		"\x00Transfer-Encoding: chunked", ":Transfer-Encoding: chunked", "(x)Transfer-Encoding: chunked", "\"Transfer-Encoding\": chunked", "Transfer-Encoding;x: chunked", "Transfer-Encoding@: chunked",
	} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%q", field), send: post + field + "\r\n\r\n0\r\n\r\n" + inside, want: "400"})
	}
	for _, fields := range []string{
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding:", "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\ntransfer-encoding: x", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
	} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%q", fields), send: post + fields + "\r\n\r\n0\r\n\r\n" + inside, want: "400"})
	}
	cases = append(cases,
		framingCase{name: "HTTP/1.0", send: "POST /a HTTP/1.0\r\nHost: shop.test\r\n" + chunked + "\r\n0\r\n\r\n" + inside, want: "400"},
		// Names that only lax parsers take for the real one do not travel.
		framingCase{name: "underscore", send: post + "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", want: passes},
		framingCase{name: "two underscores", send: post + "TRANSFER_ENCODING: CHUNKED\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", want: passes},
		framingCase{name: "TE is not Transfer-Encoding", send: post + "TE: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", want: passes},
		framingCase{name: "coding named by Connection", send: post + "Connection: transfer-encoding\r\n" + chunked + "\r\n5\r\nhello\r\n0\r\n\r\n", want: passes},
	)
	return of("Transfer-Encoding", cases...)
}

// lengths are values and spellings of Content-Length.
func lengths() []framingCase {
	var cases []framingCase
	for _, v := range []string{
		"", " ", "+5", "-5", "-0", "5,5", "5, 5", "5,6", ",5", "5,", "0x5", "5 5", "5;", "5;x=y", "5.0", "5e0", "05 ,5", "five", "5x", "x5", "\"5\"", "'5'", "\x0b5", "5\x0b", "5\x0c", "\x005", "5\x00",
		"\xa05", "\uff15", "\u0665", "5\u200b", "1_000", "5\r\n 0", "\r\n 5", "5\r\n\t", "5\rX: y", "5\nX: y",
		"9223372036854775808", "18446744073709551615", "18446744073709551621", "99999999999999999999999999999999", strings.Repeat("0", 30) + "5", "4294967301e",
	} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%q", v), send: post + "Content-Length: " + v + "\r\n\r\nhello" + inside, want: "400"})
	}
	for _, fields := range []string{
		"Content-Length: 5\r\nContent-Length: 0", "Content-Length: 0\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\ncontent-length: 6",
		"Content-Length: 5\r\nContent-Length:", "Content-Length : 5", "Content-Length\t: 5", "Content-Length\x00: 5", " Content-Length: 5", "X: y\r\n\tContent-Length: 5", "Content-Length", "Content-Length 5",
		"X: y\nContent-Length: 5", "X: y\rContent-Length: 5", "Content-Length: 5\n", "\x0bContent-Length: 5", "Content Length: 5",
	} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%q", fields), send: post + fields + "\r\n\r\nhello" + inside, want: "400"})
	}
	for name, fields := range map[string]string{
		"underscore":                 "Content_Length: 50\r\nContent-Length: 5\r\n",
		"underscore in capitals":     "CONTENT_LENGTH: 0\r\nContent-Length: 5\r\n",
		"length named by Connection": "Connection: content-length\r\nContent-Length: 5\r\n",
		"X-Content-Length":           "X-Content-Length: 0\r\nContent-Length: 5\r\n",
	} {
		cases = append(cases, framingCase{name: name, send: post + fields + "\r\nhello", want: passes})
	}
	return of("Content-Length", cases...)
}

// chunks are bodies in chunks that parsers cut in different places.
func chunks() []framingCase {
	var cases []framingCase
	for _, body := range []string{
		"\r\n", "g\r\n", " 5\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "5\t\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5h\r\nhello\r\n0\r\n\r\n",
		"5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\rhello\r\n0\r\n\r\n", "5\r\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\n\n", "5\r\nhello\r\n0\r\n\n", "\n5\r\nhello\r\n0\r\n\r\n", "\r\n5\r\nhello\r\n0\r\n\r\n",
		"5;a\nhello\r\n0\r\n\r\n", "5;\n" + inside + "\r\n0\r\n\r\n", "5;a\rb\r\nhello\r\n0\r\n\r\n", "5;a\x00\r\nhello\r\n0\r\n\r\n", "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", "5\x00\r\nhello\r\n0\r\n\r\n", "5,5\r\nhello\r\n0\r\n\r\n", "5.0\r\nhello\r\n0\r\n\r\n",
		"5 ;a\r\nhello\r\n0\r\n\r\n", "5\x0b;a\r\nhello\r\n0\r\n\r\n", "5;" + strings.Repeat("x", maxChunkLine) + "\r\nhello\r\n0\r\n\r\n", strings.Repeat("0", 40) + "5\r\nhello\r\n0\r\n\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n",
		"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "8000000000000000\r\nhello\r\n0\r\n\r\n", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n", "4\r\nhello\r\n0\r\n\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhello 0\r\n\r\n", "5\r\nhello\r\r\n0\r\n\r\n",
		"3\r\nabc\r\n\r\n0\r\n\r\n", "\"5\"\r\nhello\r\n0\r\n\r\n", "\uff15\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n-0\r\n\r\n", "5\r\nhello\r\n0x0\r\n\r\n", "5\r\nhello\r\n00 \r\n\r\n", "5\r\nhello\r\n0\rX\r\n\r\n", "5\r\nhello\r\n\r\n",
	} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%.60q", body), send: post + chunked + "\r\n" + body + inside, want: "400"})
	}
	return of("chunks", cases...)
}

// trailers that are no fields, and those that would be framing.
func trailers() []framingCase {
	var cases []framingCase
	head := post + chunked + "\r\n5\r\nhello\r\n0\r\n"
	for _, t := range []string{
		"no colon\r\n\r\n", "X : y\r\n\r\n", " X: y\r\n\r\n", "X: y\r\n z\r\n\r\n", ": y\r\n\r\n", "X: y\n\r\n", "X: y\n\n", "X\x00: y\r\n\r\n", "GET /smuggled HTTP/1.1\r\n\r\n", "X: y\r\n\n",
		"X: y\rZ: w\r\n\r\n", "X: y\x00\r\n\r\n", "X: " + strings.Repeat("x", maxHeadBytes) + "\r\n\r\n", strings.Repeat("X: y\r\n", maxFields+1) + "\r\n",
	} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%.40q", t), send: head + t + inside, want: "400"})
	}
	for _, t := range []string{"Content-Length: 50\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n", "Host: evil.test\r\n\r\n", "Connection: close\r\n\r\n", "X: y\r\nX: z\r\n\r\n"} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%q", t), send: head + t, want: passes})
	}
	return of("trailers", cases...)
}

// lines that end, or begin, as lines do not.
func lines() []framingCase {
	var cases []framingCase
	for _, send := range []string{
		"POST /a HTTP/1.1\nHost: shop.test\nContent-Length: 5\n\nhello", "POST /a HTTP/1.1\r\nHost: shop.test\nContent-Length: 5\r\n\r\nhello", "POST /a HTTP/1.1\nHost: shop.test\r\n\r\n",
		post + "X: y\n\r\n", post + "X: y\r\n\n", post + "\n", post + "\r\r\n", "POST /a HTTP/1.1\rHost: shop.test\r\r", post + "X: a\rContent-Length: 40\r\n\r\n", post + "X: a\nContent-Length: 40\r\n\r\n",
		post + "X: a\x00b\r\n\r\n", post + "X\x00: a\r\n\r\n", post + ": a\r\n\r\n", post + "X\r\n\r\n", post + "X y: z\r\n\r\n", post + "X: a\x7f\r\n\r\n", post + "X: a\x1b[2J\r\n\r\n", post + "X\xc3\xa9: a\r\n\r\n",
		"POST /a HTTP/1.1\r\n Host: shop.test\r\n\r\n", "POST /a HTTP/1.1\r\n\tX: y\r\nHost: shop.test\r\n\r\n", post + "X: y\r\n z\r\n\r\n", post + " \r\n\r\n", post + "\t\r\n\r\n",
		"\r\n\r\n" + post + "\r\n", "\n" + post + "\r\n", "\r" + post + "\r\n", " " + post + "\r\n", "\x00" + post + "\r\n", "\xef\xbb\xbf" + post + "\r\n",
	} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%.70q", send), send: send + inside, want: "400"})
	}
	return of("lines", cases...)
}

// requestLines that name something else to another reader.
func requestLines() []framingCase {
	var cases []framingCase
	for line, want := range map[string]string{
		"GET /a b HTTP/1.1": "400", "GET  /a HTTP/1.1": "400", "GET /a  HTTP/1.1": "400", "GET\t/a HTTP/1.1": "400", "GET /a\tHTTP/1.1": "400", "GET /a HTTP/1.1 ": "400", "GET /a HTTP/1.1\t": "400",
		"GET /a HTTP/1.1 HTTP/1.1": "400", "GET /a": "400", "GET": "400", "GET /a ": "400", " GET /a HTTP/1.1": "400", "GET /a http/1.1": "400", "GET /a HTTP/1.1\x00": "400", "GET /a HTTP/1": "400", "GET /a HTTP/1.10": "400", "GET /a HTTP/01.1": "400",
		"GET /a HTTP /1.1": "400", "GET /a HTTP/1,1": "505", "GET /a HTTP/1.2": "505", "GET /a HTTP/2.0": "505", "GET /a HTTP/0.9": "505", "GET /a HTTP/3.0": "505", "GET /a HTTP/-1.1": "400", "G\x00ET /a HTTP/1.1": "400", "GE(T /a HTTP/1.1": "400", "G\u00c9T /a HTTP/1.1": "400",
		"GET /a\x00 HTTP/1.1": "400", "GET /a\xff HTTP/1.1": "400", "GET /\u00fc HTTP/1.1": "400", "GET /a#b HTTP/1.1": "400", "GET a HTTP/1.1": "400", "GET ?a HTTP/1.1": "400", "GET /..;/a HTTP/1.1": "400", "GET /%00 HTTP/1.1": "400", "GET /a?b\x01 HTTP/1.1": "400",
		"GET ftp://shop.test/a HTTP/1.1": "400", "GET http://u@shop.test/a HTTP/1.1": "400", "GET http:///a HTTP/1.1": "400", "GET http://shop.test:x/a HTTP/1.1": "400", "GET shop.test:80 HTTP/1.1": "400", "GET * HTTP/1.1": "400",
	} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%q", line), send: line + "\r\nHost: shop.test\r\n\r\n" + inside, want: want})
	}
	cases = append(cases,
		framingCase{name: "absolute form", send: "POST http://shop.test/a HTTP/1.1\r\nHost: shop.test\r\n\r\n", want: passes},
		framingCase{name: "absolute form in capitals", send: "POST HTTP://SHOP.test:80/a HTTP/1.1\r\nHost: shop.test\r\n\r\n", want: passes},
		framingCase{name: "encoded line ends", send: "POST /a%0d%0aX:%20y HTTP/1.1\r\nHost: shop.test\r\n\r\n", want: "POST /a%0d%0aX:%20y HTTP/1.1"},
		framingCase{name: "line too long", send: "GET /" + strings.Repeat("a", maxHeadBytes) + " HTTP/1.1\r\nHost: shop.test\r\n\r\n" + inside, want: "414"},
	)
	return of("request line", cases...)
}

// hosts that two readers take for two.
func hosts() []framingCase {
	var cases []framingCase
	for _, fields := range []string{
		"Host: shop.test\r\nHost: evil.test\r\n", "Host: shop.test\r\nHost: shop.test\r\n", "Host: shop.test\r\nhost: shop.test\r\n", "X: y\r\n", "Host:\r\n", "Host: \r\n", "Host : shop.test\r\n", "Host: shop.test evil.test\r\n", "Host: shop.test, evil.test\r\n",
		"Host: u@shop.test\r\n", "Host: shop.test@evil.test\r\n", "Host: shop.test/x\r\n", "Host: shop.test?x\r\n", "Host: shop.test#x\r\n", "Host: shop.test\\evil.test\r\n", "Host: shop.test:80:80\r\n", "Host: shop.test:x\r\n", "Host: shop.test:-80\r\n", "Host: shop.test:080\r\n", "Host: shop.test:99999\r\n",
		"Host:\r\n shop.test\r\n", "Host: shop.test\r\n evil.test\r\n", "Host: shop.test\x00\r\n", "Host: shop.test\x00.evil.test\r\n", "Host: [::1\r\n", "Host: [::1]x\r\n", "Host: sh\u00f6p.test\r\n", "Host: shop%2etest\r\n", "Host: shop..test\r\n", "Host: .shop.test\r\n", "Host: http://shop.test\r\n", "Host: shop.test\r\n Host: evil.test\r\n",
	} {
		cases = append(cases, framingCase{name: fmt.Sprintf("%q", fields), send: "POST /a HTTP/1.1\r\n" + fields + "\r\n" + inside, want: "400"})
	}
	cases = append(cases,
		framingCase{name: "absolute form wins", send: "POST http://shop.test/a HTTP/1.1\r\nHost: evil.test\r\n\r\n", want: passes},
		framingCase{name: "capitals, port, final dot", send: "POST /a HTTP/1.1\r\nHost: SHOP.test.:80\r\n\r\n", want: passes},
		framingCase{name: "X-Host", send: post + "X-Host: evil.test\r\nX_Forwarded_Host: evil.test\r\nHTTP_HOST: evil.test\r\n\r\n", want: passes},
	)
	return of("Host", cases...)
}

// hops are requests that would make the connection something else.
func hops() []framingCase {
	upgrade := "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
	return of("Upgrade, CONNECT, Expect",
		framingCase{name: "h2c", send: post + upgrade + "\r\n", want: passes},
		framingCase{name: "h2c with a body", send: post + upgrade + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(inside), inside), want: passes},
		framingCase{name: "h2c without Connection", send: post + "Upgrade: h2c\r\n\r\n", want: passes},
		framingCase{name: "websocket", send: get + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", want: "GET /a HTTP/1.1"},
		framingCase{name: "TLS", send: "OPTIONS /a HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", want: "OPTIONS /a HTTP/1.1"},
		framingCase{name: "HTTP/2 preface", send: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inside, want: "505"},
		framingCase{name: "expecting 100", send: post + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", want: passes},
		framingCase{name: "expecting 100 in chunks", send: post + "Expect: 100-continue\r\n" + chunked + "\r\n5\r\nhello\r\n0\r\n\r\n", want: passes},
		framingCase{name: "Connection: keep-alive, close", send: post + "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 5\r\n\r\nhello", want: passes},
		framingCase{name: "Proxy-Connection", send: post + "Proxy-Connection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", want: passes},
		framingCase{name: "Connection: host", send: post + "Connection: host\r\nContent-Length: 5\r\n\r\nhello", want: passes},
	)
}
