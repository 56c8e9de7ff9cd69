package envoy

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// SearchPath is the variable in which Envoy is told the folder of its libraries.
const SearchPath = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH"

// LibraryVariable names the library of the meter by its path.
const LibraryVariable = "TOLLGATE_METER_LIBRARY"

// Meter is the meter inside Envoy, as far as the bootstrap needs it.
type Meter struct {
	Library string // absolute path of lib….so
	Socket  string // of tollgate's end of the link, relative to state_dir
	Sync    string // ledger.sync: how safe its own file must be
}

// meterFilter is the name of the filter.
const meterFilter = "tollgate.meter"

// Words is what the library is told at its start.
func (m *Meter) Words() string { return m.Socket + " " + m.Sync }

// Module is the name by which Envoy opens the library. It changes with the library:
// a running Envoy keeps the one that it has opened.
func (m *Meter) Module() string {
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(m.Library), "lib"), ".so")
}

// Dir is the folder of the library, the value of [SearchPath].
func (m *Meter) Dir() string { return filepath.Dir(m.Library) }

// MeterRuns reports whether the meter is offered to an Envoy of that version.
func MeterRuns(version string) bool { return slices.Contains(meterVersions, version) }

var (
	// ErrNoLibrary says that there is no library of the meter on this machine.
	ErrNoLibrary = errors.New("no library of the meter found: `make build` makes one where cargo is")
	// errLibrary means that a file is no library that Envoy could open.
	errLibrary = errors.New("is no library of the meter for this machine; `make build` makes one")
)

// MeterLibrary is the library of the meter as an absolute path: the one that
// TOLLGATE_METER_LIBRARY names, else the newest beside the program self, in
// ../lib/tollgate of it, or in .cache/meter. One that is named and cannot be used is an error,
// not a reason to look elsewhere.
func MeterLibrary(self string, getenv func(string) string) (string, error) {
	if given := getenv(LibraryVariable); given != "" {
		path, err := filepath.Abs(given)
		if err == nil {
			err = checkLibrary(path)
		}
		if err != nil {
			return "", fmt.Errorf("use the meter that %s names: %w", LibraryVariable, err)
		}
		return path, nil
	}
	bin := filepath.Dir(self)
	for _, dir := range []string{bin, filepath.Join(bin, "../lib/tollgate"), ".cache/meter"} {
		if path := NewestLibrary(dir); path != "" {
			path, err := filepath.Abs(path)
			if err == nil {
				err = checkLibrary(path)
			}
			return path, err
		}
	}
	return "", ErrNoLibrary
}

// NewestLibrary is the library of a folder that was written last; "" where there is
// none.
func NewestLibrary(dir string) (found string) {
	paths, err := filepath.Glob(filepath.Join(dir, "libtollgate_meter-*.so"))
	if err != nil {
		return ""
	}
	var last int64
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && (found == "" || info.ModTime().UnixNano() > last) {
			found, last = path, info.ModTime().UnixNano()
		}
	}
	return found
}

// entry is the function of a library that Envoy calls first.
const entry = "envoy_dynamic_module_on_program_init"

// checkLibrary finds what would keep Envoy from starting: a file that is cut short,
// is for another processor, or is something else.
func checkLibrary(path string) error {
	name := filepath.Base(path)
	if !strings.HasPrefix(name, "lib") || !strings.HasSuffix(name, ".so") || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%s: Envoy opens only files named lib….so, of letters, digits, - and _", path)
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%s %w: %w", path, errLibrary, err)
	}
	defer f.Close() //nolint:errcheck // only read
	if want := machines[runtime.GOARCH]; f.Type != elf.ET_DYN || f.Machine != want {
		return fmt.Errorf("%s %w: it is %s for %s", path, errLibrary, f.Type, f.Machine)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return fmt.Errorf("%s %w: %w", path, errLibrary, err)
	}
	if !slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return s.Name == entry && s.Section != elf.SHN_UNDEF }) {
		return fmt.Errorf("%s %w: it has no %s", path, errLibrary, entry)
	}
	return nil
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

func odd(r rune) bool {
	return !strings.ContainsRune("-_.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", r)
}
