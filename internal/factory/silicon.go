package factory

import (
	"bufio"
	"io"

	"github.com/go-json-experiment/json"

	"joinery/internal/seal"
	"joinery/lorawan"
)

// siliconFormat names the silicon file: lines of JSON, first a siliconHead, then
// one siliconRow for each element.
const siliconFormat = "joinery-silicon/3"

type siliconHead struct {
	Format string      `json:"format"`
	Seal   seal.Header `json:"seal"`
}

// siliconRow is one element: what is written into an ATECC608-TNGLORA, or in profile S
// into an element of software. Its keys are AES key wrap under the file key of the
// head, base64 in JSON: root keys have 24 bytes, the others 40, but for a rekeying key
// of profile S with 24. MAC is that of seal.ElementItem, over all of the row.
type siliconRow struct {
	UniqueID  string        `json:"uniqueId"`  // the serial number
	JoinEUI   lorawan.EUI64 `json:"joinEUI"`   // slot 9
	DevEUI    lorawan.EUI64 `json:"devEUI"`    // slot 10, as upper-case digits
	AppKey    []byte        `json:"appKey"`    // slot 0, first half
	NwkKey    []byte        `json:"nwkKey"`    // slot 0, second half
	DeviceKey []byte        `json:"deviceKey"` // slot 1
	// Certificates are the device key's, DER, its own first; slot 8 has them compressed.
	Certificates [][]byte `json:"certificates"`
	// RekeyKey is the key of slot 13 (profile M) or the rekeying key (profile S).
	RekeyKey []byte `json:"rekeyKey,omitempty"`
	// SecureBoot is what an element has that verifies firmware; nil: it does not. The MAC
	// is that of seal.BootElementItem then.
	SecureBoot *siliconBoot `json:"secureBoot,omitempty"`
	MAC        []byte       `json:"mac"`
}

// siliconBoot is what goes into the slots of SecureBoot. Both keys are sealed as those of
// the row, 40 bytes each; the microcontroller gets the one of slot 14, too.
type siliconBoot struct {
	ReleaseKey []byte `json:"releaseKey"` // slot 15: the maker's public key, X ‖ Y, 64 bytes
	BootKey    []byte `json:"bootKey"`    // slot 11
	IOKey      []byte `json:"ioKey"`      // slot 14
}

type siliconWriter struct{ out *bufio.Writer }

func newSiliconWriter(w io.Writer, h seal.Header) (*siliconWriter, error) {
	s := &siliconWriter{out: bufio.NewWriter(w)}
	return s, s.line(siliconHead{Format: siliconFormat, Seal: h})
}

func (s *siliconWriter) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.out.Write(append(b, '\n'))
	return err
}

func (s *siliconWriter) flush() error { return s.out.Flush() }
