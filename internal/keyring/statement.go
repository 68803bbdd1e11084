package keyring

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
)

// statementDomain stands in front of what the key of statements is a MAC of, so
// that it is never an owner token's; see ownerTokenDomain.
const statementDomain = "joinery statement key 1\x00"

// SignStatement signs what this Join Server says to others: tickets, hand-overs,
// receipts. The signature is ECDSA with P-256 and SHA-256, r ‖ s, 32 bytes each,
// big-endian; public is the key that verifies it (SubjectPublicKeyInfo, DER), and
// the same as long as the keyring has its keys. The private key is nowhere at
// rest: it is HMAC-SHA-256 under the owner-token key over domain ‖ counter 1, the
// first that is a scalar of the curve.
func (k *Keyring) SignStatement(ctx context.Context, content []byte) (signature, public []byte, err error) {
	err = k.run(ctx, func() error {
		key, err := k.statementKey(ctx)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return err
		}
		signature = make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		public, err = x509.MarshalPKIXPublicKey(&key.PublicKey)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return signature, public, nil
}

func (k *Keyring) statementKey(ctx context.Context) (key *ecdsa.PrivateKey, err error) {
	for counter := range byte(4) { // the first is none with a chance of 2^-32
		mac, macErr := k.token.MAC(ctx, OwnerTokens, append([]byte(statementDomain), counter))
		if macErr != nil {
			return nil, macErr
		}
		key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), mac[:])
		clear(mac[:])
		if err == nil {
			return key, nil
		}
	}
	return nil, err
}
