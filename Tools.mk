# Tools, pinned. They are run with `go run package@version` and stay out of go.mod.
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.0
GOVULNCHECK   := golang.org/x/vuln/cmd/govulncheck@v1.9.0
