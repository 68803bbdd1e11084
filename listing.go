package joinery

import (
	"time"

	"joinery/lorawan"
)

// DeviceQuery selects devices for a page of a listing.
type DeviceQuery struct {
	Org   OrgID // zero: all (the operator)
	After DevicePlace
	Limit int
	Looks int // at how many devices a page looks at most; 0: the store's bound

	JoinEUI      lorawan.EUI64  // zero: any
	DevEUIPrefix string         // hexadecimal digits, "" any
	NetID        *lorawan.NetID // of the binding; nil: any
	NSID         lorawan.EUI64  // of the binding; zero: any
	Status       DeviceStatus
	Claimed      *bool // whether anybody claimed it; nil: either
	Disclosed    *bool // whether a root key of it was ever disclosed; nil: either
	// Attested is the level that is valid at AttestedAt; nil: any.
	Attested     *AttestLevel
	AttestedAt   time.Time
	JoinedBefore time.Time
	JoinedAfter  time.Time // zero: whenever, or never
	NeverJoined  bool

	// Sort is the order. ByLastJoin leaves devices out that never joined, and
	// follows joins within some minutes; everything else is as of now.
	Sort       DeviceSort
	Descending bool
}

// DevicePlace is the place of a device in a listing's order; zero is before the
// first. ByDevEUI uses the EUIs, ByLastJoin the others.
type DevicePlace struct {
	DevEUI  lorawan.EUI64
	JoinEUI lorawan.EUI64
	At      time.Time
	Device  DeviceID
}

// DevicePage is one page of a listing.
type DevicePage struct {
	Items []ActivationState
	// Next is where the next page goes on; zero after the last. A page may be
	// short, or empty, and yet have a next: looking for what is rare ends after
	// so many devices, whether it was found or not.
	Next DevicePlace
}

// DeviceStatus is how a device stands, in one word.
type DeviceStatus string

// The statuses; DeviceAny is no filter.
const (
	DeviceAny       DeviceStatus = ""
	DeviceActive    DeviceStatus = "active"    // bound to a network, and not suspended
	DeviceUnbound   DeviceStatus = "unbound"   // bound to none, and not suspended
	DeviceSuspended DeviceStatus = "suspended" // suspended, bound or not
)

// DeviceSort is the order of a listing of devices.
type DeviceSort uint8

// The orders.
const (
	ByDevEUI   DeviceSort = iota // then by JoinEUI
	ByLastJoin                   // then by id
)
