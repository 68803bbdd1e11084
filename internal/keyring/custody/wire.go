package custody

import (
	"encoding/json"
	"errors"
	"fmt"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Config says which tokens to open. There is no secret in it: PINs are read by
// joinery-hsm alone.
type Config struct {
	// Server is the Join Server's token; nil where its keys are not needed.
	Server *Token `json:"server,omitempty"`
	// Custody is the token of the custody role; nil where only derived key sets are
	// exported.
	Custody *Token `json:"custody,omitempty"`
}

// Token is one token.
type Token struct {
	Module        string `json:"module"`
	InitArgs      string `json:"initArgs,omitempty"`
	Token         string `json:"token"`
	PINFile       string `json:"pinFile,omitempty"`
	PINCredential string `json:"pinCredential,omitempty"`
}

// request is one line on the process's standard input.
type request struct {
	Reseal *resealRequest `json:"reseal,omitempty"`
	Export *exportRequest `json:"export,omitempty"`
}

type resealRequest struct {
	To    []byte        `json:"to"` // SubjectPublicKeyInfo
	Roots []storedRoots `json:"roots"`
}

type storedRoots struct {
	KeySet     joinery.KeySetID   `json:"keySet"`
	JoinEUI    lorawan.EUI64      `json:"joinEUI"`
	DevEUI     lorawan.EUI64      `json:"devEUI"`
	MACVersion lorawan.MACVersion `json:"macVersion"`
	Root10     joinery.RootKey    `json:"root10"`
	Nwk        []byte             `json:"nwk,omitempty"`
	App        []byte             `json:"app,omitempty"`
}

type exportRequest struct {
	Header exportfile.Header `json:"header"`
	To     []byte            `json:"to"` // SubjectPublicKeyInfo, which says whether it opted in to SHA-1
	In     []exportIn        `json:"in"`
}

type exportIn struct {
	KeySet     joinery.KeySetID `json:"keySet"`
	DevEUI     lorawan.EUI64    `json:"devEUI"`
	Origin     uint8            `json:"origin"`
	Master     string           `json:"master,omitempty"`
	Generation uint32           `json:"generation,omitempty"`
	Root10     joinery.RootKey  `json:"root10"`
	Nwk        []byte           `json:"nwk,omitempty"`
	App        []byte           `json:"app,omitempty"`
	// Rekey, Serial and Steps are of a rekeyed key set.
	Rekey  uint8           `json:"rekey,omitempty"`
	Serial []byte          `json:"serial,omitempty"`
	Steps  []lorawan.Rekey `json:"steps,omitempty"`
	// About is an exportfile.Metadata, read by itself: what is wrong with it is that of
	// one device.
	About json.RawMessage `json:"about"`
}

// answer is one line on descriptor 3. The first answers no request: it says that the
// tokens are open.
type answer struct {
	Error  *failure      `json:"error,omitempty"`
	Hello  *hello        `json:"hello,omitempty"`
	Header *seal.Header  `json:"header,omitempty"`
	Rows   []resealedRow `json:"rows,omitempty"`
	Out    []exportOut   `json:"out,omitempty"`
}

type resealedRow struct {
	Row   *seal.SealedRow `json:"row,omitempty"`
	Error *failure        `json:"error,omitempty"`
}

type hello struct {
	Version    int                   `json:"version"`
	Generation uint32                `json:"generation"`
	Signer     exportfile.Signer     `json:"signer"`
	Wrappings  []exportfile.Wrapping `json:"wrappings"`
}

// version is that of the conversation.
const version = 2

type exportOut struct {
	Device *exportfile.Device `json:"device,omitempty"`
	Error  *failure           `json:"error,omitempty"`
}

// failure is an error on its way: what it is to programs, and its text.
type failure struct {
	Is   string `json:"is,omitempty"`
	Text string `json:"text"`
}

// sentinels are the errors that keep their name on the way. An error may be several:
// the first that fits is it.
var sentinels = []struct {
	is  string
	err error
}{
	{"pin", keyring.ErrPIN},
	{"token", keyring.ErrToken},
	{"integrity", keyring.ErrIntegrity},
	{"otherCustody", keyring.ErrOtherCustody},
	{"unknownMaster", keyring.ErrUnknownMaster},
	{"noRoot", keyring.ErrNoRoot},
	{"notServed", keyring.ErrNotServed},
	{"request", keyring.ErrRequest},
	{"wrapping", exportfile.ErrWrapping},
	{"format", exportfile.ErrFormat},
	{"recipient", exportfile.ErrRecipient},
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error()}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			f.Is = s.is
			break
		}
	}
	return f
}

// told is an error of the other process.
type told struct {
	text string
	is   error
}

func (t told) Error() string { return t.text }
func (t told) Unwrap() error { return t.is }

func (f *failure) err() error {
	if f == nil {
		return nil
	}
	for _, s := range sentinels {
		if f.Is == s.is {
			return told{f.Text, s.err}
		}
	}
	return told{f.Text, nil}
}

func (r storedRoots) domain() joinery.StoredRoots {
	return joinery.StoredRoots{
		KeySet: r.KeySet, JoinEUI: r.JoinEUI, DevEUI: r.DevEUI, MACVersion: r.MACVersion, Root10: r.Root10,
		Nwk: joinery.SealedRoot{Custody: r.Nwk}, App: joinery.SealedRoot{Custody: r.App},
	}
}

func (i exportIn) domain() keyring.ExportIn {
	var about exportfile.Metadata
	if err := json.Unmarshal(i.About, &about); err != nil {
		about = exportfile.Metadata{} // which is refused
	}
	in := keyring.ExportIn{About: about, KeySet: joinery.KeySet{
		ID: i.KeySet, DevEUI: i.DevEUI, Origin: joinery.Origin(i.Origin), Master: i.Master, Generation: i.Generation, Root10: i.Root10,
		Nwk: joinery.SealedRoot{Custody: i.Nwk}, App: joinery.SealedRoot{Custody: i.App},
		Rekey: joinery.RekeyProfile(i.Rekey), Steps: i.Steps,
	}}
	copy(in.KeySet.Serial[:], i.Serial)
	return in
}

// errVersion: programs of two releases.
var errVersion = fmt.Errorf("%w: joinery-hsm is of another release; install both programs of one", keyring.ErrToken)
