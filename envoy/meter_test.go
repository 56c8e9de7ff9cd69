package envoy_test

import (
	"bytes"
	"debug/elf"
	enc "encoding/binary"
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
)

// library is the least that is a shared object with one symbol.
func library(t *testing.T, machine elf.Machine, symbol string) []byte {
	t.Helper()
	names := []byte("\x00" + symbol + "\x00")
	symbols := []elf.Sym64{{}, {Name: 1, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: 1, Value: 1}}
	const head, size, entry = 64, 24, 64
	dynsym := elf.Section64{Type: uint32(elf.SHT_DYNSYM), Off: head, Size: uint64(len(symbols) * size), Link: 2, Entsize: size}
	dynstr := elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: dynsym.Off + dynsym.Size, Size: uint64(len(names))}
	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Ehsize: head, Shentsize: entry, Shnum: 3,
		Shoff: dynstr.Off + dynstr.Size, Shstrndx: 2,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var out bytes.Buffer
	for _, part := range []any{h, symbols, names, elf.Section64{}, dynsym, dynstr} {
		if err := enc.Write(&out, enc.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestTheLibraryOfTheMeterIsFoundAndChecked(t *testing.T) {
	const entry = "envoy_dynamic_module_on_program_init"
	ours, other := elf.EM_X86_64, elf.EM_AARCH64
	if runtime.GOARCH == "arm64" {
		ours, other = other, ours
	}
	good := library(t, ours, entry)
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name string, content []byte, age time.Duration) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	self, named := filepath.Join(dir, "opt/bin/launcher"), ""
	find := func() (string, error) {
		return envoy.MeterLibrary(self, func(name string) string {
			if name == "TOLLGATE_METER_LIBRARY" {
				return named
			}
			return ""
		})
	}
	if got, err := find(); !errors.Is(err, envoy.ErrNoLibrary) {
		t.Errorf("nothing there: %q, %v", got, err)
	}
	want := write(".cache/meter/libtollgate_meter-000000000001.so", good, 0)
	for _, next := range []string{want, write("opt/lib/tollgate/libtollgate_meter-000000000002.so", good, 0), write("opt/bin/libtollgate_meter-000000000003.so", good, 0)} {
		if got, err := find(); err != nil || !strings.HasPrefix(got, dir) {
			t.Errorf("beside %s: %q, %v", next, got, err)
		}
	}
	write("opt/bin/libtollgate_meter-000000000004.so", good, time.Hour)
	if got, err := find(); err != nil || filepath.Base(got) != "libtollgate_meter-000000000003.so" {
		t.Errorf("not the newest of those beside the programs: %q, %v", got, err)
	}
	m := envoy.Meter{Library: filepath.Join(dir, "opt/bin/libtollgate_meter-000000000003.so")}
	if m.Module() != "tollgate_meter-000000000003" || m.Dir() != filepath.Join(dir, "opt/bin") {
		t.Errorf("module %q in %q", m.Module(), m.Dir())
	}

	for name, content := range map[string][]byte{
		"libtext.so": []byte("no library"), "libempty.so": nil, "libcut.so": good[:len(good)/2],
		"libother.so": library(t, other, entry), "libforeign.so": library(t, ours, "another_function"), "meter.so": good, "lib me.so": good,
	} {
		named = write(name, content, 0)
		if got, err := find(); err == nil || !strings.Contains(err.Error(), "TOLLGATE_METER_LIBRARY") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	{
		if got, err := find(); err == nil {
			t.Errorf("a file that is not there: %q", got)
		}
	}
	if named = "opt/bin/libtollgate_meter-000000000004.so"; true {
		if got, err := find(); err != nil || got != filepath.Join(dir, named) {
			t.Errorf("named: %q, %v", got, err)
		}
	}
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
// tells tollgate of it; it is off wherever ext_proc is, and nowhere else. What it is
// told, and what it tells, passes in metadata that no client can write.
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
	ep := filterOf(t, hcm, "envoy.filters.http.ext_proc", &extprocv3.ExternalProcessor{})
	if diff := cmp.Diff([]string{"envoy.filters.http.ext_authz", "tollgate.meter.by"}, ep.GetMetadataOptions().GetForwardingNamespaces().GetUntyped()); diff != "" {
		t.Errorf("what tollgate is told (-want +got):\n%s", diff)
	}
	if !slices.Contains(ep.GetMetadataOptions().GetReceivingNamespaces().GetUntyped(), "tollgate.meter") {
		t.Error("tollgate cannot tell the meter what to do")
	}
	if ep.GetProcessingMode().GetResponseTrailerMode() != extprocv3.ProcessingMode_SKIP {
		t.Error("ext_proc stays for answers that it does not meter")
	}
	for _, r := range hcm.GetRouteConfig().GetVirtualHosts()[0].GetRoutes() {
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
