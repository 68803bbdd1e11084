package rekey

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"joinery"
	"joinery/internal/exposure"
	"joinery/internal/keyring"
	"joinery/internal/rekeyfile"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// parting is a device with the key sets that it may have when it arrives.
type parting struct {
	state joinery.ActivationState
	order joinery.RekeyOrder
	sets  []joinery.KeySet
	// told goes with it: who could read its root keys, as far as is known here.
	told exposure.Exposure
	// digest names what is offered: order, key sets, and what is told.
	digest []byte
}

func (p parting) sum() ([]byte, error) {
	told, err := json.Marshal(p.told, json.Deterministic(true))
	h := sha256.New()
	h.Write([]byte(p.order.ID.String()))
	for _, k := range p.sets {
		h.Write([]byte(label(k)))
	}
	h.Write(told)
	return h.Sum(nil), err
}

// label names a key set: the same one always, and different ones never alike.
func label(k joinery.KeySet) string {
	h := sha256.New()
	h.Write([]byte(k.Master))
	h.Write([]byte{0, byte(k.Rekey)})
	h.Write([]byte(k.Held.KeySet.String()))
	h.Write(k.DevEUI[:])
	for _, step := range k.Steps {
		h.Write(step.JoinEUI[:])
		h.Write(step.Cookie[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// parting finds the key sets to which an order of a device leads: from the one that
// it is known to have, and from every one that it may have instead; and those of
// its other orders to the same Join Server, which it may have obeyed.
func (s *Service) parting(ctx context.Context, state joinery.ActivationState, o joinery.RekeyOrder) (parting, error) {
	p := parting{state: state, order: o, sets: []joinery.KeySet{leadsTo(state.KeySet, o)}}
	add := func(k joinery.KeySet) {
		same := func(other joinery.KeySet) bool { return slices.Equal(other.Steps, k.Steps) }
		if len(p.sets) <= joinery.MaxRekeyCandidates && !slices.ContainsFunc(p.sets, same) {
			p.sets = append(p.sets, k)
		}
	}
	orders, err := s.store.RekeyOrders(ctx, state.Device.ID)
	if err != nil {
		return p, err
	}
	for _, other := range orders {
		obeyed := slices.ContainsFunc(state.KeySet.Steps, func(r lorawan.Rekey) bool { return r == other.Rekey })
		if other.Server == o.Server && other.Recipient == 0 && other.Sent > 0 && other.Rekey.JoinEUI == o.Rekey.JoinEUI && !obeyed {
			add(leadsTo(state.KeySet, other))
		}
	}
	for _, c := range state.Rekeying.Candidates { // in profile M the last step decides
		if c.Origin == joinery.OriginRekeyed && state.Device.Rekey == joinery.RekeyS {
			add(leadsTo(c, o))
		}
	}
	if p.told, err = s.exposure(ctx, p); err == nil {
		p.digest, err = p.sum()
	}
	return p, err
}

// leadsTo is the key set that a device which has k has once it obeyed o.
func leadsTo(k joinery.KeySet, o joinery.RekeyOrder) joinery.KeySet {
	if n := len(k.Steps); n > 0 && k.Steps[n-1] == o.Rekey {
		return k // it obeyed, and did not store its JoinEUI
	}
	k.Origin, k.Root10 = joinery.OriginRekeyed, joinery.NwkKey
	k.Steps = append(slices.Clone(k.Steps), o.Rekey)
	return k
}

// fewRows refuses more than go at a time.
func fewRows(list []parting) error {
	rows := 0
	for _, p := range list {
		rows += p.rows()
	}
	if rows > maxRows {
		return joinery.Errorf(joinery.CodeTooLarge, "these devices may have %d key sets, and at most %d go at a time: name fewer devices", rows, maxRows)
	}
	return nil
}

// rows counts what a device takes in a hand-over.
func (p parting) rows() int {
	if p.order.RekeyKey {
		return 2 * len(p.sets)
	}
	return len(p.sets)
}

// exposure is what goes with a device: who could read root keys of it. Those to which
// the order leads are new ones, derived inside the element by a key that no exported
// file has; so what was disclosed before is of former ones. It is not where the
// device obeyed here and has the keys that go by now, nor for the recipient himself.
func (s *Service) exposure(ctx context.Context, p parting) (e exposure.Exposure, err error) {
	var known []joinery.Disclosure
	if p.state.Device.Disclosed {
		known, err = s.store.Disclosures(ctx, p.state.Device.ID)
	}
	e = p.state.Exposure(known)
	has := func(k joinery.KeySet) bool { return slices.Equal(k.Steps, p.state.KeySet.Steps) }
	if slices.ContainsFunc(p.sets, has) {
		return e, err
	}
	e = e.Former(p.state.RekeyKeyOutside())
	for i := range e.Times {
		if e.Times[i].By == "" && e.Times[i].Reference == p.order.ID.String() {
			e.Times[i].Former = false
		}
	}
	return e, err
}

// pack seals the keys of devices and signs what goes to a Join Server, or to a
// recipient.
func (s *Service) pack(ctx context.Context, to target, list []parting) ([]byte, error) {
	var in []keyring.HandoverIn
	for _, p := range list {
		row := seal.SealedRow{JoinEUI: p.order.Rekey.JoinEUI, DevEUI: p.state.Device.DevEUI, MACVersion: p.state.Device.MACVersion}
		for _, k := range p.sets {
			row.Root10, row.JoinNonceFloor = seal.RootNwkKey, floor(p.state)
			in = append(in, keyring.HandoverIn{KeySet: k, Row: row})
			if p.order.RekeyKey {
				row.Root10, row.JoinNonceFloor = seal.RootRekeyKey, 0
				in = append(in, keyring.HandoverIn{KeySet: k, Row: row})
			}
		}
	}
	if err := fewRows(list); err != nil {
		return nil, err
	}
	header, rows, err := s.keys.Handover(ctx, to.key, in)
	switch {
	case errors.Is(err, keyring.ErrNotServed):
		return nil, joinery.WrapError(joinery.CodeConflict, err, "this server's token does not wrap keys by the algorithm of the key that they go to, or not the keys of such devices; "+
			"where it knows OAEP with SHA-1 only, that key has to be opted in to it: 'joinctl rekey server change NAME --sha1', or a recipient that is added with --sha1")
	case errors.Is(err, keyring.ErrNoRoot):
		return nil, joinery.WrapError(joinery.CodeConflict, err, "one of these devices has no rekeying key: its root keys were imported, or nobody said how it rekeys")
	case err != nil:
		return nil, joinery.WrapError(joinery.CodeInternal, err, "the new root keys cannot be sealed")
	}
	h := rekeyfile.Handover{At: s.now().UTC().Truncate(time.Millisecond), To: to.name, Seal: header}
	for i, p := range list {
		d := rekeyfile.HandedOver{Order: p.order.ID.String(), Cookie: p.order.Rekey.Cookie, Profile: p.state.Device.Rekey.String()}
		if p.state.Device.Rekey == joinery.RekeyM {
			d.Serial = hex.EncodeToString(p.state.KeySet.Serial[:])
		}
		d.Exposure = &p.told
		for n, k := range p.sets {
			g := rekeyfile.Generation{Label: label(k), Row: rows[0]}
			g.Row.Line = uint64(i) + 1
			rows = rows[1:]
			if p.order.RekeyKey {
				rekey := rows[0]
				g.RekeyKey, rows = &rekey, rows[1:]
			}
			if n == 0 {
				d.Generation = g
			} else {
				d.Others = append(d.Others, g)
			}
		}
		h.Devices = append(h.Devices, d)
	}
	return s.sign(ctx, rekeyfile.FormatHandover, h)
}
