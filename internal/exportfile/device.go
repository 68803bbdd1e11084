package exportfile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"joinery/internal/exposure"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Format names the layout of a file and what its signatures cover.
const Format = "joinery-export/1"

// Names of root keys, as package seal has them.
const (
	NwkKey = seal.RootNwkKey
	AppKey = seal.RootAppKey
)

// ErrFormat is wrapped by the errors about what should be a part of an export and
// is not well-formed. They repeat no value.
var ErrFormat = errors.New("not a usable export")

// Header is what all devices of an export have in common. Every signature covers it.
type Header struct {
	Format string `json:"format"` // "joinery-export/1"
	// ID is the server's name of the export, Server its own name, Org the
	// organisation whose devices they are.
	ID     string `json:"id"`
	Server string `json:"server"`
	Org    string `json:"org"`
	// Recipient is the thumbprint of the key to which root keys are wrapped.
	Recipient string `json:"recipient"`
	// Created is when it was approved, UTC, to the second: "2006-01-02T15:04:05Z".
	Created string `json:"created"`
	// Devices is how many were asked for: a file with fewer is a part, or some could
	// not be exported.
	Devices  int      `json:"devices"`
	Wrapping Wrapping `json:"wrapping"`
	// Signer is the key that signs. Whether it is the server's is for the reader to
	// know, from the server or from an earlier time.
	Signer Signer `json:"signer"`
}

const createdLayout = "2006-01-02T15:04:05Z"

// FormatCreated gives the form of Header.Created.
func FormatCreated(t time.Time) string { return t.UTC().Format(createdLayout) }

