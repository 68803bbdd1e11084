package soft

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"testing"
)

// SecretsOf gives the secrets of a key file or custody file, by name: symmetric keys,
// and the numbers that a private key is made of.
func SecretsOf(t testing.TB, file string, u Unlock) (keys, numbers map[string][]byte) {
	t.Helper()
	c, err := readContents(context.Background(), file, u, formatServer, formatRotated, formatCustody)
	if err != nil {
		t.Fatal(err)
	}
	keys, numbers = map[string][]byte{}, map[string][]byte{}
	for name, key := range map[string][]byte{"join KEK": c.JoinKEK, "storage KEK": c.StorageKEK, "row-MAC key": c.RowMAC, "owner-token key": c.OwnerTokens} {
		if len(key) > 0 {
			keys[name] = key
		}
	}
	for _, m := range c.Masters {
		keys["master key "+m.Name] = m.Key
	}
	for name, der := range map[string][]byte{"custody key": c.CustodyPrivate, "transport key": c.Transport, "key of exports": c.Export} {
		if len(der) == 0 {
			continue
		}
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatal(err)
		}
		switch k := parsed.(type) {
		case *rsa.PrivateKey:
			numbers[name+", exponent"] = k.D.Bytes()
			for i, p := range k.Primes {
				numbers[fmt.Sprintf("%s, prime %d", name, i+1)] = p.Bytes()
			}
		case *ecdsa.PrivateKey:
			scalar, err := k.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			numbers[name+", scalar"] = scalar
		}
	}
	return keys, numbers
}
