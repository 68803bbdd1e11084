package manifest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"joinery/lorawan"
)

// Slots of the public data, and their lengths in bytes; the slot of an element's
// device key, as text.
const (
	slotDevice  = "1"
	slotJoinEUI = 9
	slotDevEUI  = 10
	lenSlot9    = 72
	lenSlot10   = 16
	zoneData    = "data"

	lenUniqueID = 18
	// maxKeys and maxChain bound publicKeySet; real elements have one key with
	// two certificates.
	maxKeys  = 16
	maxChain = 4
)

var (
	errNoSlot          = fmt.Errorf("%w: publicData lacks the slot", ErrSyntax)
	errRekeyProfile    = fmt.Errorf("%w: rekeyProfile: want S or M", ErrSyntax)
	errUniqueIDDiffers = fmt.Errorf("%w: the one beside the signature differs from the signed one", ErrUniqueID)
)

// payload is the signed content, in the order of real files. Members that are
// not listed pass unread.
type payload struct {
	Version               int    `json:"version"`
	Model                 string `json:"model,omitempty"`
	PartNumber            string `json:"partNumber,omitempty"`
	Manufacturer          Party  `json:"manufacturer,omitzero"`
	Provisioner           Party  `json:"provisioner,omitzero"`
	Distributor           *Party `json:"distributor,omitempty"`
	Distributer           *Party `json:"distributer,omitempty"` // the spelling of the first edition's text
	GroupID               string `json:"groupId,omitempty"`
	ProvisioningTimestamp string `json:"provisioningTimestamp"`
	UniqueID              string `json:"uniqueId"`
	// RekeyProfile is a member of ours: makers of chips do not have it.
	RekeyProfile string         `json:"rekeyProfile,omitempty"`
	PublicKeySet *jsonKeySet    `json:"publicKeySet,omitempty"`
	ModelInfo    *jsonModelInfo `json:"modelInfo,omitempty"`
}

type jsonKeySet struct {
	Keys []jsonWebKey `json:"keys"`
}

// jsonWebKey is a public EC key (RFC 7517, RFC 7518 §6.2).
type jsonWebKey struct {
	KID string   `json:"kid"`
	KTY string   `json:"kty"`
	CRV string   `json:"crv"`
	X   string   `json:"x"`
	Y   string   `json:"y"`
	X5C []string `json:"x5c,omitempty"`
}

type jsonModelInfo struct {
	DeviceRevision string           `json:"deviceRevision,omitempty"`
	PublicData     []jsonPublicData `json:"publicData,omitempty"`
}

type jsonPublicData struct {
	Zone   string `json:"zone"`
	Slot   int    `json:"slot"`
	Offset int    `json:"offset"`
	Data   string `json:"data"`
}

// parsePayload reads the signed content of an entry, of a version that can be
// imported.
func parsePayload(encoded string) (p payload, err error) {
	b, err := decodeBase64URL(encoded)
	if err != nil {
		return p, fmt.Errorf("payload: %w", err)
	}
	if err := unmarshal(b, &p); err != nil {
		return p, payloadError(b)
	}
	return p, checkVersion(p.Version)
}

// payloadError tells a payload that is broken from one of another version,
// whose members may have other types.
func payloadError(b []byte) error {
	var p struct {
		Version int `json:"version"`
	}
	if err := unmarshal(b, &p); err != nil {
		return fmt.Errorf("%w: payload is not an object with a version, or repeats a member", ErrSyntax)
	}
	if err := checkVersion(p.Version); err != nil {
		return err
	}
	return fmt.Errorf("%w: a member of the payload has the wrong type", ErrSyntax)
}

func checkVersion(v int) error {
	switch v {
	case 1, 3:
		return nil
	case 2:
		return ErrShortForm
	}
	return ErrVersion
}

// facts gives what an entry says whatever its family: all but the identifiers
// and keys.
func (p payload) facts() (Element, error) {
	e := Element{
		Version: p.Version, UniqueID: p.UniqueID,
		Model: p.Model, PartNumber: p.PartNumber, GroupID: p.GroupID,
		Manufacturer: p.Manufacturer, Provisioner: p.Provisioner,
	}
	if err := checkUniqueID(p.UniqueID); err != nil {
		return Element{}, err
	}
	at, err := time.Parse(time.RFC3339, p.ProvisioningTimestamp)
	if err != nil || at.IsZero() { // certificates would be judged by the present
		return e, ErrTimestamp
	}
	e.ProvisionedAt = at.UTC()
	switch {
	case p.Distributor != nil && p.Distributer != nil:
		return e, fmt.Errorf("%w: distributor and distributer both given", ErrSyntax)
	case p.Distributor != nil:
		e.Distributor = *p.Distributor
	case p.Distributer != nil:
		e.Distributor = *p.Distributer
	}
	if p.ModelInfo != nil {
		e.DeviceRevision = p.ModelInfo.DeviceRevision
	}
	if !isRekeyProfile(p.RekeyProfile) {
		return e, errRekeyProfile
	}
	e.Rekey = p.RekeyProfile
	return e, nil
}

func isRekeyProfile(text string) bool { return text == "" || text == "S" || text == "M" }

