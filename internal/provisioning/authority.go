package provisioning

import (
	"context"
	"slices"

	"joinery"
	"joinery/internal/keyring"
	"joinery/lorawan"
	"joinery/manifest"
)

// Reasons of refused rows. None repeats a value or names another organisation.
const (
	reasonRange     = "JoinEUI lies in no range that is assigned to this organisation"
	reasonElements  = "JoinEUI lies in a range for secure elements, which come by manifest only"
	reasonSigner    = "its signer may not provision for this organisation"
	reasonJoinEUI   = "its signer may not provision this JoinEUI"
	reasonDevEUI    = "its signer may not provision this DevEUI"
	reasonMaster    = "its root keys cannot be derived here: the master key of its signer is not in the keyring"
	reasonZero      = "DevEUI is zero"
	reasonTransport = "the row is not as it was sealed: an identifier, the version, a nonce or a key was changed, or it was sealed for another use"
	reasonTaken     = "(JoinEUI, DevEUI) belongs to somebody else"
	reasonOtherKeys = "the device is here already with other keys; delete it first to replace them"
	reasonOtherMAC  = "the device is here already with another MACVersion; delete it first to change that"
	reasonExhausted = "JoinNonceFloor leaves no JoinNonce"
)

// row is what is known of a row before its keys are.
type row struct {
	index, line     uint64
	joinEUI, devEUI lorawan.EUI64
	version         lorawan.MACVersion
	serial          string
}

func (r row) refuse(reason string) joinery.RowResult {
	return joinery.RowResult{
		Index: r.index, Line: r.line, JoinEUI: r.joinEUI, DevEUI: r.devEUI, Serial: r.serial,
		Status: joinery.RowFailed, Reason: reason,
	}
}

// authority is who may import what, as it is while one chunk is taken.
type authority struct {
	org     joinery.OrgID
	ranges  []joinery.JoinEUIRange
	signers pinnedSigners
	masters []keyring.Master
}

func (s *Service) authority(ctx context.Context, i joinery.Import) (authority, error) {
	ranges, err := s.registry.Ranges(ctx)
	if err != nil {
		return authority{}, err
	}
	a := authority{org: i.Org, ranges: ranges}
	if i.Kind != joinery.ImportManifest {
		return a, nil
	}
	a.masters = s.keys.Masters()
	a.signers, err = s.pinnedSigners(ctx, i.Org)
	return a, err
}

// rangeOf finds the range in which joinEUI lies.
func (a authority) rangeOf(joinEUI lorawan.EUI64) (joinery.JoinEUIRange, bool) {
	i := slices.IndexFunc(a.ranges, func(r joinery.JoinEUIRange) bool { return r.Contains(joinEUI) })
	if i < 0 {
		return joinery.JoinEUIRange{}, false
	}
	return a.ranges[i], true
}

// refuseElement gives why an element that signer signed must not be taken, ""
// if it may: into a range of its organisation, or into one of elements whose
// organisation shares the signer.
func (a authority) refuseElement(e manifest.Element, signer joinery.Signer) string {
	r, ok := a.rangeOf(e.JoinEUI)
	own := ok && r.Org == a.org
	shared := ok && r.Elements && signer.Shared && signer.Org == r.Org
	switch {
	case e.DevEUI.IsZero():
		return reasonZero
	case !own && !shared:
		return reasonRange
	case signer.Org != r.Org:
		return reasonSigner
	case !signer.JoinEUIs.Contains(e.JoinEUI):
		return reasonJoinEUI
	case !signer.DevEUIs.Contains(e.DevEUI):
		return reasonDevEUI
	case !slices.ContainsFunc(a.masters, func(m keyring.Master) bool { return m.Name == signer.Master }):
		return reasonMaster
	}
	return ""
}

// refuseKeys gives why a row of a key list must not be taken, "" if it may.
func (a authority) refuseKeys(joinEUI lorawan.EUI64) string {
	switch r, ok := a.rangeOf(joinEUI); {
	case !ok || r.Org != a.org:
		return reasonRange
	case r.Elements:
		return reasonElements
	}
	return ""
}
