// Package packages looks at a release, installs it into a fresh Debian, and boots a
// systemd there. The tests have the build tag packages; `make test-packages` runs them.
package packages
