// Package console_test drives the console in a real browser, against a real stack
// with live traffic: every page and every action, as an administrator and as the
// owner of a key.
//
// SCREENSHOTS=DIR leaves pictures of the pages there.
package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"tollgate/e2e/stack"
)

func TestMain(m *testing.M) {
	m.Run()
	stack.Clean()
}

// browser is one tab of a fresh browser, and what went wrong in it.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string
	axe  string

	mu     sync.Mutex
	faults []string // errors, violations of the policy, requests that leave the origin; guarded by mu
	asked  []string // all requests; guarded by mu
}

// patience bounds one wait for the page; a busy machine is slow.
const patience = 60 * time.Second

func open(t *testing.T, base string, width, height int64) *browser {
	t.Helper()
	folder := stack.BrowserFolder(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(filepath.Join(folder, "chromium")), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.DisableGPU, chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-quic", true),
		chromedp.WSURLReadTimeout(patience), chromedp.Env("HOME="+t.TempDir()),
	)
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	// It logs events of newer browsers that it does not know.
	ctx, cancelTab := chromedp.NewContext(alloc, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(cancelTab)
	b := &browser{t: t, ctx: ctx, base: base, axe: filepath.Join(folder, "axe.min.js")}
	chromedp.ListenTarget(ctx, b.hear)
	b.do("start", network.Enable(), cdplog.Enable(), runtime.Enable(), emulation.SetDeviceMetricsOverride(width, height, 1, width < 500),
		chromedp.Navigate(base+"/console/"), chromedp.WaitVisible("#key"))
	return b
}

// hear notes what no page may do.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, e.Request.URL)
		if u := e.Request.URL; !strings.HasPrefix(u, b.base+"/") && !strings.HasPrefix(u, "blob:"+b.base) && !strings.HasPrefix(u, "data:") {
			b.faults = append(b.faults, "asked another origin: "+u)
		}
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, "exception: "+e.ExceptionDetails.Error())
	case *cdplog.EventEntryAdded:
		// Statuses of answers that the page expects are told as network errors.
		if e.Entry.Level == cdplog.LevelError && e.Entry.Source != cdplog.SourceNetwork {
			b.faults = append(b.faults, string(e.Entry.Source)+": "+e.Entry.Text)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError {
			b.faults = append(b.faults, fmt.Sprintf("console.error: %s", e.Args[0].Value))
		}
	}
}

// do runs actions; what fails ends the test with the page's text.
func (b *browser) do(what string, actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if what == "start" { // the first run starts the browser, which must outlive it
		ctx = b.ctx
	}
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v\n%s", what, err, b.text())
	}
}

func (b *browser) text() string {
	var text string
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	_ = chromedp.Run(ctx, chromedp.Text("body", &text, chromedp.ByQuery))
	return text
}

// eval runs a script in the page and reads its result.
func eval[T any](b *browser, script string) T {
	b.t.Helper()
	var out T
	b.do("eval "+script, chromedp.Evaluate(script, &out, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return out
}

// sees waits until the page shows a text.
func (b *browser) sees(text string) {
	b.t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		b.t.Fatal(err)
	}
	b.do("wait for "+text, chromedp.Poll("document.body.innerText.includes("+string(quoted)+")", nil, chromedp.WithPollingInterval(100*time.Millisecond), chromedp.WithPollingTimeout(patience)))
}

// press clicks the button with that name, a dialog's before the page's.
func (b *browser) press(name string) {
	b.t.Helper()
	quoted, err := json.Marshal(name)
	if err != nil {
		b.t.Fatal(err)
	}
	find := `(() => {
		const all = [...document.querySelectorAll("dialog[open]")].reverse().concat(document.body);
		for (const place of all) for (const e of place.querySelectorAll("button, nav a")) {
			if ((e.getAttribute("aria-label") || e.innerText.trim()) === NAME && !e.disabled) { e.click(); return true; }
		}
		return false;
	})()`
	b.do("press "+name, chromedp.Poll(strings.ReplaceAll(find, "NAME", string(quoted)), nil, chromedp.WithPollingInterval(100*time.Millisecond), chromedp.WithPollingTimeout(patience)))
}

// fill writes into the control with that label.
func (b *browser) fill(label, value string) {
	b.t.Helper()
	args, err := json.Marshal([]string{label, value})
	if err != nil {
		b.t.Fatal(err)
	}
	script := `(([label, value]) => {
		const places = [...document.querySelectorAll("dialog[open]")].reverse().concat(document.body);
		for (const place of places) for (const l of place.querySelectorAll("label")) {
			const control = l.querySelector("input, select, textarea");
			if (control && l.firstChild.textContent.trim() === label) {
				control.value = value;
				control.dispatchEvent(new Event("input", {bubbles: true}));
				control.dispatchEvent(new Event("change", {bubbles: true}));
				return true;
			}
		}
		return false;
	})(ARGS)`
	b.do("fill "+label, chromedp.Poll(strings.ReplaceAll(script, "ARGS", string(args)), nil, chromedp.WithPollingInterval(100*time.Millisecond), chromedp.WithPollingTimeout(patience)))
}

func (b *browser) signIn(key string) {
	b.t.Helper()
	b.do("sign in", chromedp.SetValue("#key", key, chromedp.ByQuery), chromedp.Click("form.login button", chromedp.ByQuery))
}

// page opens one of the pages and waits for it.
func (b *browser) page(name string) {
	b.t.Helper()
	b.press(name)
	b.do("open "+name, chromedp.Poll(`document.querySelector("main h2")?.innerText === "`+name+`" && !document.body.innerText.includes("Loading …")`, nil, chromedp.WithPollingTimeout(patience)))
}

// accessible has axe look at the page; serious faults fail.
func (b *browser) accessible(name string) {
	b.t.Helper()
	script, err := os.ReadFile(b.axe)
	if err != nil {
		b.t.Fatal(err)
	}
	b.do("axe", chromedp.Evaluate(string(script), nil))
	found := eval[[]struct{ ID, Impact, Help, Node string }](b, `axe.run({resultTypes: ["violations"]}).then((r) => r.violations.filter((v) => v.impact === "serious" || v.impact === "critical").map((v) => ({ID: v.id, Impact: v.impact, Help: v.help, Node: v.nodes[0].html.slice(0, 200)})))`)
	for _, f := range found {
		b.t.Errorf("%s: axe says %s (%s): %s, as %s", name, f.ID, f.Impact, f.Help, f.Node)
	}
}

// picture leaves a screenshot where somebody wants them.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	var png []byte
	b.do("screenshot", chromedp.FullScreenshot(&png, 100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// good fails where the page did what no page may: errors, another origin, the key in
// an address or in a storage.
func (b *browser) good(secrets ...string) {
	b.t.Helper()
	stored := eval[string](b, `JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state])`)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		b.t.Error(fault)
	}
	for _, secret := range secrets {
		if strings.Contains(stored, secret) || strings.Contains(strings.Join(b.asked, " "), secret) {
			b.t.Errorf("the key is in a storage or an address: %s", stored)
		}
	}
}
