package step

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	tests := []struct {
		name string
		kind Kind
		in   string
		want []string
	}{
		{"lines", Lines, "a\n b \n\r\n\nc,d", []string{"a", "b", "c,d"}},
		{"quoted lines", Lines, "\"a\nb\"\n\"c,d\"\r\ne", []string{"a\nb", "c,d", "e"}},
		{"quotes that are not around", Lines, "say \"hi\"\n\"a\"b\n\"a\"\"b\"", []string{`say "hi"`, `"a"b`, `a"b`}},
		{"one quoted attribute", Lines, `type=x,"name=a,b"`, []string{"type=x,name=a,b"}},
		{"commas", List, "a, b,,c\nd", []string{"a", "b", "c", "d"}},
		{"a quoted item is split too", List, `"a,b"`, []string{"a", "b"}},
		{"raw lines keep quotes", Raw, "type=x,\"name=a,b\"\n\n \"c", []string{`type=x,"name=a,b"`, `"c`}},
		{"text", Text, " a\nb ", []string{" a\nb "}},
		{"bool", Bool, " true\n", []string{"true"}},
		{"nothing", List, " \n,\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := split(tt.kind, tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("split(%q) (-want +got):\n%s", tt.in, diff)
			}
		})
	}
}

// What is quoted as the manual says comes back as it was, and nothing that
// somebody writes breaks the parser.
func FuzzSplit(f *testing.F) {
	f.Add("A=1", "B=two\nlines")
	f.Add(`say "hi"`, `"`)
	f.Add("a,b\r", "\r\n")
	f.Fuzz(func(t *testing.T, one, two string) {
		for _, k := range []Kind{Lines, Raw, List} {
			for _, s := range []string{one, two} {
				items, err := split(k, s)
				if err == nil && slices.ContainsFunc(items, func(i string) bool { return i == "" || i != strings.TrimSpace(i) }) {
					t.Errorf("split(%q) = %q", s, items)
				}
			}
		}
		var want []string
		text := ""
		for _, s := range []string{one, two} {
			text += `"` + strings.ReplaceAll(s, `"`, `""`) + "\"\n"
			if s = strings.TrimSpace(s); s != "" {
				want = append(want, s)
			}
		}
		got, err := split(Lines, text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("split(%q) = %q, %v; want %q", text, got, err, want)
		}
	})
}
