package silicon

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"

	"joinery/internal/sim/aesmode"
	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/tnglora"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// Names of the formats and algorithms in a silicon file.
const (
	formatSilicon = "joinery-silicon/3"
	formatBefore  = "joinery-silicon/2" // without certificates
	formatSeal    = "joinery-seal/1"
	algOAEP256    = "RSA-OAEP-256" // RSAES-OAEP with SHA-256 in both places, no label
	wrapA256KW    = "A256KW"       // RFC 3394 under an AES-256 key
)

// maxLine bounds one line of a silicon file, in bytes.
const maxLine = 16 << 10

// ErrRecipient says that a file was sealed to another recipient key.
var ErrRecipient = errors.New("sealed to another recipient key")

// ErrRow says that a row is not as the factory sealed it: a name or a key of it is
// another one, or its MAC is missing.
var ErrRow = errors.New("the row is not as it was sealed: have the factory make the file again")

// header is the first line.
type header struct {
	Format string     `json:"format"`
	Seal   sealHeader `json:"seal"`
}

// sealHeader carries the file's AES-256 key, encrypted to the recipient.
type sealHeader struct {
	Format string `json:"format"`
	KID    string `json:"kid"`
	Alg    string `json:"alg"`
	Wrap   string `json:"wrap"`
	Key    []byte `json:"key"`
}

// Row is one element as it stands in the file. Its keys are AES-KW ciphertext:
// root keys have 24 bytes, the private device key 40. Reader checks MAC and
// opens them.
type Row struct {
	UniqueID  string        `json:"uniqueId"`
	JoinEUI   lorawan.EUI64 `json:"joinEUI"`
	DevEUI    lorawan.EUI64 `json:"devEUI"`
	NwkKey    []byte        `json:"nwkKey"`
	AppKey    []byte        `json:"appKey"`
	DeviceKey []byte        `json:"deviceKey"`
	// Certificates are the device key's, DER, its own first.
	Certificates [][]byte `json:"certificates,omitempty"`
	RekeyKey     []byte   `json:"rekeyKey,omitempty"`
	// SecureBoot is nil where the element verifies no firmware.
	SecureBoot *Boot  `json:"secureBoot,omitempty"`
	MAC        []byte `json:"mac"`
}

// Boot is what an element has that verifies firmware: the maker's public key, X ‖ Y, 64
// bytes, and sealed, 40 bytes each, the private key of slot 11 and the key of slot 14.
type Boot struct {
	ReleaseKey []byte `json:"releaseKey"`
	BootKey    []byte `json:"bootKey"`
	IOKey      []byte `json:"ioKey"`
}

// Reader reads a silicon file: lines of JSON, first the format and the sealed
// file key, then one Row a line.
type Reader struct {
	lines *bufio.Scanner
	kek   cipher.Block
	mac   *aesmode.CMAC
	old   bool // version 2
	line  int
}

// NewReader reads the first line and opens the file key with to. ErrRecipient
// where the file is not for it.
func NewReader(r io.Reader, to *Recipient) (*Reader, error) {
	s := &Reader{lines: bufio.NewScanner(r)}
	s.lines.Buffer(make([]byte, 0, 1024), maxLine)
	if !s.scan() {
		return nil, s.end(errors.New("silicon: empty file"))
	}
	var h header
	if err := json.Unmarshal(s.lines.Bytes(), &h, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("silicon: line 1 is not the head of a %s file", formatSilicon)
	}
	s.old = h.Format == formatBefore
	if h.Format != formatSilicon && !s.old || h.Seal.Format != formatSeal || h.Seal.Alg != algOAEP256 || h.Seal.Wrap != wrapA256KW {
		return nil, fmt.Errorf("silicon: line 1: want formats %s and %s with %s and %s", formatSilicon, formatSeal, algOAEP256, wrapA256KW)
	}
	if h.Seal.KID != to.kid {
		return nil, fmt.Errorf("silicon: %w: give the key %s, or have the factory seal to %s", ErrRecipient, h.Seal.KID, to.kid)
	}
	fileKey, err := rsa.DecryptOAEP(sha256.New(), nil, to.key, h.Seal.Key, nil)
	if err != nil || len(fileKey) != 32 {
		return nil, fmt.Errorf("silicon: line 1: the file key does not open: damaged")
	}
	defer clear(fileKey)
	if s.kek, err = aes.NewCipher(fileKey); err != nil {
		return nil, fmt.Errorf("silicon: %w", err)
	}
	if s.mac, err = itemMAC(s.kek); err != nil {
		return nil, fmt.Errorf("silicon: %w", err)
	}
	return s, nil
}

