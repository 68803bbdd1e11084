package manifest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
)

// Sign makes the ES256 signature, r ‖ s, 64 bytes (RFC 7518 §3.4), over
// SHA-256 of the signing input.
type Sign func(signingInput []byte) ([]byte, error)

// Writer writes a manifest entry by entry.
type Writer struct {
	out       *bufio.Writer
	protected string
	sign      Sign
	count     uint64
	err       error // sticky
}

// NewWriter writes to w entries signed by id through sign.
func NewWriter(w io.Writer, id SignerID, sign Sign) (*Writer, error) {
	protected, err := json.Marshal(protectedHeader{Typ: "JWT", Alg: "ES256", KID: id.KID, X5TS256: id.X5TS256})
	if err != nil {
		return nil, fmt.Errorf("protected header: %w", err)
	}
	return &Writer{out: bufio.NewWriter(w), protected: encodeBase64URL(protected), sign: sign}, nil
}

// Write signs and writes one element. After an error the manifest is not whole
// and every later call gives the same error.
func (w *Writer) Write(e Element) error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.write(e); w.err != nil {
		w.err = fmt.Errorf("entry %d: %w", w.count, w.err)
		return w.err
	}
	w.count++
	return nil
}

func (w *Writer) write(e Element) error {
	signed, err := w.entry(e)
	if err != nil {
		return err
	}
	lead := ",\n"
	if w.count == 0 {
		lead = "[\n"
	}
	if _, err := w.out.WriteString(lead); err != nil {
		return err
	}
	_, err = w.out.Write(signed)
	return err
}

func (w *Writer) entry(e Element) ([]byte, error) {
	content, err := payloadOf(e)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	out := entry{Payload: encodeBase64URL(b), Protected: w.protected}
	out.Header.UniqueID = e.UniqueID
	signature, err := w.sign(signingInput(out.Protected, out.Payload))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if len(signature) != sizeES256 {
		return nil, fmt.Errorf("%w: want %d bytes, got %d", ErrSignature, sizeES256, len(signature))
	}
	out.Signature = encodeBase64URL(signature)
	signed, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	if len(signed) > MaxEntry {
		return nil, fmt.Errorf("%w: at most %d bytes", ErrTooLarge, MaxEntry)
	}
	return signed, nil
}

// Close ends the array and flushes. It does not close the writer underneath.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	end := "\n]\n"
	if w.count == 0 {
		end = "[]\n"
	}
	_, err := w.out.WriteString(end)
	if err == nil {
		err = w.out.Flush()
	}
	w.err = errors.New("manifest is closed")
	return err
}

// payloadOf gives the signed content of e, with its identifiers in slots 9 and
// 10; what could not be read back is refused.
func payloadOf(e Element) (payload, error) {
	if err := checkVersion(e.Version); err != nil {
		return payload{}, err
	}
	if err := checkUniqueID(e.UniqueID); err != nil {
		return payload{}, err
	}
	if e.ProvisionedAt.IsZero() {
		return payload{}, ErrTimestamp
	}
	if !isRekeyProfile(e.Rekey) {
		return payload{}, errRekeyProfile
	}
	var slot9 [lenSlot9]byte
	copy(slot9[:], e.JoinEUI[:])
	p := payload{
		Version: e.Version, Model: e.Model, PartNumber: e.PartNumber,
		Manufacturer: e.Manufacturer, Provisioner: e.Provisioner,
		GroupID: e.GroupID, UniqueID: e.UniqueID, RekeyProfile: e.Rekey,
		// RFC 3339, UTC, with milliseconds, as real files have it.
		ProvisioningTimestamp: e.ProvisionedAt.UTC().Format("2006-01-02T15:04:05.000Z"),
		ModelInfo: &jsonModelInfo{DeviceRevision: e.DeviceRevision, PublicData: []jsonPublicData{
			{Zone: zoneData, Slot: slotJoinEUI, Data: encodeBase64URL(slot9[:])},
			{Zone: zoneData, Slot: slotDevEUI, Data: encodeBase64URL([]byte(e.DevEUI.String()))},
		}},
	}
	if e.Distributor != (Party{}) {
		p.Distributor = &e.Distributor
	}
	keys, err := jsonKeys(e.Keys)
	if err != nil {
		return payload{}, err
	}
	p.PublicKeySet = keys
	return p, nil
}

// CertifiedKey gives the device key that the first certificate (DER) of a chain is
// for.
func CertifiedKey(chain [][]byte) (DeviceKey, error) {
	key := DeviceKey{Slot: slotDevice, Chain: chain}
	if len(chain) == 0 {
		return key, fmt.Errorf("%w: no certificate", ErrPublicKey)
	}
	cert, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return key, fmt.Errorf("%w: the certificate does not parse", ErrPublicKey)
	}
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return key, fmt.Errorf("%w: want a P-256 key", ErrPublicKey)
	}
	key.Public = public
	return key, nil
}

func jsonKeys(keys []DeviceKey) (*jsonKeySet, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	set := &jsonKeySet{}
	for _, k := range keys {
		if k.Public == nil {
			return nil, fmt.Errorf("%w: a key is missing", ErrPublicKey)
		}
		point, err := k.Public.Bytes() // 04 ‖ x ‖ y
		if err != nil || len(point) != 65 {
			return nil, fmt.Errorf("%w: want a P-256 key", ErrPublicKey)
		}
		jwk := jsonWebKey{KID: k.Slot, KTY: "EC", CRV: "P-256", X: encodeBase64URL(point[1:33]), Y: encodeBase64URL(point[33:])}
		for _, der := range k.Chain {
			jwk.X5C = append(jwk.X5C, base64.StdEncoding.EncodeToString(der))
		}
		if _, err := jwk.deviceKey(); err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jwk)
	}
	return set, nil
}
