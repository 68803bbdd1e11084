package webhook

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"syscall"
)

// ErrAddress says that an address is none that messages are sent to.
var ErrAddress = errors.New("this server sends nothing there")

// Policy says where messages may go.
type Policy struct {
	// Networks are networks of one's own to which messages may go all the same.
	Networks []netip.Prefix
	// PlainHTTP allows http: URLs.
	PlainHTTP bool
}

// MaxURL is the length of the longest URL.
const MaxURL = 2048

// CheckURL refuses what can be seen to be wrong with a URL before anything is
// resolved. The error never repeats it.
func (p Policy) CheckURL(text string) (*url.URL, error) {
	if len(text) > MaxURL {
		return nil, fmt.Errorf("url: want at most %d characters", MaxURL)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("url: want an absolute URL such as https://example.com/joins")
	case u.Scheme == "http" && !p.PlainHTTP:
		return nil, errors.New("url: want https; the operator can allow plain http (webhooks.allow_http)")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("url: want https")
	case !portIsOne(u.Port()):
		return nil, errors.New("url: want a port from 1 to 65535, or none")
	case u.User != nil:
		return nil, errors.New("url: want none with a user or a password: messages are signed instead")
	case u.Fragment != "":
		return nil, errors.New("url: want none with a fragment (#…): it would not be sent")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !p.allows(ip) {
		return nil, fmt.Errorf("url: %w: %s", ErrAddress, whyNot)
	}
	return u, nil
}

// portIsOne tells whether the port of a URL is there to connect to; none is.
func portIsOne(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return text == "" || err == nil && port > 0
}

// whyNot is said of addresses that are refused, the same of all.
const whyNot = "it is a private, local or reserved address; the operator can allow networks (webhooks.allow_networks)"

// control is what the dialer calls with each address that it is about to
// connect to, after resolving: nothing comes between this and the connection.
func (p Policy) control(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ErrAddress
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !p.allows(ip) {
		return fmt.Errorf("%w: %s", ErrAddress, whyNot)
	}
	return nil
}

// allows tells whether messages may be sent to an address: it is in a network
// that was allowed, or one that the whole Internet can reach. An IPv4 address
// within an IPv6 one is judged, too.
func (p Policy) allows(ip netip.Addr) bool {
	if ip.Zone() != "" {
		return false
	}
	ip = ip.Unmap()
	if slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return n.Contains(ip) }) {
		return true
	}
	if ip.Is4() {
		return public4(ip)
	}
	return public6(ip)
}

// Addresses of IPv4 that are not for the public Internet (IANA, IPv4
// Special-Purpose Address Registry), multicast and what is reserved.
var special4 = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)

func public4(ip netip.Addr) bool {
	return !slices.ContainsFunc(special4, func(n netip.Prefix) bool { return n.Contains(ip) })
}

// Global unicast of IPv6, and what of it is not for the public Internet: IETF
// protocol assignments with Teredo, documentation, 6to4, and the network of the
// AS112 servers.
var (
	global6  = netip.MustParsePrefix("2000::/3")
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")
	// nat64 stands in front of an IPv4 address (RFC 6052).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

func public6(ip netip.Addr) bool {
	if nat64.Contains(ip) {
		b := ip.As16()
		return public4(netip.AddrFrom4([4]byte(b[12:])))
	}
	return global6.Contains(ip) && !slices.ContainsFunc(special6, func(n netip.Prefix) bool { return n.Contains(ip) })
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}
