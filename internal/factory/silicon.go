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
const siliconFormat = "joinery-silicon/2"

type siliconHead struct {
	Format string      `json:"format"`
	Seal   seal.Header `json:"seal"`
}

// siliconRow is one element. Its keys are AES key wrap under the file key of the
// head, base64 in JSON: root keys have 24 bytes, the private device key 40. An element that
// rekeys has RekeyKey besides: 24 bytes in profile S, 40 in profile M. MAC is that
// of seal.ElementItem, or seal.RekeyingElementItem, over all of the row.
type siliconRow struct {
	UniqueID  string        `json:"uniqueId"`
	JoinEUI   lorawan.EUI64 `json:"joinEUI"`
	DevEUI    lorawan.EUI64 `json:"devEUI"`
	NwkKey    []byte        `json:"nwkKey"`
	AppKey    []byte        `json:"appKey"`
	DeviceKey []byte        `json:"deviceKey"`
	RekeyKey  []byte        `json:"rekeyKey,omitempty"`
	MAC       []byte        `json:"mac"`
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
