package envoy_test

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	modulev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/envoy"
	"tollgate/internal/config"
	"tollgate/internal/metertest"
)

// shelf is a folder with libraries, and a program that looks for one.
type shelf struct {
	*testing.T
	dir, named  string
	good, other []byte // for this machine, and for another
}

const initFunction = "envoy_dynamic_module_on_program_init"

func newShelf(t *testing.T) *shelf {
	t.Helper()
	ours, other := elf.EM_X86_64, elf.EM_AARCH64
	if runtime.GOARCH == "arm64" {
		ours, other = other, ours
	}
	s := &shelf{T: t, dir: t.TempDir(), good: metertest.Library(t, ours, initFunction), other: metertest.Library(t, other, initFunction)}
	t.Chdir(s.dir)
	return s
}

// put writes a file that is so old, and returns its path.
func (s *shelf) put(name string, content []byte, age time.Duration) string {
	s.Helper()
	path, at := filepath.Join(s.dir, name), time.Now().Add(-age)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600), os.Chtimes(path, at, at)); err != nil {
		s.Fatal(err)
	}
	return path
}

// find looks for a library as the launcher in opt/bin does.
func (s *shelf) find() (string, error) {
	return envoy.MeterLibrary(filepath.Join(s.dir, "opt/bin/launcher"), func(name string) string {
		if name == envoy.LibraryVariable {
			return s.named
		}
		return ""
	})
}

func TestTheLibraryOfTheMeterIsFound(t *testing.T) {
	s := newShelf(t)
	if got, err := s.find(); !errors.Is(err, envoy.ErrNoLibrary) {
		t.Errorf("nothing there: %q, %v", got, err)
	}
	for _, name := range []string{ // each before those above it
		".cache/meter/libtollgate_meter-000000000001.so",
		"opt/lib/tollgate/libtollgate_meter-000000000002.so",
		"opt/bin/libtollgate_meter-000000000003.so",
	} {
		want := s.put(name, s.good, 0)
		if got, err := s.find(); err != nil || got != want {
			t.Errorf("%q, %v, want %s", got, err, want)
		}
	}
	older := s.put("opt/bin/libtollgate_meter-000000000004.so", s.good, time.Hour)
	if got, err := s.find(); err != nil || got == older {
		t.Errorf("not the newest of those beside the programs: %q, %v", got, err)
	}
	s.named = "opt/bin/libtollgate_meter-000000000004.so"
	if got, err := s.find(); err != nil || got != older {
		t.Errorf("named: %q, %v", got, err)
	}
	m := envoy.Meter{Library: older}
	if m.Module() != "tollgate_meter-000000000004" || m.Dir() != filepath.Join(s.dir, "opt/bin") {
		t.Errorf("module %q in %q", m.Module(), m.Dir())
	}
}

func TestWhatIsNoLibraryOfTheMeterIsRefused(t *testing.T) {
	s := newShelf(t)
	s.put("opt/bin/libtollgate_meter-000000000001.so", s.good, 0)
	machine := elf.EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = elf.EM_AARCH64
	}
	for name, content := range map[string][]byte{
		"libtext.so": []byte("no library"), "libempty.so": nil, "libcut.so": s.good[:len(s.good)/2],
		"libother.so": s.other, "libforeign.so": metertest.Library(t, machine, "another_function"), "meter.so": s.good, "lib me.so": s.good,
	} {
		s.named = s.put(name, content, 0)
		if got, err := s.find(); err == nil || !strings.Contains(err.Error(), envoy.LibraryVariable) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	s.named = filepath.Join(s.dir, "libnone.so")
	if got, err := s.find(); err == nil {
		t.Errorf("a file that is not there: %q", got)
	}
}

func TestTheMeterIsOfferedToTheEnvoyThatItWasBuiltFor(t *testing.T) {
	if !envoy.MeterRuns(envoy.Version) || envoy.MeterRuns("1.41.0") || envoy.MeterRuns("") {
		t.Error("the meter is offered to another Envoy than it was built for")
	}
}

// metered is the configuration with the meter inside Envoy.
func metered() *config.Config {
	c := everything()
	c.Envoy.Meter = config.MeterModule
	return c
}

// The meter comes behind the check, whose ticket it needs, and before ext_proc, which
// tells tollgate of it.
func TestTheMeterStandsBeforeExtProc(t *testing.T) {
	hcm := hcmOf(t, bootstrapOf(t, metered()))
	var chain []string
	for _, f := range hcm.GetHttpFilters() {
		chain = append(chain, strings.TrimPrefix(f.GetName(), "envoy.filters.http."))
		if f.GetDisabled() || f.GetIsOptional() {
			t.Errorf("%s is disabled or optional", f.GetName())
		}
	}
	if diff := cmp.Diff([]string{"cors", "ext_authz", "body_size_limit", "tollgate.meter", "ext_proc", "buffer", "router"}, chain); diff != "" {
		t.Errorf("filters (-want +got):\n%s", diff)
	}
	m := filterOf(t, hcm, "tollgate.meter", &modulev3.DynamicModuleFilter{})
	words := unpack(t, m.GetFilterConfig(), &wrapperspb.StringValue{}).GetValue()
	if got := m.GetDynamicModuleConfig(); got.GetName() != "tollgate_meter-9f2c41d07b3e" || !got.GetDoNotClose() || got.GetLoadGlobally() {
		t.Errorf("library: %v", got)
	}
	if m.GetFilterName() != "meter" || m.GetTerminalFilter() || words != "run/meter.sock process" {
		t.Errorf("filter %q is told %q", m.GetFilterName(), words)
	}
}

// What the meter and tollgate tell each other passes in metadata that no client can
// write, and ext_proc lets go of answers that it does not meter.
func TestTheMeterAndTollgateSpeakInMetadata(t *testing.T) {
	ep := filterOf(t, hcmOf(t, bootstrapOf(t, metered())), "envoy.filters.http.ext_proc", &extprocv3.ExternalProcessor{})
	if diff := cmp.Diff([]string{"envoy.filters.http.ext_authz", "tollgate.meter.by"}, ep.GetMetadataOptions().GetForwardingNamespaces().GetUntyped()); diff != "" {
		t.Errorf("what tollgate is told (-want +got):\n%s", diff)
	}
	if !slices.Contains(ep.GetMetadataOptions().GetReceivingNamespaces().GetUntyped(), "tollgate.meter") {
		t.Error("tollgate cannot tell the meter what to do")
	}
	if ep.GetProcessingMode().GetResponseTrailerMode() != extprocv3.ProcessingMode_SKIP {
		t.Error("ext_proc stays for answers that it does not meter")
	}
}

func TestTheMeterIsOffWhereExtProcIs(t *testing.T) {
	for _, r := range hcmOf(t, bootstrapOf(t, metered())).GetRouteConfig().GetVirtualHosts()[0].GetRoutes() {
		off := false
		if packed, ok := r.GetTypedPerFilterConfig()["tollgate.meter"]; ok {
			off = unpack(t, packed, &routev3.FilterConfig{}).GetDisabled()
		}
		if off != disables(t, r, "envoy.filters.http.ext_proc") {
			t.Errorf("route %s: the meter must be off exactly where ext_proc is", r.GetName())
		}
	}
}

func TestWithoutALibraryNothingIsLeftOfTheMeter(t *testing.T) {
	if doc := string(render(t, everything())); strings.Contains(doc, "tollgate.meter") || strings.Contains(doc, "dynamic_modules") {
		t.Error("the meter is in a bootstrap without it")
	}
}