// Next gives the next row, io.EOF after the last.
func (s *Reader) Next() (Row, error) {
	if !s.scan() {
		return Row{}, s.end(io.EOF)
	}
	var row Row
	if err := json.Unmarshal(s.lines.Bytes(), &row, json.RejectUnknownMembers(true)); err != nil {
		return Row{}, fmt.Errorf("silicon: line %d: not an element: want uniqueId, joinEUI, devEUI, nwkKey, appKey, deviceKey, mac", s.line)
	}
	return row, nil
}

// opened is a row whose keys are open. Who opens one wipes it.
type opened struct{ nwk, app, device, rekey, boot, io []byte }

func (o *opened) wipe() {
	for _, key := range [][]byte{o.nwk, o.app, o.device, o.rekey, o.boot, o.io} {
		clear(key)
	}
}

// unseal opens a row's keys. ErrRow where the row is not what the factory sealed.
func (s *Reader) unseal(row Row) (o *opened, err error) {
	if s.old && row.SecureBoot != nil { // its MAC would not cover that
		return nil, fmt.Errorf("silicon: element %v: %w", row.DevEUI, ErrRow)
	}
	if mac := rowMAC(s.mac, row, s.old); subtle.ConstantTimeCompare(mac[:], row.MAC) != 1 {
		return nil, fmt.Errorf("silicon: element %v: %w", row.DevEUI, ErrRow)
	}
	o = &opened{}
	var boot Boot
	if row.SecureBoot != nil {
		boot = *row.SecureBoot
		if len(boot.ReleaseKey) != 64 || len(boot.BootKey) != 40 || len(boot.IOKey) != 40 {
			return nil, fmt.Errorf("silicon: element %v: secureBoot: want a public key of 64 bytes and two keys of 40, wrapped", row.DevEUI)
		}
	}
	for _, k := range []struct {
		name   string
		sealed []byte
		into   *[]byte
	}{{"nwkKey", row.NwkKey, &o.nwk}, {"appKey", row.AppKey, &o.app}, {"deviceKey", row.DeviceKey, &o.device}, {"rekeyKey", row.RekeyKey, &o.rekey}, {"bootKey", boot.BootKey, &o.boot}, {"ioKey", boot.IOKey, &o.io}} {
		if *k.into, err = s.open(k.sealed); err != nil {
			o.wipe()
			return nil, fmt.Errorf("silicon: element %v: %s: %w", row.DevEUI, k.name, err)
		}
	}
	return o, nil
}

// Element opens a row's keys and gives the element of a device: an emulated chip, which
// its verbs reach by commands alone, or for elements of rekeying profile S, which no
// such chip can do, one of software.
func (s *Reader) Element(row Row) (*element.Element, error) {
	if len(row.RekeyKey) == element.KeySize+aesmode.WrapOverhead {
		return s.Direct(row)
	}
	m, err := s.Image(row)
	if err != nil {
		return nil, err
	}
	return element.OnChip(chip.New(m, chip.Options{}), len(row.RekeyKey) > 0)
}

// Image opens a row's keys and gives the chip's image: what a factory writes into
// silicon.
func (s *Reader) Image(row Row) (*chip.Image, error) {
	keys, err := s.unseal(row)
	if err != nil {
		return nil, err
	}
	defer keys.wipe()
	return imageOf(row, keys)
}

