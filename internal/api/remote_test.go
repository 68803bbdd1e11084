package api

import (
	"net/http"
	"net/netip"
	"testing"
)

// TestOrigin: a header counts where a proxy that is trusted sent it, from its right
// end up to the first address that is no proxy's.
func TestOrigin(t *testing.T) {
	trusted := proxies{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("2001:db8:1::/48")}
	const xff, fwd = "X-Forwarded-For", "Forwarded"
	for _, c := range []struct {
		name, remote, want string
		header             http.Header
		by                 proxies
	}{
		{"nobody is trusted", "127.0.0.1:5", "127.0.0.1", http.Header{xff: {"192.0.2.1"}}, nil},
		{"who connects is no proxy", "198.51.100.7:5", "198.51.100.7", http.Header{xff: {"192.0.2.1"}, fwd: {"for=192.0.2.1"}}, trusted},
		{"one proxy", "127.0.0.1:5", "192.0.2.1", http.Header{xff: {"192.0.2.1"}}, trusted},
		{"what the client wrote before", "127.0.0.1:5", "192.0.2.1", http.Header{xff: {"203.0.113.9, 192.0.2.1"}}, trusted},
		{"in a line of its own", "127.0.0.1:5", "192.0.2.1", http.Header{xff: {"203.0.113.9", "192.0.2.1"}}, trusted},
		{"a client that says it is a proxy", "127.0.0.1:5", "192.0.2.1", http.Header{xff: {"10.20.0.1, 192.0.2.1"}}, trusted},
		{"two proxies", "127.0.0.1:5", "192.0.2.1", http.Header{xff: {"203.0.113.9, 192.0.2.1, 10.20.3.4"}}, trusted},
		{"proxies alone", "127.0.0.1:5", "10.20.3.4", http.Header{xff: {"10.20.3.4"}}, trusted},
		{"no header", "127.0.0.1:5", "127.0.0.1", nil, trusted},
		{"an empty one", "127.0.0.1:5", "127.0.0.1", http.Header{xff: {""}}, trusted},
		{"no address", "127.0.0.1:5", "127.0.0.1", http.Header{xff: {"192.0.2.1, unknown"}}, trusted},
		{"no address behind a proxy", "127.0.0.1:5", "10.20.3.4", http.Header{xff: {"192.0.2.1, x, 10.20.3.4"}}, trusted},
		{"IPv6", "[2001:db8:1::5]:5", "2001:db8:2::1", http.Header{xff: {"2001:db8:2::1"}}, trusted},
		{"IPv4 in IPv6", "[::ffff:127.0.0.1]:5", "192.0.2.1", http.Header{xff: {"::ffff:192.0.2.1"}}, trusted},
		{"with ports", "127.0.0.1:5", "192.0.2.1", http.Header{xff: {"192.0.2.1:4711, [2001:db8:1::9]:80"}}, trusted},
		{"Forwarded", "127.0.0.1:5", "192.0.2.1", http.Header{fwd: {`for=203.0.113.9, For="192.0.2.1:80";proto=https, by=x;for="[2001:db8:1::9]"`}}, trusted},
		{"Forwarded without for", "127.0.0.1:5", "127.0.0.1", http.Header{fwd: {"for=192.0.2.1, proto=https"}}, trusted},
		{"Forwarded that hides", "127.0.0.1:5", "127.0.0.1", http.Header{fwd: {"for=192.0.2.1, for=_hidden"}}, trusted},
		{"both", "127.0.0.1:5", "192.0.2.1", http.Header{xff: {"192.0.2.1"}, fwd: {"for=203.0.113.9"}}, trusted},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: c.header}
		if got := c.by.origin(r); got != netip.MustParseAddr(c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	for _, socket := range []string{"", "@"} {
		if got := trusted.origin(&http.Request{RemoteAddr: socket, Header: http.Header{xff: {"192.0.2.1"}}}); got.IsValid() {
			t.Errorf("a socket: %s", got)
		}
	}
}
