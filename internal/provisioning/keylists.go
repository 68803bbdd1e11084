package provisioning

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// planKeyList seals the roots of a chunk to their key sets and makes devices of
// its rows.
func (s *Service) planKeyList(ctx context.Context, i joinery.Import, c Chunk) (plan, error) {
	a, err := s.authority(ctx, i)
	if err != nil {
		return plan{}, err
	}
	bad, indexes, err := placeRows(c)
	if err != nil {
		return plan{}, err
	}
	p := plan{failed: bad}
	var told map[uint64]*joinery.Told
	if len(c.Exported) > 0 {
		if c, indexes, told, err = readExported(c, &p); err != nil {
			return plan{}, err
		}
	}
	var sealed []joinery.NewDevice
	var roots []keyring.RootsIn
	for k, r := range c.Keys {
		at := row{index: indexes[k], line: r.Line, joinEUI: r.JoinEUI, devEUI: r.DevEUI, version: r.MACVersion}
		reason := refuseRow(r)
		if reason == "" {
			reason = a.refuseKeys(r.JoinEUI)
		}
		if reason != "" {
			p.failed = append(p.failed, at.refuse(reason))
			continue
		}
		// Ids first: a sealed root is bound to its key set.
		n := s.newSealedDevice(i, at, r)
		n.Told = told[at.index]
		sealed = append(sealed, n)
		roots = append(roots, keyring.RootsIn{KeySet: n.KeySet.ID, Row: r})
	}
	if len(roots) > 0 {
		err = s.sealRoots(ctx, c.Seal, sealed, roots, &p)
	}
	return p, err
}

// sealRoots has the keyring open and seal the roots of devices, and puts each
// device into p, or its refusal.
func (s *Service) sealRoots(ctx context.Context, h seal.Header, devices []joinery.NewDevice, roots []keyring.RootsIn, p *plan) error {
	out, err := s.keys.SealRoots(ctx, h, roots)
	if errors.Is(err, keyring.ErrTransport) {
		return joinery.WrapError(joinery.CodeInvalid, err,
			"the key list is not sealed to this server's transport key, or was damaged; fetch the key and seal the list again")
	}
	if errors.Is(err, keyring.ErrNotServed) {
		return joinery.WrapError(joinery.CodeForbidden, err,
			"this server's token does not protect imported root keys, so that it takes none; devices whose keys derive from a master key it does")
	}
	if errors.Is(err, keyring.ErrToken) {
		return joinery.WrapError(joinery.CodeUnavailable, err, "the keys of this server cannot be reached now; try again later")
	}
	if err != nil {
		return err
	}
	for k, n := range devices {
		if out[k].Err != nil {
			at := row{index: n.Index, line: n.Line, joinEUI: n.Device.JoinEUI, devEUI: n.Device.DevEUI}
			p.failed = append(p.failed, at.refuse(reasonTransport))
			continue
		}
		n.KeySet.Nwk, n.KeySet.App = out[k].Nwk, out[k].App
		p.devices = append(p.devices, n)
	}
	return nil
}

// refuseRow checks a row by itself.
func refuseRow(r seal.SealedRow) string {
	if err := r.Check(); err != nil {
		return err.Error()
	}
	if r.JoinNonceFloor == lorawan.MaxJoinNonce {
		return reasonExhausted
	}
	return ""
}

// newSealedDevice makes a device of a row, without its roots.
func (s *Service) newSealedDevice(i joinery.Import, at row, r seal.SealedRow) joinery.NewDevice {
	n := s.newDevice(i, at)
	n.KeySet.Origin = joinery.OriginSealed
	n.KeySet.Root10 = joinery.AppKey
	if r.Root10 == seal.RootNwkKey {
		n.KeySet.Root10 = joinery.NwkKey
	}
	n.KeySet.Nonces = noncesOf(r)
	return n
}

// noncesOf carries over what another Join Server accepted and issued, by the
// rule of the provisioned version: a device that counts goes on above its
// highest DevNonce (TS001-1.0.4 §6.2.5), of one that draws them at random every
// single one is spent (TS001-1.0.3 §6.2.4).
func noncesOf(r seal.SealedRow) joinery.Nonces {
	nonces := joinery.Nonces{JoinNonce: r.JoinNonceFloor}
	now := seal.FormerNonces{JoinEUI: r.JoinEUI, UsedDevNonces: r.UsedDevNonces, NextRJCount1: r.NextRJCount1}
	for _, f := range append([]seal.FormerNonces{now}, r.Former...) {
		e := joinery.JoinEUINonces{JoinEUI: f.JoinEUI, NextRJCount1: f.NextRJCount1}
		switch {
		case len(f.UsedDevNonces) == 0 && f.NextRJCount1 == 0:
			continue
		case len(f.UsedDevNonces) == 0:
		case r.MACVersion.CountsDevNonces():
			e.Next = uint32(slices.Max(f.UsedDevNonces)) + 1
		default:
			e.Used = joinery.NewDevNonceSet(f.UsedDevNonces)
		}
		nonces = nonces.With(e)
	}
	return nonces
}

// placeRows gives the bad rows of a chunk as results, and the index of each of
// its keys: they fill, in order, the places that bad rows leave.
func placeRows(c Chunk) (bad []joinery.RowResult, indexes []uint64, err error) {
	taken := make(map[uint64]bool, len(c.BadRows))
	for _, b := range c.BadRows {
		if b.Index < c.From || b.Index-c.From >= uint64(c.count()) || taken[b.Index] {
			return nil, nil, joinery.Errorf(joinery.CodeInvalid, "a bad row has an index outside of the chunk, or that of another row")
		}
		taken[b.Index] = true
		b.Status, b.Device, b.Reason = joinery.RowFailed, 0, cleanReason(b.Reason)
		bad = append(bad, b)
	}
	for index := c.From; len(indexes) < len(c.Keys); index++ {
		if !taken[index] {
			indexes = append(indexes, index)
		}
	}
	return bad, indexes, nil
}

// maxReason bounds a reason that a client gives.
const maxReason = 256

// keyLike is what could be a key in a client's reason: it is stored and shown,
// so it must hold none, however careless the client.
var keyLike = regexp.MustCompile(`[0-9A-Fa-f]{24,}`)

// cleanReason makes a client's reason fit to be stored.
func cleanReason(s string) string {
	squeezed := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || strings.ContainsRune(":-.,_", r) {
			return -1
		}
		return r
	}, s)
	printable := !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
	if s == "" || len(s) > maxReason || !printable || keyLike.MatchString(squeezed) {
		return "the row was refused before it was sent"
	}
	return s
}
