package evidence

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"joinery/lorawan"
)

// FormatFile names the format of a file of evidence.
const FormatFile = "joinery-evidence/1"

// ErrFile says that something is no file of evidence.
var ErrFile = errors.New("not a file of evidence")

// File is evidence as it comes from the bench, or what the bench is to answer: then
// Kind and Evidence are empty. Bytes are base64 in JSON.
type File struct {
	Format    string        `json:"format"`
	JoinEUI   lorawan.EUI64 `json:"joinEUI"`
	DevEUI    lorawan.EUI64 `json:"devEUI"`
	Challenge []byte        `json:"challenge"`
	Kind      string        `json:"kind,omitempty"`
	// Evidence is compact evidence, COSE_Sign1, or the text of a JWT.
	Evidence []byte `json:"evidence,omitempty"`
}

// About gives what the evidence is about.
func (f File) About() About {
	return About{Challenge: [ChallengeLen]byte(f.Challenge), JoinEUI: f.JoinEUI, DevEUI: f.DevEUI}
}

// Text gives the file.
func (f File) Text() ([]byte, error) {
	f.Format = FormatFile
	b, err := json.Marshal(f, jsontext.WithIndent("  "))
	return append(b, '\n'), err
}

// ParseFile reads a file, strictly. ErrFile.
func ParseFile(text []byte) (f File, err error) {
	if err := json.Unmarshal(text, &f, json.RejectUnknownMembers(true)); err != nil || f.Format != FormatFile || len(f.Challenge) != ChallengeLen {
		return File{}, fmt.Errorf("%w: want JSON of the format %s, with a challenge of %d bytes", ErrFile, FormatFile, ChallengeLen)
	}
	return f, nil
}