// ErrNoSecureBoot says that an element verifies no firmware.
var ErrNoSecureBoot = errors.New("the element verifies no firmware: have the factory make it with --release-key")

// BootImage is Image of an element that verifies firmware, with the key of its bus,
// which the microcontroller gets. ErrNoSecureBoot.
func (s *Reader) BootImage(row Row) (m *chip.Image, ioKey [32]byte, err error) {
	if row.SecureBoot == nil {
		return nil, ioKey, fmt.Errorf("silicon: element %v: %w", row.DevEUI, ErrNoSecureBoot)
	}
	keys, err := s.unseal(row)
	if err != nil {
		return nil, ioKey, err
	}
	defer keys.wipe()
	copy(ioKey[:], keys.io)
	m, err = imageOf(row, keys)
	return m, ioKey, err
}

func imageOf(row Row, keys *opened) (*chip.Image, error) {
	c := tnglora.Content{JoinEUI: row.JoinEUI, DevEUI: row.DevEUI, NwkKey: keys.nwk, AppKey: keys.app, DeviceKey: keys.device, Chain: row.Certificates}
	if len(keys.rekey) == element.SlotKeySize {
		c.RekeyKey = keys.rekey
	}
	serial, err := hex.DecodeString(row.UniqueID)
	switch {
	case err == nil && len(serial) == len(c.Serial):
		copy(c.Serial[:], serial)
	case c.RekeyKey != nil:
		return nil, fmt.Errorf("silicon: element %v: uniqueId is no serial number, which an element with a slot key derives with", row.DevEUI)
	default:
		copy(c.Serial[:], tnglora.SerialOf(row.DevEUI))
	}
	m, err := tnglora.Image(c)
	if err == nil && row.SecureBoot != nil {
		err = m.SecureBoot([64]byte(row.SecureBoot.ReleaseKey), [32]byte(keys.boot), [32]byte(keys.io))
	}
	if err != nil {
		return nil, fmt.Errorf("silicon: %w", err)
	}
	return m, nil
}

// Direct opens a row's keys and puts them into an element of software: its verbs give
// the same bytes as a chip's, without commands, for load.
func (s *Reader) Direct(row Row) (*element.Element, error) {
	keys, err := s.unseal(row)
	if err != nil {
		return nil, err
	}
	defer keys.wipe()
	e, err := element.Provision(row.JoinEUI, row.DevEUI, keys.nwk, keys.app)
	if err != nil {
		return nil, err
	}
	if err := setRekeyKey(e, row, keys.rekey); err != nil || keys.device == nil {
		return e, err
	}
	return e, e.SetDeviceKey(keys.device)
}

// setRekeyKey gives an element what it rekeys with: of 16 bytes in profile S, of 32
// in profile M.
func setRekeyKey(e *element.Element, row Row, key []byte) error {
	switch len(key) {
	case 0:
		return nil
	case element.SlotKeySize:
		serial, err := hex.DecodeString(row.UniqueID)
		if err != nil {
			return fmt.Errorf("silicon: element %v: uniqueId is no serial number, which an element with a slot key derives with", row.DevEUI)
		}
		return e.SetSlotKey(key, serial)
	}
	return e.SetRekeyKey(key)
}

// open unwraps a key; an absent one stays nil.
func (s *Reader) open(wrapped []byte) ([]byte, error) {
	if len(wrapped) == 0 {
		return nil, nil
	}
	return aesmode.Unwrap(nil, s.kek, wrapped)
}

func (s *Reader) scan() bool {
	s.line++
	return s.lines.Scan()
}

// end gives why there is no further line.
func (s *Reader) end(plain error) error {
	if err := s.lines.Err(); err != nil {
		return fmt.Errorf("silicon: line %d: %w", s.line, err)
	}
	return plain
}
