package main

import (
	"bytes"
	"strings"
	"testing"
)

// The manual has every command and every exit status.
func TestTheManualHasEveryCommand(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"man"}, func(string) string { return "" }, strings.NewReader(""), &out, &errs); code != exitDone {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	for _, want := range []string{`"keys add `, `"keys rotate `, `"usage `, `"audit verify`, `"ledger export`, `"requests cancel`, `"man `, ".SH EXIT STATUS", `\fB\-\-trust\-end\-user\fR`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the manual lacks %s", want)
		}
	}
}
