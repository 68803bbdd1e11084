package fleet

import (
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

func TestParseCredential(t *testing.T) {
	ca, leaf := newCA(t, "CA"), selfSigned(t)
	noSign := newCA(t, "No", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	pin := byPin(leaf)
	edit := func(c joinery.Credential, f func(*joinery.Credential)) joinery.Credential { f(&c); return c }
	for name, c := range map[string]struct {
		credential joinery.Credential
		good       bool
	}{
		"pin":                  {pin, true},
		"pin of nothing":       {joinery.Credential{Kind: joinery.CredentialSPKI}, false},
		"pin with CA":          {edit(pin, func(c *joinery.Credential) { c.CA = ca.cert.Raw }), false},
		"pin with name":        {edit(pin, func(c *joinery.Credential) { c.SAN = "a.example.com" }), false},
		"CA":                   {byCA(ca), true},
		"expired CA":           {byCA(newCA(t, "Old", expired)), true}, // a warning
		"CA with name":         {edit(byCA(ca), func(c *joinery.Credential) { c.SAN = "a.example.com" }), false},
		"CA with pin":          {edit(byCA(ca), func(c *joinery.Credential) { c.SPKI = pin.SPKI }), false},
		"CA that is a leaf":    {joinery.Credential{Kind: joinery.CredentialCA, CA: leaf.Raw}, false},
		"CA that may not sign": {byCA(noSign), false},
		"CA in PEM":            {joinery.Credential{Kind: joinery.CredentialCA, CA: []byte("-----BEGIN")}, false},
		"two CAs":              {joinery.Credential{Kind: joinery.CredentialCA, CA: append(ca.cert.Raw[:len(ca.cert.Raw):len(ca.cert.Raw)], ca.cert.Raw...)}, false},
		"no CA":                {joinery.Credential{Kind: joinery.CredentialCA}, false},
		"name":                 {bySAN(ca, "ns-1.example.com"), true},
		"URI":                  {bySAN(ca, "spiffe://example.com/ns"), true},
		"no name":              {bySAN(ca, ""), false},
		"wildcard":             {bySAN(ca, "*.example.com"), false},
		"empty label":          {bySAN(ca, "a..example.com"), false},
		"two names":            {bySAN(ca, "a.example.com b.example.com"), false},
		"e-mail":               {bySAN(ca, "a@example.com"), false},
		"port":                 {bySAN(ca, "a.example.com:443/x y"), false},
		"long name":            {bySAN(ca, strings.Repeat("a", 64)+".example.com"), false},
		"unknown kind":         {joinery.Credential{Kind: "cn"}, false},
	} {
		if _, err := parseCredential(c.credential); (err == nil) != c.good || !c.good && joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckAgainst(t *testing.T) {
	ca, other := newCA(t, "CA"), newCA(t, "Other")
	child, leaf := ca.sub(t, "Child"), selfSigned(t)
	netID, nsid := lorawan.NetID{0, 0, 0x13}, func(v uint64) []lorawan.EUI64 { return []lorawan.EUI64{lorawan.EUI64FromUint64(v)} }
	ns := func(p joinery.Peer, nsids []lorawan.EUI64) joinery.Peer {
		p.NetIDs, p.NSIDs = []lorawan.NetID{{9}, netID}, nsids
		return p
	}
	as := func(p joinery.Peer, id string) joinery.Peer { p.ASIDs = []string{"x", id}; return p }
	ignoring := func(p joinery.Peer) joinery.Peer { p.IgnoreNSID = true; return p }
	for name, c := range map[string]struct {
		added, there joinery.Peer
		want         string // in the message; "" passes
	}{
		"strangers":                       {peer("a", byCA(ca)), peer("b", byCA(other)), ""},
		"same name":                       {peer("A", byCA(ca)), peer("a", byCA(other)), "name"},
		"same pin":                        {peer("a", byPin(leaf)), peer("b", byCA(ca), byPin(leaf)), "pinned"},
		"other pins":                      {peer("a", byPin(leaf)), peer("b", byPin(selfSigned(t))), ""},
		"same CA, both alone":             {peer("a", byCA(ca)), peer("b", byCA(ca)), "dedicated to both"},
		"same CA, renewed":                {peer("a", byCA(ca.renewed(t))), peer("b", byCA(ca)), "dedicated to both"},
		"another CA of the name":          {peer("a", byCA(ca)), peer("b", byCA(newCA(t, "CA"))), ""},
		"dedicated CA, now shared":        {peer("a", bySAN(ca, "a.example.com")), peer("b", byCA(ca)), "cannot be shared"},
		"shared CA, now dedicated":        {peer("a", byCA(ca)), peer("b", bySAN(ca, "b.example.com")), "cannot be shared"},
		"child of a dedicated CA":         {peer("a", byCA(child)), peer("b", byCA(ca)), "dedicated to both"},
		"parent of a dedicated CA":        {peer("a", byCA(ca)), peer("b", byCA(child)), "dedicated to both"},
		"shared CA, other names":          {peer("a", bySAN(ca, "a.example.com")), peer("b", bySAN(ca, "b.example.com")), ""},
		"shared CA, same name":            {peer("a", bySAN(ca, "a.example.com")), peer("b", bySAN(ca, "A.example.com")), "same subject alternative name"},
		"shared CA and child, same name":  {peer("a", bySAN(child, "a.example.com")), peer("b", bySAN(ca, "a.example.com")), "same subject alternative name"},
		"other CAs, same name":            {peer("a", bySAN(other, "a.example.com")), peer("b", bySAN(ca, "a.example.com")), ""},
		"URIs differ by case":             {peer("a", bySAN(ca, "urn:x:A")), peer("b", bySAN(ca, "urn:x:a")), ""},
		"same AS-ID":                      {as(peer("a", byCA(ca)), "as"), func() joinery.Peer { p := peer("b", byCA(other)); p.ASIDs = []string{"as"}; return p }(), "AS-ID as"},
		"same NetID, no NSIDs":            {ns(peer("a", byCA(ca)), nil), ns(peer("b", byCA(other)), nil), "NSIDs"},
		"same NetID, one without NSIDs":   {ns(peer("a", byCA(ca)), nsid(1)), ns(peer("b", byCA(other)), nil), "NSIDs"},
		"same NetID, NSIDs tell":          {ns(peer("a", byCA(ca)), nsid(1)), ns(peer("b", byCA(other)), nsid(2)), ""},
		"same NetID, same NSID":           {ns(peer("a", byCA(ca)), nsid(1)), ns(peer("b", byCA(other)), nsid(1)), "NSID 0000000000000001"},
		"same NetID, one ignores NSIDs":   {ignoring(ns(peer("a", byCA(ca)), nsid(1))), ns(peer("b", byCA(other)), nsid(2)), "ignore"},
		"same NetID, other ignores NSIDs": {ns(peer("a", byCA(ca)), nsid(1)), ignoring(ns(peer("b", byCA(other)), nsid(2))), "ignore"},
	} {
		t.Run(name, func(t *testing.T) {
			credentials, err := parseCredentials(c.added)
			if err != nil {
				t.Fatal(err)
			}
			err = checkAgainst(c.added, credentials, []joinery.Peer{c.there})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (joinery.CodeOf(err) != joinery.CodeConflict || !strings.Contains(err.Error(), c.want) || !strings.Contains(strings.ToLower(err.Error()), c.there.Name)):
				t.Errorf("got %v; want a conflict that says %q and names %q", err, c.want, c.there.Name)
			}
			if err := checkAgainst(c.added, credentials, []joinery.Peer{c.added}); err != nil {
				t.Errorf("conflicts with itself: %v", err)
			}
		})
	}
}

func TestCheckPeer(t *testing.T) {
	ca := newCA(t, "CA")
	netID := []lorawan.NetID{{0, 0, 1}}
	for name, c := range map[string]struct {
		edit func(*joinery.Peer)
		good bool
	}{
		"as it is":         {func(*joinery.Peer) {}, true},
		"no name":          {func(p *joinery.Peer) { p.Name = "" }, false},
		"name of spaces":   {func(p *joinery.Peer) { p.Name = " a" }, false},
		"name with escape": {func(p *joinery.Peer) { p.Name = "a\x1b[31m" }, false},
		"name not UTF-8":   {func(p *joinery.Peer) { p.Name = "a\xff" }, false},
		"name of umlauts":  {func(p *joinery.Peer) { p.Name = "Zürich Netz" }, true},
		"long name":        {func(p *joinery.Peer) { p.Name = strings.Repeat("a", maxName+1) }, false},
		"no role":          {func(p *joinery.Peer) { p.NetIDs = nil }, false},
		"AS only":          {func(p *joinery.Peer) { p.NetIDs, p.ASIDs = nil, []string{"as"} }, true},
		"AS-ID malformed":  {func(p *joinery.Peer) { p.ASIDs = []string{"a s"} }, false},
		"NetID twice":      {func(p *joinery.Peer) { p.NetIDs = append(netID, netID...) }, false},
		"AS-ID twice":      {func(p *joinery.Peer) { p.ASIDs = []string{"a", "a"} }, false},
		"NSID":             {func(p *joinery.Peer) { p.NSIDs = []lorawan.EUI64{{1}} }, true},
		"NSID zero":        {func(p *joinery.Peer) { p.NSIDs = []lorawan.EUI64{{}} }, false},
		"NSID, no NetID":   {func(p *joinery.Peer) { p.NetIDs, p.ASIDs, p.NSIDs = nil, []string{"as"}, []lorawan.EUI64{{1}} }, false},
		"policy":           {func(p *joinery.Peer) { p.AppSKeyAtLeast = 3 }, false},
		"no credential":    {func(p *joinery.Peer) { p.Credentials = nil }, false},
		"bad credential":   {func(p *joinery.Peer) { p.Credentials = append(p.Credentials, joinery.Credential{}) }, false},
		"too many NetIDs":  {func(p *joinery.Peer) { p.NetIDs = make([]lorawan.NetID, maxNames+1) }, false},
	} {
		p := peer("peer", byCA(ca))
		p.NetIDs = netID
		c.edit(&p)
		if _, err := checkPeer(p); (err == nil) != c.good || !c.good && joinery.CodeOf(err) != joinery.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckLabel(t *testing.T) {
	for label, good := range map[string]bool{
		"ns-000013-v1": true, "with space": true, strings.Repeat("a", 64): true,
		"": false, " a": false, "ä": false, "a\n": false, strings.Repeat("a", 65): false,
	} {
		if err := checkLabel(label); (err == nil) != good {
			t.Errorf("%q: %v", label, err)
		}
	}
}

func TestCredentialWarnings(t *testing.T) {
	soon := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(24 * time.Hour) }
	for name, c := range map[string]struct {
		credential joinery.Credential
		want       string
	}{
		"good":    {byCA(newCA(t, "CA")), ""},
		"pin":     {byPin(selfSigned(t)), ""},
		"expired": {byCA(newCA(t, "CA", expired)), "expired at"},
		"early":   {byCA(newCA(t, "CA", notYet)), "only from"},
		"soon":    {byCA(newCA(t, "CA", soon)), "expires at"},
	} {
		got := strings.Join(CredentialWarnings(peer("peer", c.credential), time.Now()), "\n")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestDescribeCredentials(t *testing.T) {
	ca := newCA(t, "CA")
	sum := sha256.Sum256(ca.cert.Raw)
	p := peer("peer", byPin(ca.cert), bySAN(ca, "a.example.com"))
	got := describeCredentials(p)
	if !strings.Contains(got, "spki:") || !strings.Contains(got, lowerHex(sum[:])+":a.example.com") {
		t.Errorf("got %q", got)
	}
}

func lowerHex(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}
