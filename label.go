package joinery

import (
	"fmt"

	"joinery/lorawan"
)

// DeviceRef names a device by its id, by JoinEUI and DevEUI, or by all of them,
// which then have to agree.
type DeviceRef struct {
	ID      DeviceID
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
}

// Names tells whether r names a device at all.
func (r DeviceRef) Names() bool { return r.ID != 0 || !r.DevEUI.IsZero() }

// Labelled is a device with what stands on its label beside its identifiers and
// its owner token.
type Labelled struct {
	Device Device // without id where there is no such device
	Serial string // of its element; "" where none is known
}

// MaxLabels is the most devices whose owner tokens one request reads.
const MaxLabels = 2000

// ImportedDevice is the device of one row of an import.
type ImportedDevice struct {
	Index  uint64 // of the row in the file
	Device DeviceID
}

// LabelToken is what stands on a device's label; it holds an owner token.
type LabelToken struct {
	Labelled
	OwnerToken string
	// Err says why there is no token; the other fields are then not set.
	Err error
}

// String keeps the token out of logs.
func (t LabelToken) String() string {
	return fmt.Sprintf("label of %s/%s", t.Device.JoinEUI, t.Device.DevEUI)
}

// GoString is String, for %#v.
func (t LabelToken) GoString() string { return t.String() }
