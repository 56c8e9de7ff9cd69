package stack

import (
	"path/filepath"
	"testing"
)

// BrowserFolder is what scripts/fetch_browser.py has fetched: chromium, its
// libraries and fonts, and axe.min.js.
func BrowserFolder(tb testing.TB) string {
	tb.Helper()
	return filepath.Dir(program(tb, "BROWSER_BIN", filepath.Join("browser", "*", "chromium"), "scripts/fetch_browser.py", "chromium-of-the-tests"))
}
