package seal

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MasterFormat names the layout of a shared master key.
const MasterFormat = "joinery-master/1"

// ErrMaster says that what should be a shared master key is not of its format.
var ErrMaster = errors.New("not a shared master key")

// maxMaster bounds a shared master key, in bytes.
const maxMaster = 64 << 10

// Master is a master key on its way to another keyring, sealed to its transport
// key. It may travel by any way; compare the key check value over another one.
type Master struct {
	Format  string `json:"format"` // "joinery-master/1"
	Name    string `json:"name"`
	Profile string `json:"profile"`
	KCV     string `json:"kcv"`
	Seal    Header `json:"seal"`
	Key     []byte `json:"key"`
	MAC     []byte `json:"mac"` // binds name, profile and key
}

// ParseMaster reads the JSON form. ErrMaster for what has another format.
func ParseMaster(text []byte) (m Master, err error) {
	if len(text) > maxMaster {
		return Master{}, fmt.Errorf("%w: it is too long", ErrMaster)
	}
	if err := json.Unmarshal(text, &m); err != nil || m.Format != MasterFormat {
		return Master{}, fmt.Errorf("%w: want format %s", ErrMaster, MasterFormat)
	}
	return m, nil
}

// Marshal gives the JSON form.
func (m Master) Marshal() ([]byte, error) {
	m.Format = MasterFormat
	text, err := json.MarshalIndent(m, "", "  ")
	return append(text, '\n'), err
}

// Item gives what the MAC of m covers.
func (m Master) Item() Item { return MasterItem(m.Name, m.Profile, m.Key) }
