package manpage_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"tollgate/internal/manpage"
)

type addCmd struct {
	Name  string `arg:"" help:"A name."`
	Force bool   `short:"f" env:"FORCE" help:"Do it; 'really' and C:\\temp."`
}

func (addCmd) Help() string {
	return ".starts with a dot\n'and with a quote\n\n  tool add x\n\n  tool add -f y\n\nThe end."
}

// A page has every command and flag, and no text is taken for a macro.
func TestAPageSaysWhatTheCommandLineHas(t *testing.T) {
	var grammar struct {
		Add    addCmd   `cmd:"" help:"Add a thing."`
		Secret struct{} `cmd:"" hidden:"" help:"Not told."`
	}
	app, err := kong.New(&grammar, kong.Name("tool"), kong.Description("Does things."))
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := manpage.Write(&page, app.Model, manpage.Page{Version: "v1", About: "does things", Sections: [][2]string{{"EXIT STATUS", "0: done."}}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH TOOL 1", `add <name> [flags]`, `\fB\-f, \-\-force\fR`, "Environment: FORCE.", `\&.starts with a dot`, `\&'and with`, ".nf\ntool add x\n", ".SH EXIT STATUS", `C:\etemp`} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, &page)
		}
	}
	if strings.Contains(page.String(), "Not told") {
		t.Error("a hidden command is told")
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		return // what follows is a second look, where there is one to have
	}
	cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
	cmd.Stdin = &page
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}
