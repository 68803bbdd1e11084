package fleet

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"joinery"
)

func noKeyID(c *x509.Certificate) { c.SubjectKeyId, c.AuthorityKeyId = nil, nil }

// manyCAs is a directory of n peers with a CA each.
func manyCAs(t testing.TB, n int, name func(int) string) (*Directory, []authority) {
	t.Helper()
	var peers []joinery.Peer
	var cas []authority
	for i := range n {
		cas = append(cas, newCA(t, name(i)))
		peers = append(peers, peer(fmt.Sprint("peer", i), byCA(cas[i])))
	}
	d, _ := directory(t, peers...)
	return d, cas
}

// forged is a chain of the greatest length that a stranger made: all its CAs
// have one name and one key, so that each may have signed each.
func forged(t testing.TB, name string) []*x509.Certificate {
	t.Helper()
	stranger := newCA(t, name)
	chain := []*x509.Certificate{stranger.leaf(t)}
	for len(chain) < maxChain {
		chain = append(chain, stranger.renewed(t).cert)
	}
	for _, c := range chain {
		noKeyID(c) // as parsed from a certificate without them
	}
	return chain
}

// TestWorkForStrangers: what an unknown client makes the server verify does not
// grow with the number of CAs.
func TestWorkForStrangers(t *testing.T) {
	numbered := func(i int) string { return fmt.Sprint("CA ", i) }
	different, _ := manyCAs(t, 30, numbered)
	same, _ := manyCAs(t, 30, func(int) string { return "CA" })
	for _, tt := range []struct {
		name  string
		d     *Directory
		chain []*x509.Certificate
		most  int
	}{
		{"names no CA", different, forged(t, "X"), 0},
		{"names one of many", different, forged(t, "CA 7"), maxChain + maxChain - 1},
		{"names all", same, forged(t, "CA"), maxChecks},
	} {
		c := climb{chain: tt.chain, now: time.Now(), checks: maxChecks}
		found := c.peers(tt.d.current.Load().cas)
		if made := maxChecks - c.checks; len(found) != 0 || made > tt.most {
			t.Errorf("%s: %d signatures were verified, want at most %d; found %v", tt.name, made, tt.most, found)
		}
		if _, err := tt.d.Resolve(tt.chain, time.Now()); joinery.CodeOf(err) != joinery.CodeUnauthenticated {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestCAsOfOneName: key identifiers lead to the right one of many at once.
func TestCAsOfOneName(t *testing.T) {
	d, cas := manyCAs(t, 2*maxChecks, func(int) string { return "CA" })
	for i, ca := range cas {
		if p, err := d.Resolve([]*x509.Certificate{ca.leaf(t)}, time.Now()); err != nil || p.Name != fmt.Sprint("peer", i) {
			t.Fatalf("CA %d: %q, %v", i, p.Name, err)
		}
	}
}

func TestClimb(t *testing.T) {
	root := newCA(t, "Root")
	one := root.sub(t, "One")
	two := one.sub(t, "Two")
	short := newCA(t, "Short", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := short.sub(t, "Below")
	leafKey := newKey(t)
	d, _ := directory(t, peer("root", byCA(root)), peer("short", byCA(short)))
	byTwo, _ := directory(t, peer("two", byCA(two)))
	fake := authority{sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}}, root.cert, leafKey, root.key), leafKey}
	leaf := two.leaf(t)
	for name, c := range map[string]struct {
		d     *Directory
		chain []*x509.Certificate
		want  string // "" is refused
	}{
		"two intermediates":           {d, []*x509.Certificate{leaf, two.cert, one.cert}, "root"},
		"and the root":                {d, []*x509.Certificate{leaf, two.cert, one.cert, root.cert}, "root"},
		"one missing":                 {d, []*x509.Certificate{leaf, one.cert, root.cert}, ""},
		"in disorder":                 {d, []*x509.Certificate{leaf, one.cert, two.cert}, ""},
		"trust in an intermediate":    {byTwo, []*x509.Certificate{leaf, two.cert, one.cert, root.cert}, "two"},
		"path length":                 {d, []*x509.Certificate{below.leaf(t), below.cert}, ""},
		"directly under path length":  {d, []*x509.Certificate{short.leaf(t)}, "short"},
		"a leaf that signs":           {d, []*x509.Certificate{fake.leaf(t), fake.cert}, ""},
		"the CA's own certificate":    {d, []*x509.Certificate{root.cert}, "root"},
		"expired intermediate":        {d, []*x509.Certificate{leaf, two.cert, expiredCopy(t, root, one)}, ""},
		"intermediate of another key": {d, []*x509.Certificate{leaf, one.sub(t, "Two").cert, one.cert}, ""},
	} {
		got, err := c.d.Resolve(c.chain, time.Now())
		if got.Name != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got.Name, err, c.want)
		}
	}
	if _, err := d.Resolve(slices.Repeat([]*x509.Certificate{leaf}, maxChain+1), time.Now()); joinery.CodeOf(err) != joinery.CodeUnauthenticated {
		t.Errorf("too many certificates: %v", err)
	}
}

// expiredCopy is the certificate of sub, with an end in the past.
func expiredCopy(t *testing.T, by, sub authority) *x509.Certificate {
	t.Helper()
	template := caTemplate(sub.cert.Subject.CommonName)
	expired(template)
	return sign(t, template, by.cert, sub.key, by.key)
}

// TestHugeKey: no signature is verified by an RSA key of a client's choice that
// is far longer than any that is used.
func TestHugeKey(t *testing.T) {
	ca := newCA(t, "CA")
	sub := ca.sub(t, "Sub")
	huge := *sub.cert
	huge.PublicKey = &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), maxRSABits), E: 65537}
	d, _ := directory(t, peer("peer", byCA(ca)))
	c := climb{chain: []*x509.Certificate{sub.leaf(t), &huge}, now: time.Now(), checks: maxChecks}
	if found := c.peers(d.current.Load().cas); len(found) != 0 || c.checks != maxChecks {
		t.Errorf("found %v after %d checks", found, maxChecks-c.checks)
	}
}

// BenchmarkStranger is a chain that nobody vouches for, at a server with twenty
// CAs; the chain names one of them.
func BenchmarkStranger(b *testing.B) {
	d, _ := manyCAs(b, 20, func(i int) string { return fmt.Sprint("CA ", i) })
	chain := forged(b, "CA 7")
	for b.Loop() {
		if _, err := d.Resolve(chain, time.Now()); err == nil {
			b.Fatal("recognised")
		}
	}
}
