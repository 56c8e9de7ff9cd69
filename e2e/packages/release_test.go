//go:build packages

package packages_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTwoBuildsAreTheSame compares a release with one from another clone.
func TestTwoBuildsAreTheSame(t *testing.T) {
	one, two := digests(t, given(t, "DIST_DIR")), digests(t, given(t, "DIST_AGAIN"))
	if len(one) < 8 {
		t.Errorf("only %d files", len(one))
	}
	for name, digest := range one {
		if two[name] != digest {
			t.Errorf("%s is another one", name)
		}
	}
	if len(one) != len(two) {
		t.Errorf("%d files and %d files", len(one), len(two))
	}
}

// TestSumsAreThoseOfTheFiles: what a user checks holds for every file.
func TestSumsAreThoseOfTheFiles(t *testing.T) {
	dir := given(t, "DIST_DIR")
	all := digests(t, dir)
	delete(all, "SHA256SUMS")
	delete(all, "SHA256SUMS.sig")
	text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		digest, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if all[name] != digest {
			t.Errorf("%s: the sum is another one", name)
		}
		delete(all, name)
	}
	if len(all) > 0 {
		t.Errorf("without a sum: %v", all)
	}
}

func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		out[e.Name()] = hex.EncodeToString(sum[:])
	}
	return out
}

// allowed is everything that may be in an archive, below its top folder.
var allowed = regexp.MustCompile(`^(config\.yaml|bin/(tollgate|launcher)|lib/tollgate/libtollgate_meter-[0-9a-f]{12}\.so|` +
	`lib/systemd/system/tollgate(-serve|-vllm)?\.service|share/man/man[1-8]/[a-z-]+\.[1-8](\.gz)?|` +
	`share/(bash-completion/completions/tollgate|zsh/site-functions/_tollgate|fish/vendor_completions\.d/tollgate\.fish)|` +
	`share/doc/tollgate/(copyright|THIRD-PARTY\.txt|config\.sample\.yaml|README\.md|CHANGELOG\.md|SECURITY\.md|docs/[A-Za-z0-9/-]+\.md|examples/[a-z/.-]+\.(ya?ml|json)))$`)

// foreign must be nowhere: folders of a builder, private keys.
var foreign = regexp.MustCompile(`/root/|/home/|/work/|/tmp/tollgate-dist|-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=]`)

// TestNothingElseIsInIt lists the archive: known files alone, plain modes, owned by
// root, and no path of the builder.
func TestNothingElseIsInIt(t *testing.T) {
	f, err := os.Open(the(t, "tollgate_*_linux_*.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files, wanted := 0, map[string]bool{"share/man/man1/tollgate.1": true, "share/man/man1/launcher.1": true, "share/doc/tollgate/THIRD-PARTY.txt": true, "bin/launcher": true}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		if h.Uid != 0 || h.Gid != 0 || h.Mode&^0o755 != 0 || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			t.Errorf("%s: owner %d:%d, mode %o, type %c", h.Name, h.Uid, h.Gid, h.Mode, h.Typeflag)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		files++
		delete(wanted, name)
		if !allowed.MatchString(name) {
			t.Errorf("%s should not be there", name)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if found := foreign.FindIndex(data); found != nil && !strings.HasSuffix(name, ".md") {
			t.Errorf("%s has %q", name, data[found[0]:min(found[1]+40, len(data))])
		}
	}
	if files < 20 || len(wanted) > 0 {
		t.Errorf("only %d files, and none of %v", files, wanted)
	}
	deb := run(t, "dpkg-deb", "-c", the(t, "tollgate_*.deb"))
	for line := range strings.Lines(deb) {
		if regexp.MustCompile(`^-.{8}w|^-..s|api_keys|\.db$|\.pem|\.key$`).MatchString(line) {
			t.Errorf("the deb has %s", line)
		}
	}
}

// TestSBOMNamesWhatIsLinked: the parts that matter are in it, with their versions.
func TestSBOMNamesWhatIsLinked(t *testing.T) {
	data, err := os.ReadFile(the(t, "tollgate_*.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat  string `json:"bomFormat"`
		Components []struct {
			Name, Version string
		} `json:"components"`
	}
	if err := json.Unmarshal(data, &bom); err != nil || bom.BOMFormat != "CycloneDX" {
		t.Fatalf("%s, %v", bom.BOMFormat, err)
	}
	for _, name := range []string{"google.golang.org/grpc", "modernc.org/sqlite", "github.com/jackc/pgx/v5"} {
		if !bytes.Contains(data, []byte("pkg:golang/"+name+"@v")) {
			t.Errorf("no %s among %d parts", name, len(bom.Components))
		}
	}
}
