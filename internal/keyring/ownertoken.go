package keyring

import (
	"context"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"strings"

	"joinery"
)

// ownerTokenLen is the length of an owner token, in characters of five bits:
// 65 bits. The characters are upper-case letters and digits, as the O element of
// a TR005 label and existing claim clients take them.
const ownerTokenLen = 13

// ownerTokenDomain stands in front of what an owner token is a MAC of, so that
// the key may later serve other purposes.
const ownerTokenDomain = "joinery owner token 1\x00"

// OwnerToken gives the token by which whoever holds device d may claim it: 13
// characters of A to Z and 2 to 7, the beginning of HMAC-SHA-256 under the
// owner-token key over domain ‖ d 8 ‖ generation 4 (big-endian).
func (k *Keyring) OwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32) (token string, err error) {
	err = k.run(ctx, func() error {
		token, err = k.ownerToken(ctx, d, generation)
		return err
	})
	return token, err
}

// CheckOwnerToken tells, in constant time, whether presented is that token; it
// accepts lower-case letters.
func (k *Keyring) CheckOwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32, presented string) (ok bool, err error) {
	err = k.run(ctx, func() error {
		token, err := k.ownerToken(ctx, d, generation)
		if err != nil {
			return err
		}
		ok = subtle.ConstantTimeCompare([]byte(token), []byte(strings.ToUpper(presented))) == 1
		return nil
	})
	return ok, err
}

func (k *Keyring) ownerToken(ctx context.Context, d joinery.DeviceID, generation uint32) (string, error) {
	msg := make([]byte, 0, len(ownerTokenDomain)+8+4)
	msg = append(msg, ownerTokenDomain...)
	msg = binary.BigEndian.AppendUint64(msg, uint64(d))
	msg = binary.BigEndian.AppendUint32(msg, generation)
	mac, err := k.token.MAC(ctx, OwnerTokens, msg)
	if err != nil {
		return "", err
	}
	return base32.StdEncoding.EncodeToString(mac[:])[:ownerTokenLen], nil
}
