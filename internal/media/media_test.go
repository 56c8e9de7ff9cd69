package media_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"tollgate/internal/media"
)

func policy(tb testing.TB, list ...string) *media.Policy {
	tb.Helper()
	p, err := media.New(list)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// cases are URLs and what an empty list says of them.
var cases = map[string]error{
	"https://example.org/cat.png":               nil,
	"http://example.org:8080/cat.png?x=1#y":     nil,
	"HTTPS://Example.ORG":                       nil,
	"https://example.org.":                      nil,
	"https://münchen.example/ä b.png":           nil,
	"https://xn--mnchen-3ya.example/":           nil,
	"https://a_b.example.org/":                  nil,
	"https://8.8.8.8/":                          nil,
	"https://[2606:4700::1111]:8443/":           nil,
	"data:image/png;base64,AAAA":                nil,
	"DATA:,x":                                   nil,
	"https://example.org/?next=http://10.0.0.1": nil,
	"https://10.example.org/":                   nil,
	"https://0x10.org/":                         nil,

	"file:///etc/passwd":    media.ErrScheme,
	"ftp://example.org/":    media.ErrScheme,
	"gopher://example.org/": media.ErrScheme,
	"httpx://example.org/":  media.ErrScheme,
	"http:example.org":      media.ErrScheme,
	"http:/example.org":     media.ErrScheme,
	"//example.org/":        media.ErrScheme,
	"/etc/passwd":           media.ErrScheme,
	"iVBORw0KGgo=":          media.ErrScheme,
	" https://example.org/": media.ErrScheme,
	"ht\ntp://example.org/": media.ErrScheme,
	"javascript:alert(1)":   media.ErrScheme,

	"http:///127.0.0.1/":              media.ErrForm,
	"https://":                        media.ErrForm,
	"https://user@example.org/":       media.ErrForm,
	"https://example.org:80@10.0.0.1": media.ErrForm,
	"https://example.org\\@10.0.0.1/": media.ErrForm,
	"https://exam\tple.org/":          media.ErrForm,
	"https://example.org/\r\nHost: x": media.ErrForm,
	"https://example.org%2f@x/":       media.ErrForm,
	"https://example..org/":           media.ErrForm,
	"https://exa mple.org/":           media.ErrForm,
	"https://[::1/":                   media.ErrForm,
	"https://[fe80::1%25eth0]/":       media.ErrForm,
	"https://[127.0.0.1]/":            media.ErrForm,
	"https://1.2.3.4.5/":              media.ErrForm,
	"https://256.1.1.1/":              media.ErrForm,
	"https://example.org:http/":       media.ErrForm,
	"https://::1/":                    media.ErrForm,

	"http://localhost/":                        media.ErrPrivate,
	"http://LOCALHOST.:80/":                    media.ErrPrivate,
	"http://a.localhost/":                      media.ErrPrivate,
	"http://minio:9000/x":                      media.ErrPrivate,
	"http://metadata.google.internal/":         media.ErrPrivate,
	"http://printer.local/":                    media.ErrPrivate,
	"http://nas.home.arpa/":                    media.ErrPrivate,
	"http://127.0.0.1/":                        media.ErrPrivate,
	"http://127.0.0.1.:8000/metrics":           media.ErrPrivate,
	"http://127.1/":                            media.ErrPrivate,
	"http://2130706433/":                       media.ErrPrivate,
	"http://0x7f000001/":                       media.ErrPrivate,
	"http://0X7F.1/":                           media.ErrPrivate,
	"http://0177.0.0.1/":                       media.ErrPrivate,
	"http://017700000001/":                     media.ErrPrivate,
	"http://0/":                                media.ErrPrivate,
	"http://0.0.0.0/":                          media.ErrPrivate,
	"http://１２７.０.０.１/":                        media.ErrPrivate,
	"http://①②⑦.⓪.⓪.①/":                        media.ErrPrivate,
	"http://127。0。0。1/":                        media.ErrPrivate,
	"http://10.1.2.3/":                         media.ErrPrivate,
	"http://172.16.0.1/":                       media.ErrPrivate,
	"http://172.31.255.255/":                   media.ErrPrivate,
	"http://192.168.1.1/":                      media.ErrPrivate,
	"http://169.254.169.254/latest/meta-data/": media.ErrPrivate,
	"http://0xa9fea9fe/":                       media.ErrPrivate,
	"http://100.64.0.1/":                       media.ErrPrivate,
	"http://100.100.100.200/":                  media.ErrPrivate,
	"http://224.0.0.1/":                        media.ErrPrivate,
	"http://255.255.255.255/":                  media.ErrPrivate,
	"http://[::1]/":                            media.ErrPrivate,
	"http://[::]/":                             media.ErrPrivate,
	"http://[::ffff:127.0.0.1]/":               media.ErrPrivate,
	"http://[::ffff:7f00:1]/":                  media.ErrPrivate,
	"http://[::ffff:a9fe:a9fe]:80/":            media.ErrPrivate,
	"http://[::127.0.0.1]/":                    media.ErrPrivate,
	"http://[fe80::1]/":                        media.ErrPrivate,
	"http://[fd00:ec2::254]/":                  media.ErrPrivate,
	"http://[64:ff9b::7f00:1]/":                media.ErrPrivate,
	"http://[2002:7f00:1::]/":                  media.ErrPrivate,
	"http://[2001:0:0:0:0:0:80ff:fffe]/":       media.ErrPrivate,
	"http://[ff02::1]/":                        media.ErrPrivate,
}

func TestOnlyWhatIsOnThePublicInternetPasses(t *testing.T) {
	for url, want := range cases {
		if got := policy(t).Check(url); !errors.Is(got, want) {
			t.Errorf("%q: got %v, want %v", url, got, want)
		}
		if got := (*media.Policy)(nil).Check(url); !errors.Is(got, want) {
			t.Errorf("%q without a policy: got %v, want %v", url, got, want)
		}
	}
}

func TestAListSaysWhatPasses(t *testing.T) {
	p := policy(t, "Images.Example.org", "minio", "10.1.0.0/16", "192.168.7.7", "fd00::/8", "::1")
	for url, want := range map[string]error{
		"https://images.example.org/a":       nil,
		"https://images.example.org.:444/a":  nil,
		"http://minio:9000/bucket/a.png":     nil,
		"http://10.1.2.3/a":                  nil,
		"http://0x0a010203/a":                nil,
		"http://[::ffff:10.1.2.3]/":          nil,
		"http://192.168.7.7/":                nil,
		"http://[fd12::1]/":                  nil,
		"http://[::1]/":                      nil,
		"data:,x":                            nil,
		"https://a.images.example.org/":      media.ErrList,
		"https://example.org/":               media.ErrList,
		"https://images.example.org.evil.io": media.ErrList,
		"http://10.2.0.1/":                   media.ErrList,
		"http://192.168.7.8/":                media.ErrList,
		"http://8.8.8.8/":                    media.ErrList,
		"file:///minio":                      media.ErrScheme,
	} {
		if got := p.Check(url); !errors.Is(got, want) {
			t.Errorf("%q: got %v, want %v", url, got, want)
		}
	}
}

func TestAListIsRead(t *testing.T) {
	for _, entry := range []string{"", "https://example.org", "example.org:443", "a b", "*", "*.example.org", "10.0.0.0/33", "-x", "user@example.org", "1.2.3.4.5"} {
		var bad *media.EntryError
		if _, err := media.New([]string{"example.org", entry}); !errors.As(err, &bad) || bad.Index != 1 {
			t.Errorf("%q: got %v, want an error at entry 2", entry, err)
		}
	}
	if names, ok := policy(t, "B.example.org", "10.0.0.5", "::1").Names(); !ok || strings.Join(names, " ") != "b.example.org 10.0.0.5 ::1" {
		t.Errorf("names: %v, %v", names, ok)
	}
	if names, ok := policy(t, "b.example.org", "10.0.0.0/8").Names(); ok {
		t.Errorf("a prefix became %v", names)
	}
}

// FuzzCheck: whatever is written, what passes an empty list names neither this
// host nor a private network in any way that this test can read.
func FuzzCheck(f *testing.F) {
	for url := range cases {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		if policy(t).Check(url) != nil || len(url) > 4 && strings.EqualFold(url[:5], "data:") {
			return
		}
		lower := strings.ToLower(url)
		rest, ok := strings.CutPrefix(strings.TrimPrefix(lower, "https://"), "http://")
		if !ok && !strings.HasPrefix(lower, "https://") {
			t.Fatalf("%q passed with another scheme", url)
		}
		authority := rest
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			authority = rest[:i]
		}
		if authority == "" || strings.ContainsAny(authority, "@\\% \t\r\n") {
			t.Fatalf("%q passed with an odd authority", url)
		}
		if inside(authority) {
			t.Fatalf("%q passed", url)
		}
	})
}

// inside tells whether a host, as the standard library reads it, is this one or
// of a private network.
func inside(authority string) bool {
	if ap, err := netip.ParseAddrPort(authority); err == nil {
		authority = ap.Addr().String()
	}
	addr, err := netip.ParseAddr(strings.Trim(authority, "[]"))
	if err != nil {
		return false
	}
	addr = addr.Unmap()
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast()
}
