package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"slices"

	"joinery/internal/cmac"
	"joinery/internal/secret"
	"joinery/lorawan"
)

// MACLen is the length of the MAC of a sealed item, in bytes.
const MACLen = cmac.BlockLen

// ErrMAC says that a sealed item is not what was sealed: its purpose, what it
// belongs to or a wrapped key is another one. It says nothing about keys.
var ErrMAC = errors.New("seal: the item is not as it was sealed")

// Purposes of items. No two kinds of item have one in common, so that what was
// sealed as one kind never opens as another.
const (
	purposeRoot   = Format + " root"
	purposeMoved  = Format + " moved root"
	purposeKEK    = Format + " kek"
	purposeMaster = Format + " master"
	// Of version 3 of silicon files; "element" and "rekeying element" were those of
	// version 2.
	purposeElement     = Format + " silicon"
	purposeBootElement = Format + " silicon with secure boot"
)

// Item is what one MAC covers: wrapped keys, what they are for and to what they
// belong. Its encoding is the MAC's input: each field as its length, 4 bytes
// big-endian, and its bytes; first the purpose, last the wrapped keys, of which
// an absent one has no bytes. So two different items never encode alike.
type Item struct {
	encoded []byte
	keys    [][]byte
}

func newItem(purpose string, context [][]byte, keys ...[]byte) Item {
	i := Item{keys: keys}
	for _, field := range slices.Concat([][]byte{[]byte(purpose)}, context, keys) {
		i.encoded = binary.BigEndian.AppendUint32(i.encoded, uint32(len(field)))
		i.encoded = append(i.encoded, field...)
	}
	return i
}

// Item gives what the MAC of a row covers: all of it but its line, which is for
// people. The fields are JoinEUI 8, DevEUI 8, MACVersion as text ("1.0.3"),
// Root10, UsedDevNonces 2 each and JoinNonceFloor 4, numbers big-endian; then
// NwkKey and AppKey. A row that has NextRJCount1 or Former is an item of another
// purpose, with more fields before the keys: NextRJCount1 4, and for each former
// JoinEUI that 8, its UsedDevNonces 2 each and its NextRJCount1 4.
func (r SealedRow) Item() Item {
	context := [][]byte{
		r.JoinEUI[:], r.DevEUI[:], []byte(r.MACVersion.String()), []byte(r.Root10), devNonces(r.UsedDevNonces), number(uint32(r.JoinNonceFloor)),
	}
	if r.NextRJCount1 == 0 && len(r.Former) == 0 {
		return newItem(purposeRoot, context, r.NwkKey, r.AppKey)
	}
	context = append(context, number(r.NextRJCount1))
	for i := range r.Former {
		f := &r.Former[i]
		context = append(context, f.JoinEUI[:], devNonces(f.UsedDevNonces), number(f.NextRJCount1))
	}
	return newItem(purposeMoved, context, r.NwkKey, r.AppKey)
}

func devNonces(list []lorawan.DevNonce) (b []byte) {
	for _, n := range list {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	return b
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// MACInput gives what the MAC of i is made of, for a token that makes it itself.
func (i Item) MACInput() []byte { return i.encoded }

// MACKeyBlocks gives the two blocks whose encryption under the file key is the key
// of the MACs, for a token that derives it itself.
func MACKeyBlocks() []byte { return []byte(macKeyBlocks) }

// SealedKEK is a KEK of 16, 24 or 32 bytes on its way in. Its role ("ns" or
// "as") and label are bound to it.
type SealedKEK struct {
	Role    string
	Label   string
	Wrapped []byte
	MAC     []byte
}

// Item gives what the MAC of a KEK covers: role, label and the wrapped key.
func (k SealedKEK) Item() Item {
	return newItem(purposeKEK, [][]byte{[]byte(k.Role), []byte(k.Label)}, k.Wrapped)
}

// MasterItem gives what the MAC of a shared master key covers.
func MasterItem(name, profile string, wrapped []byte) Item {
	return newItem(purposeMaster, [][]byte{[]byte(name), []byte(profile)}, wrapped)
}

// ElementItem gives what the MAC of an element covers, on its way into silicon: what it
// is called, its device key's certificates (DER, one behind the other), and sealed, its
// root keys, the private half of the device key, and the rekeying key or the key of
// slot 13, where it has one.
func ElementItem(uniqueID string, joinEUI, devEUI lorawan.EUI64, chain [][]byte, nwkKey, appKey, deviceKey, rekeyKey []byte) Item {
	return newItem(purposeElement, [][]byte{[]byte(uniqueID), joinEUI[:], devEUI[:], slices.Concat(chain...)}, nwkKey, appKey, deviceKey, rekeyKey)
}

// BootElementItem is ElementItem of an element that verifies firmware, with more fields:
// the maker's public key under which it does (X ‖ Y, 64 bytes) behind the certificates,
// and behind the keys, sealed, the private key that it uses after a verified boot alone,
// and the key that protects its bus.
func BootElementItem(uniqueID string, joinEUI, devEUI lorawan.EUI64, chain [][]byte, releaseKey, nwkKey, appKey, deviceKey, rekeyKey, bootKey, ioKey []byte) Item {
	return newItem(purposeBootElement, [][]byte{[]byte(uniqueID), joinEUI[:], devEUI[:], slices.Concat(chain...), releaseKey},
		nwkKey, appKey, deviceKey, rekeyKey, bootKey, ioKey)
}

// macKeyBlocks are the two blocks whose encryption under the file key is the key
// of the MACs (AES-256): in a hardware token one derivation by
// CKM_AES_ECB_ENCRYPT_DATA. Key wrap and MAC so never share a key.
const macKeyBlocks = "joinery-seal/1 k" + "ey of item MACs."

// fileKeys are the two ciphers of a file: of its key, and of the key for MACs
// that derives from it.
type fileKeys struct{ wrap, mac cipher.Block }

func newFileKeys(fileKey []byte) (k fileKeys, err error) {
	if k.wrap, err = aes.NewCipher(fileKey); err != nil {
		return fileKeys{}, err
	}
	macKey := []byte(macKeyBlocks)
	defer clear(macKey)
	for block := range slices.Chunk(macKey, aes.BlockSize) {
		k.wrap.Encrypt(block, block)
	}
	if k.mac, err = aes.NewCipher(macKey); err != nil {
		k.wipe()
		return fileKeys{}, err
	}
	return k, nil
}

// sum makes the MAC of an item: AES-CMAC (RFC 4493) of its encoding.
func (k *fileKeys) sum(i Item) ([]byte, error) {
	if k.mac == nil {
		return nil, secret.ErrWiped
	}
	mac, err := new(cmac.CMAC).Sum(cmac.Cipher{Block: k.mac}, i.encoded)
	return mac[:], err
}

// check compares the MAC of an item in constant time: ErrMAC.
func (k *fileKeys) check(i Item, mac []byte) error {
	want, err := k.sum(i)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want, mac) != 1 {
		return ErrMAC
	}
	return nil
}

func (k *fileKeys) wipe() {
	for _, b := range []*cipher.Block{&k.wrap, &k.mac} {
		if *b != nil {
			secret.WipeBlock(*b)
			*b = nil
		}
	}
}
