# Tools, pinned. They are run with `go run package@version` and stay out of go.mod.
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.0
GOVULNCHECK   := golang.org/x/vuln/cmd/govulncheck@v1.9.0
# scripts/dist.py reads these two. Later ones of nfpm need modules that not every proxy has.
NFPM          := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0
CYCLONEDX     := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
