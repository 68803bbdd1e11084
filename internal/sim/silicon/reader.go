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
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// Names of the formats and algorithms in a silicon file.
const (
	formatSilicon = "joinery-silicon/2"
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
// root keys have 24 bytes, the private device key 40. Reader.Element checks MAC
// and opens them.
type Row struct {
	UniqueID  string        `json:"uniqueId"`
	JoinEUI   lorawan.EUI64 `json:"joinEUI"`
	DevEUI    lorawan.EUI64 `json:"devEUI"`
	NwkKey    []byte        `json:"nwkKey"`
	AppKey    []byte        `json:"appKey"`
	DeviceKey []byte        `json:"deviceKey"`
	RekeyKey  []byte        `json:"rekeyKey,omitempty"`
	MAC       []byte        `json:"mac"`
}

// Reader reads a silicon file: lines of JSON, first the format and the sealed
// file key, then one Row a line.
type Reader struct {
	lines *bufio.Scanner
	kek   cipher.Block
	mac   *aesmode.CMAC
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
	if h.Format != formatSilicon || h.Seal.Format != formatSeal || h.Seal.Alg != algOAEP256 || h.Seal.Wrap != wrapA256KW {
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

// Element opens a row's keys and puts them into a new element. ErrRow where the
// row is not what the factory sealed.
func (s *Reader) Element(row Row) (*element.Element, error) {
	if mac := rowMAC(s.mac, row); subtle.ConstantTimeCompare(mac[:], row.MAC) != 1 {
		return nil, fmt.Errorf("silicon: element %v: %w", row.DevEUI, ErrRow)
	}
	nwkKey, err := s.open(row.NwkKey)
	if err != nil {
		return nil, fmt.Errorf("silicon: element %v: nwkKey: %w", row.DevEUI, err)
	}
	defer clear(nwkKey)
	appKey, err := s.open(row.AppKey)
	if err != nil {
		return nil, fmt.Errorf("silicon: element %v: appKey: %w", row.DevEUI, err)
	}
	defer clear(appKey)
	e, err := element.Provision(row.JoinEUI, row.DevEUI, nwkKey, appKey)
	if err != nil {
		return nil, err
	}
	scalar, err := s.open(row.DeviceKey)
	if err != nil {
		return nil, fmt.Errorf("silicon: element %v: deviceKey: %w", row.DevEUI, err)
	}
	if err := s.setRekeyKey(e, row); err != nil {
		return nil, err
	}
	if scalar == nil {
		return e, nil
	}
	defer clear(scalar)
	return e, e.SetDeviceKey(scalar)
}

// setRekeyKey gives an element what it rekeys with: of 16 bytes in profile S, of 32
// in profile M.
func (s *Reader) setRekeyKey(e *element.Element, row Row) error {
	key, err := s.open(row.RekeyKey)
	if err != nil {
		return fmt.Errorf("silicon: element %v: rekeyKey: %w", row.DevEUI, err)
	}
	defer clear(key)
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
