//go:build packages

package packages_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// modes are the owners and modes that an installation leaves. Nothing of a user's is
// there, and no key.
const modes = `stat -c '%n %U:%G %a' /etc/tollgate /etc/tollgate/config.yaml /var/lib/tollgate /usr/bin/tollgate /usr/bin/launcher /usr/lib/tollgate/envoy`

const wantModes = `/etc/tollgate root:tollgate 750
/etc/tollgate/config.yaml root:tollgate 640
/var/lib/tollgate tollgate:tollgate 750
/usr/bin/tollgate root:root 755
/usr/bin/launcher root:root 755
/usr/lib/tollgate/envoy root:root 755`

func TestDeb(t *testing.T) {
	for name, install := range map[string]func(s *system, files string){
		"dpkg": func(s *system, files string) { s.in("dpkg --force-unsafe-io -i " + files) },
		"dpkg --root": func(s *system, files string) {
			run(t, "sh", "-ec", "cd "+s.dir+" && dpkg --force-unsafe-io --root="+s.dir+" -i "+strings.ReplaceAll(files, "/tmp/", s.dir+"/tmp/"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t)
			deb := s.put(the(t, "tollgate_*.deb"))
			install(s, deb+" "+s.put(the(t, "tollgate-envoy_*.deb")))
			s.want(modes, wantModes)
			s.want("find /var/lib/tollgate /etc/tollgate -type f", "/etc/tollgate/config.yaml")
			s.want("getent passwd tollgate | cut -d: -f6,7", "/var/lib/tollgate:/usr/sbin/nologin")
			s.in("setpriv --reuid tollgate --regid tollgate --init-groups tollgate --config /etc/tollgate/config.yaml config check")
			if out := s.in("tollgate version"); !strings.Contains(out, "v0.") {
				t.Errorf("tollgate version says %s", out)
			}
			s.in("systemd-analyze verify --man=no /usr/lib/systemd/system/tollgate*.service")

			// Root makes a key; the service can read it, and nobody else.
			s.in("tollgate --config /etc/tollgate/config.yaml keys add --user alice >/tmp/alice.key 2>/dev/null")
			s.want("stat -c '%U:%G %a' /var/lib/tollgate/api_keys.json", "tollgate:tollgate 600")

			// An upgrade whose configuration is another one keeps what the owner wrote.
			s.in("echo '# mine' >>/etc/tollgate/config.yaml")
			s.in(`dpkg-deb -R ` + deb + ` /tmp/next && sed -i 's/^Version: .*/Version: 9.0.0-1/' /tmp/next/DEBIAN/control &&
				echo '# theirs' >>/tmp/next/etc/tollgate/config.yaml && dpkg-deb -Znone -b /tmp/next /tmp/next.deb && dpkg --force-unsafe-io --force-confdef --force-confold -i /tmp/next.deb`)
			s.want("tail -n 1 /etc/tollgate/config.yaml", "# mine")
			s.want(modes, wantModes)
			s.want("stat -c '%U:%G %a' /var/lib/tollgate/api_keys.json", "tollgate:tollgate 600")

			s.in("dpkg -r tollgate")
			s.want("ls /usr/bin/tollgate /usr/lib/systemd/system/tollgate.service 2>/dev/null || true", "")
			s.want("ls /var/lib/tollgate/api_keys.json", "/var/lib/tollgate/api_keys.json")
			s.in("dpkg -P tollgate tollgate-envoy")
			s.want("ls -d /etc/tollgate /var/lib/tollgate /usr/lib/tollgate 2>/dev/null || true", "")
			s.want("getent passwd tollgate || getent group tollgate || echo gone", "gone")
		})
	}
}

// TestRPM installs with the rpm of one system into another one.
func TestRPM(t *testing.T) {
	tools, s := newSystem(t), newSystem(t)
	into := filepath.Join(tools.dir, "mnt")
	run(t, "mount", "--bind", s.dir, into)
	t.Cleanup(func() { run(t, "umount", "-l", into) })
	files := tools.put(the(t, "tollgate-0*.rpm")) + " " + tools.put(the(t, "tollgate-envoy-*.rpm"))
	tools.in("rpm --root /mnt --initdb; rpm -i --root /mnt --nodeps " + files)
	s.want(modes, wantModes)
	s.in("tollgate version")
	s.in("setpriv --reuid tollgate --regid tollgate --init-groups tollgate --config /etc/tollgate/config.yaml keys add --user alice >/dev/null 2>&1")
	s.in("echo '# mine' >>/etc/tollgate/config.yaml")
	tools.in("rpm -U --force --root /mnt --nodeps " + files)
	s.want("tail -n 1 /etc/tollgate/config.yaml", "# mine")
	if out := tools.in("rpm -e --root /mnt tollgate tollgate-envoy 2>&1"); !strings.Contains(out, "it stays") {
		t.Errorf("a removal says %q", out)
	}
	s.want("ls /usr/bin/tollgate 2>/dev/null || true", "")
	s.want("ls /var/lib/tollgate/api_keys.json", "/var/lib/tollgate/api_keys.json")
}
