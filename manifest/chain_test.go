package manifest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"
)

// authority is a CA of the tests, which certifies with its own key.
type authority struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// certify makes a certificate under a; a zero a signs itself. pathLen below
// zero is a device's.
func (a authority) certify(t *testing.T, name string, from, to time.Time, pathLen int) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if pathLen >= 0 {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
		template.MaxPathLen, template.MaxPathLenZero = pathLen, pathLen == 0
	}
	if a.key == nil {
		a = authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

// chainOf is a key with its certificate and those above it.
func chainOf(leaf authority, above ...authority) certified {
	c := certified{DeviceKey: DeviceKey{Chain: [][]byte{leaf.Raw}}, leaf: leaf.Certificate}
	for _, a := range above {
		c.Chain = append(c.Chain, a.Raw)
	}
	return c
}

func year(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }

func newTestChains(t *testing.T, root authority) *chains {
	t.Helper()
	c, err := newChains([][]byte{root.Raw})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// How many CAs may stand under another counts all along a chain.
func TestChainPathLength(t *testing.T) {
	for pathLen, want := range map[int]error{0: ErrChain, 1: ErrChain, 2: nil} {
		root := authority{}.certify(t, "root", year(2010), year(2050), pathLen)
		upper := root.certify(t, "upper", year(2010), year(2050), 1)
		lower := upper.certify(t, "lower", year(2010), year(2050), 0)
		key := chainOf(lower.certify(t, "device", year(2020), year(2050), -1), lower, upper)
		c := newTestChains(t, root)
		for range 2 { // the second finds what was remembered
			if err := c.check(key, year(2021)); !errors.Is(err, want) {
				t.Errorf("path length %d: %v", pathLen, err)
			}
		}
		if known := len(c.issuers); known != 0 && want != nil || known != 1 && want == nil {
			t.Errorf("path length %d: %d issuers remembered", pathLen, known)
		}
	}
}

// The time of each entry counts for all that is above it, also once it was
// verified for another entry.
func TestChainValidity(t *testing.T) {
	root := authority{}.certify(t, "root", year(2010), year(2040), 2)
	upper := root.certify(t, "upper", year(2015), year(2025), 1)
	lower := upper.certify(t, "lower", year(2010), year(2050), 0)
	key := chainOf(lower.certify(t, "device", year(2010), year(2050), -1), lower, upper)
	c := newTestChains(t, root)
	for _, e := range []struct {
		at   time.Time
		want error
	}{
		{year(2030), ErrChain}, {year(2020), nil}, {year(2021), nil}, {year(2030), ErrChain}, {year(2014), ErrChain},
		{year(2045), ErrChain}, {year(2025), nil}, {year(2025).Add(time.Second), ErrChain}, {year(2015), nil},
	} {
		if err := c.check(key, e.at); !errors.Is(err, e.want) {
			t.Errorf("provisioned %s: %v", e.at, err)
		}
	}
}

// The second certificate of a chain has to be the issuer of the first, whatever
// the others are.
func TestChainOrder(t *testing.T) {
	root := authority{}.certify(t, "root", year(2010), year(2050), 2)
	upper := root.certify(t, "upper", year(2010), year(2050), 1)
	lower := upper.certify(t, "lower", year(2010), year(2050), 0)
	device := lower.certify(t, "device", year(2020), year(2050), -1)
	c := newTestChains(t, root)
	for range 2 {
		if err := c.check(chainOf(device, upper, lower), year(2021)); !errors.Is(err, ErrChain) {
			t.Errorf("out of order: %v", err)
		}
		if err := c.check(chainOf(device, lower, upper, root), year(2021)); err != nil {
			t.Error(err)
		}
	}
}
