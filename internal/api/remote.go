package api

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
)

// remote is the address from which a request came; none on a Unix socket.
func remote(ctx context.Context) netip.Addr {
	from, _ := ctx.Value(remoteKey{}).(netip.Addr)
	return from
}

// proxies are the networks whose word on where a request came from is taken.
type proxies []netip.Prefix

func (p proxies) trust(a netip.Addr) bool {
	for _, n := range p {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// origin is where a request came from: who connected, or, where that is a proxy,
// the last address that proxies name and that is none of theirs. Whatever stands
// before that one anybody may have written. Where the chain breaks off, because a
// proxy names none or something that is no address, it is the last that is known.
func (p proxies) origin(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // a Unix socket
	}
	from := at.Addr().Unmap().WithZone("")
	if !p.trust(from) {
		return from
	}
	chain := forwardedFor(r.Header)
	for i := len(chain) - 1; i >= 0; i-- {
		next, ok := forwardedAddr(chain[i])
		if !ok {
			return from
		}
		if from = next; !p.trust(from) {
			return from
		}
	}
	return from
}

// forwardedFor gives the hops that proxies noted, the nearest last, of one header:
// X-Forwarded-For, or where there is none Forwarded (RFC 7239). Were both read, a
// client could write the one that its proxy leaves alone.
func forwardedFor(h http.Header) (hops []string) {
	if lines := h.Values("X-Forwarded-For"); len(lines) > 0 {
		return strings.Split(strings.Join(lines, ","), ",")
	}
	lines := h.Values("Forwarded")
	if len(lines) == 0 {
		return nil
	}
	for hop := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		address := ""
		for pair := range strings.SplitSeq(hop, ";") {
			if name, value, _ := strings.Cut(strings.TrimSpace(pair), "="); strings.EqualFold(name, "for") {
				address = strings.Trim(value, `"`)
			}
		}
		hops = append(hops, address)
	}
	return hops
}

// forwardedAddr reads an address, with a port or without: 192.0.2.1, 192.0.2.1:80,
// 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.
func forwardedAddr(hop string) (netip.Addr, bool) {
	hop = strings.TrimSpace(hop)
	if at, err := netip.ParseAddrPort(hop); err == nil {
		return at.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(hop, "["), "]"))
	return a.Unmap().WithZone(""), err == nil
}