// CreatedAt gives Created as a time, zero where it is none.
func (h Header) CreatedAt() time.Time {
	t, err := time.Parse(createdLayout, h.Created)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Bounds of what files hold.
const (
	maxName     = 256
	maxJoinEUIs = 64
	maxKeys     = 2
	// maxSealed is the length of an RSA modulus of 8192 bits, in bytes; maxJWE of a
	// JWE with such a key.
	maxSealed = 1024
	maxJWE    = 8 << 10
	countEnd  = 1 << 16 // one above the last DevNonce or RJcount
)

// Check tells whether h is complete. ErrFormat.
func (h Header) Check() error {
	switch {
	case h.Format != Format:
		return fmt.Errorf("%w: want format %q; a newer version of this program may read it", ErrFormat, Format)
	case h.ID == "" || len(h.ID) > maxName || h.Server == "" || len(h.Server) > maxName || len(h.Org) > maxName:
		return fmt.Errorf("%w: id and server have 1 to %d bytes, org no more", ErrFormat, maxName)
	case !exposure.IsName(h.ID) || !exposure.IsName(h.Server) || !exposure.IsName(h.Org):
		return fmt.Errorf("%w: id, server or org has characters that no name has", ErrFormat)
	case !isThumbprint(h.Recipient):
		return fmt.Errorf("%w: recipient is not a JWK thumbprint", ErrFormat)
	case h.CreatedAt().IsZero() || FormatCreated(h.CreatedAt()) != h.Created:
		return fmt.Errorf("%w: created is not of the form %s", ErrFormat, createdLayout)
	case h.Devices < 0:
		return fmt.Errorf("%w: devices is negative", ErrFormat)
	case h.Wrapping.Check() != nil:
		return fmt.Errorf("%w: %w", ErrFormat, h.Wrapping.Check())
	}
	return h.Signer.check()
}

// Device is one device of an export.
type Device struct {
	Metadata
	Keys []Key `json:"keys"`
	// Seal and MAC are of form seal: how to open the file key, and the MAC of the
	// row (see Row).
	Seal *seal.Header `json:"seal,omitzero"`
	MAC  []byte       `json:"mac,omitzero"`
	// Signature is r ‖ s, 64 bytes.
	Signature []byte `json:"signature,omitzero"`
}

// Metadata is what the next server must know of a device, beside its keys.
type Metadata struct {
	JoinEUI    lorawan.EUI64      `json:"joinEUI"`
	DevEUI     lorawan.EUI64      `json:"devEUI"`
	MACVersion lorawan.MACVersion `json:"macVersion"`
	// Root10 is the root that serves 1.0.x sessions and the MIC of a join-request:
	// "NwkKey" or "AppKey". A 1.0.x device of an element has NwkKey here: servers
	// that call the one root of such a device AppKey get the value of NwkKey.
	Root10 string `json:"root10"`
	// JoinNonce is the last one issued; the next server goes on above it.
	JoinNonce lorawan.JoinNonce `json:"joinNonce"`
	// Nonces are sorted by JoinEUI.
	Nonces []Nonces `json:"nonces,omitzero"`
	// Exposure is what the server knew of earlier disclosures when the keys were
	// wrapped; this export is one more. nil in files of earlier versions, which do not
	// say.
	Exposure *exposure.Exposure `json:"exposure,omitzero"`
}

// Nonces is what a device used up under one JoinEUI.
type Nonces struct {
	JoinEUI lorawan.EUI64 `json:"joinEUI"`
	// UsedDevNonces is every DevNonce accepted from a device that draws them at
	// random, in rising order; NextDevNonce is one above the highest from a device
	// that counts, 0 before the first, 65,536 when none is left.
	UsedDevNonces []lorawan.DevNonce `json:"usedDevNonces,omitzero"`
	NextDevNonce  uint32             `json:"nextDevNonce"`
	// NextRJCount1 is one above the last RJcount1 accepted, likewise.
	NextRJCount1 uint32 `json:"nextRJcount1"`
}

// Key is one wrapped root key. Form, alg and hash of the wrapping are the header's.
type Key struct {
	Root string `json:"root"` // "NwkKey" or "AppKey"
	// KCV is the first three bytes of AES-CMAC(key, 16 zero bytes) in upper-case
	// hexadecimal digits.
	KCV string `json:"kcv"`
	// SHA256 is that of Wrapped, or of the ASCII text of JWE. Of these two one is
	// there, or none once the file has outlived its blobs.
	SHA256  []byte `json:"sha256"`
	Wrapped []byte `json:"wrapped,omitzero"`
	JWE     string `json:"jwe,omitzero"`
}

// Roots names the root keys that a device of this version uses, NwkKey first: both
// for 1.1, the one that serves 1.0.x else.
func (m Metadata) Roots() []string {
	if m.MACVersion.HasTwoRootKeys() {
		return []string{NwkKey, AppKey}
	}
	if m.Root10 == seal.RootRekeyKey { // in the place of that one
		return []string{NwkKey}
	}
	return []string{m.Root10}
}

// Check tells whether m is complete. ErrFormat.
func (m Metadata) Check() error {
	switch {
	case m.DevEUI.IsZero() || !m.MACVersion.Valid():
		return fmt.Errorf("%w: devEUI or macVersion is missing", ErrFormat)
	case m.Root10 != NwkKey && m.Root10 != AppKey:
		return fmt.Errorf("%w: root10 is neither %s nor %s", ErrFormat, NwkKey, AppKey)
	case m.MACVersion.HasTwoRootKeys() && m.Root10 != NwkKey:
		return fmt.Errorf("%w: NwkKey serves the 1.0.x sessions of a 1.1 device", ErrFormat)
	case m.JoinNonce > lorawan.MaxJoinNonce:
		return fmt.Errorf("%w: joinNonce is above %d", ErrFormat, lorawan.MaxJoinNonce)
	case len(m.Nonces) > maxJoinEUIs:
		return fmt.Errorf("%w: nonces of more than %d JoinEUIs", ErrFormat, maxJoinEUIs)
	case m.Exposure != nil && m.Exposure.Check() != nil:
		return fmt.Errorf("%w: %w", ErrFormat, m.Exposure.Check())
	}
	for i, n := range m.Nonces {
		switch {
		case i > 0 && slices.Compare(m.Nonces[i-1].JoinEUI[:], n.JoinEUI[:]) >= 0:
			return fmt.Errorf("%w: nonces are not in order of their JoinEUIs", ErrFormat)
		case n.NextDevNonce > countEnd || n.NextRJCount1 > countEnd:
			return fmt.Errorf("%w: a counter is above %d", ErrFormat, countEnd)
		}
		for j := 1; j < len(n.UsedDevNonces); j++ {
			if n.UsedDevNonces[j-1] >= n.UsedDevNonces[j] {
				return fmt.Errorf("%w: used DevNonces are not in rising order", ErrFormat)
			}
		}
	}
	return nil
}

var (
	kcvForm        = regexp.MustCompile(`^[0-9A-F]{6}$`)
	thumbprintForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
)

func isThumbprint(text string) bool { return thumbprintForm.MatchString(text) }

// Check tells whether d is complete as a device of an export with header h, but for
// its signature and what its blobs hold. ErrFormat.
func (d Device) Check(h Header) error {
	if err := d.Metadata.Check(); err != nil {
		return err
	}
	if len(d.Keys) != len(d.Roots()) {
		return fmt.Errorf("%w: a device has the root keys that its version uses, no more and no fewer", ErrFormat)
	}
	for i, root := range d.Roots() {
		if err := d.Keys[i].check(root, h.Wrapping.Form); err != nil {
			return err
		}
	}
	if h.Wrapping.Form != FormSeal {
		if d.Seal != nil || len(d.MAC) != 0 {
			return fmt.Errorf("%w: seal and mac belong to form %s", ErrFormat, FormSeal)
		}
		return nil
	}
	if d.Seal == nil || d.Seal.Check() != nil || d.Seal.Alg != h.Wrapping.Alg || len(d.MAC) != seal.MACLen {
		return fmt.Errorf("%w: form %s needs a seal header of that alg and a MAC", ErrFormat, FormSeal)
	}
	return nil
}

func (k Key) check(root string, form Form) error {
	switch {
	case k.Root != root:
		return fmt.Errorf("%w: root keys stand in another order, or are others", ErrFormat)
	case !kcvForm.MatchString(k.KCV):
		return fmt.Errorf("%w: a key check value is not six upper-case hexadecimal digits", ErrFormat)
	case len(k.SHA256) != 32:
		return fmt.Errorf("%w: sha256 is not 32 bytes", ErrFormat)
	case len(k.Wrapped) > maxSealed || len(k.JWE) > maxJWE:
		return fmt.Errorf("%w: a wrapped key is longer than any", ErrFormat)
	case form == FormJWE && len(k.Wrapped) != 0 || form != FormJWE && k.JWE != "":
		return fmt.Errorf("%w: a wrapped key is of another form", ErrFormat)
	}
	return nil
}

// blob gives what SHA256 is made of; nil where it is gone.
func (k Key) blob() []byte {
	if k.JWE != "" {
		return []byte(k.JWE)
	}
	return k.Wrapped
}

// WithoutBlobs gives d as it may be kept once its keys were delivered: its signature
// still proves what was exported, and it opens for nobody.
func (d Device) WithoutBlobs() Device {
	d.Keys = slices.Clone(d.Keys)
	for i := range d.Keys {
		d.Keys[i].Wrapped, d.Keys[i].JWE = nil, ""
	}
	return d
}

// Row gives a device of form seal as a row of a key list that was sealed under
// d.Seal: another Joinery imports it as it is. A counter of DevNonces stands in it as
// its last one.
func (d Device) Row() seal.SealedRow {
	row := d.row()
	for _, k := range d.Keys {
		if k.Root == NwkKey {
			row.NwkKey = k.Wrapped
		} else {
			row.AppKey = k.Wrapped
		}
	}
	row.MAC = d.MAC
	return row
}

// SealRow gives the row in which the root keys of a device are sealed in two steps,
// without keys and MAC.
func (m Metadata) SealRow() seal.SealedRow { return m.row() }

func (m Metadata) row() seal.SealedRow {
	row := seal.SealedRow{
		JoinEUI: m.JoinEUI, DevEUI: m.DevEUI, MACVersion: m.MACVersion, Root10: m.Root10, JoinNonceFloor: m.JoinNonce,
	}
	for _, n := range m.Nonces {
		used := n.UsedDevNonces
		if m.MACVersion.CountsDevNonces() {
			used = nil
			if n.NextDevNonce > 0 {
				used = []lorawan.DevNonce{lorawan.DevNonce(n.NextDevNonce - 1)}
			}
		}
		switch {
		case n.JoinEUI == m.JoinEUI:
			row.UsedDevNonces, row.NextRJCount1 = used, n.NextRJCount1
		case len(used) > 0 || n.NextRJCount1 > 0:
			row.Former = append(row.Former, seal.FormerNonces{JoinEUI: n.JoinEUI, UsedDevNonces: used, NextRJCount1: n.NextRJCount1})
		}
	}
	return row
}

// Told is what the server that exported d says of its root keys: what it knew
// before, and that this export is a disclosure, too.
func (d Device) Told(h Header) exposure.Exposure {
	e := exposure.Exposure{Outside: true}
	if d.Exposure != nil {
		e = *d.Exposure
	}
	e.Disclosed = true
	e.Times = append(slices.Clone(e.Times), exposure.Time{
		At: h.CreatedAt(), Recipient: h.Recipient, Kind: "join-server", Reference: h.ID, Org: h.Org,
	})
	return e
}
