package admin

import (
	"net/url"
	"strings"
	"testing"

	"tollgate/internal/openai"
)

func TestPagesOfTheModelList(t *testing.T) {
	all := []openai.Model{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d"}}
	for query, want := range map[string]string{
		"":                                     "abcd",
		"limit=2":                              "ab+",
		"limit=2&after_id=b":                   "cd",
		"limit=2&after_id=a":                   "bc+",
		"limit=1&before_id=c":                  "b+",
		"limit=2&before_id=c":                  "ab",
		"limit=9":                              "abcd",
		"limit=0":                              "abcd",
		"limit=x":                              "abcd",
		"after_id=d":                           "",
		"after_id=gone":                        "abcd",
		"before_id=a":                          "",
		"limit=9223372036854775807&after_id=b": "cd",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		page, more := pageOf(all, q)
		var got strings.Builder
		for _, m := range page {
			got.WriteString(m.ID)
		}
		if more {
			got.WriteString("+")
		}
		if got.String() != want {
			t.Errorf("%q: got %s, want %s", query, got.String(), want)
		}
	}
}
