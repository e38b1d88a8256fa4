package rewrite

// srcset rewrites the candidates of a srcset (HTML Standard §4.8.4.2.1): URLs
// that end at white space, each with a descriptor up to a comma.
func (f *file) srcset(v value, u use) {
	s := v.text
	for i := 0; i < len(s); {
		if space(s[i]) || s[i] == ',' {
			i++
			continue
		}
		from := i
		for i < len(s) && !space(s[i]) {
			i++
		}
		to := i
		for to > from && s[to-1] == ',' {
			to--
		}
		f.reference(v.sub(from, to), u)
		if to < i {
			continue // the comma was its end
		}
		for depth := 0; i < len(s) && (s[i] != ',' || depth > 0); i++ {
			switch s[i] {
			case '(':
				depth++
			case ')':
				depth = max(0, depth-1)
			}
		}
	}
}