// joinEUI takes the first 8 bytes of slot 9, big-endian. otherwise stands for a
// slot that the entry does not have; zero: it must have it.
func (p payload) joinEUI(otherwise lorawan.EUI64) (lorawan.EUI64, error) {
	data, err := p.publicData(slotJoinEUI, lenSlot9)
	switch {
	case errors.Is(err, errNoSlot) && !otherwise.IsZero():
		return otherwise, nil
	case err != nil:
		return lorawan.EUI64{}, fmt.Errorf("%w: %w", ErrJoinEUI, err)
	}
	return lorawan.EUI64(data[:8]), nil
}

// devEUI reads the 16 digits of slot 10.
func (p payload) devEUI() (lorawan.EUI64, error) {
	data, err := p.publicData(slotDevEUI, lenSlot10)
	if err != nil {
		return lorawan.EUI64{}, fmt.Errorf("%w: slot 10: %w", ErrDevEUI, err)
	}
	e, err := lorawan.ParseEUI64(string(data))
	if err != nil || e.String() != string(data) {
		return lorawan.EUI64{}, fmt.Errorf("%w: slot 10: want 16 upper-case hexadecimal digits", ErrDevEUI)
	}
	return e, nil
}

// publicData finds the one record of a slot of the data zone.
func (p payload) publicData(slot, length int) ([]byte, error) {
	var found *jsonPublicData
	if p.ModelInfo != nil {
		for i, d := range p.ModelInfo.PublicData {
			if d.Zone != zoneData || d.Slot != slot {
				continue
			}
			if found != nil {
				return nil, fmt.Errorf("%w: the slot is given twice", ErrSyntax)
			}
			found = &p.ModelInfo.PublicData[i]
		}
	}
	if found == nil {
		return nil, errNoSlot
	}
	data, err := decodeBase64URL(found.Data)
	if err != nil {
		return nil, err
	}
	if found.Offset != 0 || len(data) != length {
		return nil, fmt.Errorf("%w: want offset 0 and %d bytes", ErrSyntax, length)
	}
	return data, nil
}

// certified is a public key with its own certificate, nil where it has none.
type certified struct {
	DeviceKey
	leaf *x509.Certificate
}

func (p payload) keys() ([]certified, error) {
	if p.PublicKeySet == nil {
		return nil, nil
	}
	if len(p.PublicKeySet.Keys) > maxKeys {
		return nil, fmt.Errorf("%w: more than %d keys", ErrPublicKey, maxKeys)
	}
	keys := make([]certified, 0, len(p.PublicKeySet.Keys))
	for _, k := range p.PublicKeySet.Keys {
		key, err := k.deviceKey()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(keys, func(other certified) bool { return other.Slot == key.Slot }) {
			return nil, fmt.Errorf("%w: two keys in one slot", ErrPublicKey)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// deviceKeyOf finds the key by which an element is known: that of slot 1.
func deviceKeyOf(keys []certified) (certified, bool) {
	i := slices.IndexFunc(keys, func(k certified) bool { return k.Slot == slotDevice })
	if i < 0 {
		return certified{}, false
	}
	return keys[i], true
}

func (k jsonWebKey) deviceKey() (certified, error) {
	if k.KTY != "EC" || k.CRV != "P-256" {
		return certified{}, fmt.Errorf("%w: want kty EC and crv P-256", ErrPublicKey)
	}
	x, errX := decodeBase64URL(k.X)
	y, errY := decodeBase64URL(k.Y)
	if errX != nil || errY != nil || len(x) != 32 || len(y) != 32 {
		return certified{}, fmt.Errorf("%w: x and y must be 32 bytes each, in base64url", ErrPublicKey)
	}
	// Uncompressed point: 04 ‖ x ‖ y (SEC 1 §2.3.3).
	point := append(append([]byte{4}, x...), y...)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return certified{}, fmt.Errorf("%w: the point is not on the curve", ErrPublicKey)
	}
	chain, err := k.chain()
	if err != nil {
		return certified{}, err
	}
	key := certified{DeviceKey: DeviceKey{Slot: k.KID, Public: public, Chain: chain}}
	if len(chain) > 0 {
		key.leaf, err = x509.ParseCertificate(chain[0])
		if err != nil || !public.Equal(key.leaf.PublicKey) {
			return certified{}, fmt.Errorf("%w: the first certificate of x5c is not for this key", ErrPublicKey)
		}
	}
	return key, nil
}

// chain decodes x5c, which is standard base64, not base64url (RFC 7517 §4.7).
func (k jsonWebKey) chain() ([][]byte, error) {
	if len(k.X5C) > maxChain {
		return nil, fmt.Errorf("%w: more than %d certificates in x5c", ErrPublicKey, maxChain)
	}
	var chain [][]byte
	for _, text := range k.X5C {
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%w: x5c is not base64", ErrPublicKey)
		}
		chain = append(chain, der)
	}
	return chain, nil
}

func checkUniqueID(s string) error {
	if _, err := hex.DecodeString(s); err != nil || len(s) != lenUniqueID || s != strings.ToLower(s) {
		return fmt.Errorf("%w: want %d lower-case hexadecimal digits", ErrUniqueID, lenUniqueID)
	}
	return nil
}
