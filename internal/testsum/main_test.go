package main

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const in = `{"Action":"output","Package":"perigee.example/a","Test":"TestX","Output":"    x_test.go:3: needs dig: install it with make tools\n"}
{"Action":"skip","Package":"perigee.example/a","Test":"TestX"}
{"Action":"output","Package":"perigee.example/a","Test":"TestY","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"perigee.example/a","Test":"TestY"}
{"Action":"pass","Package":"perigee.example/a","Test":"TestZ"}
{"Action":"fail","Package":"perigee.example/a","Elapsed":1}
`
	tests := []struct {
		name, in string
		ci, good bool
		want     []string
	}{
		{"failure", in, false, false, []string{"got 1, want 2", "a TestX: needs dig: install it with make tools", "1 passed, 1 failed, 1 skipped"}},
		{"skip", in[:strings.Index(in, `{"Action":"output","Package":"perigee.example/a","Test":"TestY"`)] + `{"Action":"pass","Package":"p","Test":"T"}`, false, true, []string{"1 passed, 0 failed, 1 skipped"}},
		{"skip in CI", in[:strings.Index(in, `{"Action":"output","Package":"perigee.example/a","Test":"TestY"`)] + `{"Action":"pass","Package":"p","Test":"T"}`, true, false, []string{"a skipped test is a failure"}},
		{"nothing ran", "", false, false, []string{"0 passed, 0 failed, 0 skipped"}},
		{"build failure", `{"ImportPath":"p","Action":"build-output","Output":"undefined: x\n"}` + "\n" + `{"ImportPath":"p","Action":"build-fail"}` + "\n" + `{"Action":"fail","Package":"p"}`, false, false, []string{"undefined: x", "0 passed, 1 failed"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &summary{output: map[string]*strings.Builder{}}
			var out strings.Builder
			if err := s.read(strings.NewReader(tt.in), &out); err != nil {
				t.Fatal(err)
			}
			if good := s.report(&out, tt.ci); good != tt.good {
				t.Errorf("good = %v, want %v", good, tt.good)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, out.String())
				}
			}
		})
	}
}
