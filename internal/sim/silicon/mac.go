package silicon

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"slices"

	"joinery/internal/sim/aesmode"
)

// The two blocks whose encryption under the file key is the AES-256 key of the
// rows' MACs.
const (
	macKeyFirst  = "joinery-seal/1 k"
	macKeySecond = "ey of item MACs."
)

// itemMAC gives the CMAC for the rows of a file.
func itemMAC(fileKey cipher.Block) (*aesmode.CMAC, error) {
	var key [2 * aes.BlockSize]byte
	defer clear(key[:])
	fileKey.Encrypt(key[:aes.BlockSize], []byte(macKeyFirst))
	fileKey.Encrypt(key[aes.BlockSize:], []byte(macKeySecond))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return aesmode.NewCMAC(block), nil
}

// rowMAC makes the MAC of a row: over the purpose, the row's names, its certificates one
// behind the other and its wrapped keys, before each its length in four bytes,
// big-endian. A row of an element that verifies firmware has another purpose, the maker's
// public key behind the certificates, and two more keys. Version 2 had no certificates,
// and another purpose for rows without a rekeying key.
func rowMAC(c *aesmode.CMAC, row Row, old bool) (mac [aes.BlockSize]byte) {
	purpose := " silicon"
	fields := [][]byte{[]byte(row.UniqueID), row.JoinEUI[:], row.DevEUI[:], slices.Concat(row.Certificates...), row.NwkKey, row.AppKey, row.DeviceKey, row.RekeyKey}
	if old {
		purpose, fields = " element", [][]byte{[]byte(row.UniqueID), row.JoinEUI[:], row.DevEUI[:], row.NwkKey, row.AppKey, row.DeviceKey}
		if len(row.RekeyKey) > 0 {
			purpose, fields = " rekeying element", append(fields, row.RekeyKey)
		}
	}
	if b := row.SecureBoot; b != nil && !old {
		purpose = " silicon with secure boot"
		fields = slices.Insert(append(fields, b.BootKey, b.IOKey), 4, b.ReleaseKey)
	}
	var message []byte
	for _, field := range append([][]byte{[]byte(formatSeal + purpose)}, fields...) {
		message = binary.BigEndian.AppendUint32(message, uint32(len(field)))
		message = append(message, field...)
	}
	c.Sum(&mac, nil, message)
	return mac
}
