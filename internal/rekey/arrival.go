package rekey

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"joinery"
	"joinery/internal/exposure"
	"joinery/internal/keyring"
	"joinery/internal/rekeyfile"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Arrivals keeps what other Join Servers handed over. See the methods of the same
// names of the store.
type Arrivals interface {
	RangeOrg(ctx context.Context, joinEUI lorawan.EUI64) (joinery.OrgID, error)
	Arrive(ctx context.Context, a joinery.Arrival, limit int, entry joinery.AuditEntry) (joinery.Arrival, error)
	RefuseArrival(ctx context.Context, id joinery.ArrivalID, reason string, news []byte, entry joinery.AuditEntry) (refused bool, err error)
	ParkedArrivals(ctx context.Context, before time.Time, limit int) ([]joinery.Arrival, error)
	TakeArrival(ctx context.Context, in joinery.ArrivedDevice, entry joinery.AuditEntry) error
	TellArrival(ctx context.Context, id joinery.ArrivalID, told joinery.Told, at time.Time) error
	NoteArrivalJoined(ctx context.Context, id joinery.ArrivalID, news []byte, entry joinery.AuditEntry) error
	Arrival(ctx context.Context, id joinery.ArrivalID) (joinery.Arrival, error)
	Arrivals(ctx context.Context, org joinery.OrgID, after joinery.ArrivalID, limit int) ([]joinery.Arrival, error)
	ExpectedArrivals(ctx context.Context, from joinery.JoinServerID, now time.Time, limit int) ([]joinery.Arrival, error)
	JoinedArrivals(ctx context.Context, from joinery.JoinServerID, after joinery.ArrivalID, limit int) ([]joinery.Arrival, error)
	JoinedArrivalsOf(ctx context.Context, device joinery.DeviceID) ([]joinery.Arrival, error)
	CameBy(ctx context.Context, device joinery.DeviceID) (joinery.Arrival, error)
	ArrivalNews(ctx context.Context, from joinery.JoinServerID, after uint64, limit int) (list []joinery.ArrivalNews, newest joinery.ReceiptPlace, err error)
}

// Expectations keeps what organisations expect of other Join Servers.
type Expectations interface {
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
	Expect(ctx context.Context, x joinery.Expectation, limit int, entry joinery.AuditEntry) error
	EndExpectation(ctx context.Context, id joinery.ExpectationID, org joinery.OrgID, entry joinery.AuditEntry) error
	Expectations(ctx context.Context, org joinery.OrgID) ([]joinery.Expectation, error)
}

// Bounds of what comes.
const (
	// maxParked is how many devices of one Join Server may wait for one organisation to
	// accept them, parkedLife for how long since they were last offered.
	maxParked  = 10_000
	parkedLife = 90 * 24 * time.Hour
	// maxExpectations is the most of an organisation.
	maxExpectations = 1000
	// receiptPage is the most entries of a page of receipts.
	receiptPage = 100
)

// arrived is a device on its way in: how its keys were sealed, and what came of it.
type arrived struct {
	Seal   seal.Header          `json:"seal"`
	Device rekeyfile.HandedOver `json:"device"`
	// Signer is the thumbprint of the statement key that signed.
	Signer string `json:"signer,omitzero"`
}

// TakeOffer takes what a pinned Join Server hands over, which proved that it is from.
// Who holds a device's JoinEUI here decides: what his organisation expects is taken
// in, the rest is parked. Nothing is done twice, and what is not right of one device
// keeps no other out.
func (s *Service) TakeOffer(ctx context.Context, from joinery.JoinServer, file []byte) (rekeyfile.Offered, error) {
	return s.takeOffer(ctx, from, file, func(ctx context.Context, a joinery.Arrival) error {
		return s.settle(ctx, a)
	}, nil)
}

// TakeFile takes a hand-over that came as a file, for an organisation that accepts
// it with that: devices under JoinEUIs that it holds, of a pinned Join Server that
// may hand over into them.
func (s *Service) TakeFile(ctx context.Context, caller joinery.Caller, file []byte, b *joinery.Binding) (rekeyfile.Offered, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return rekeyfile.Offered{}, err
	}
	if err := checkBinding(b); err != nil {
		return rekeyfile.Offered{}, err
	}
	_, key, err := rekeyfile.Verify(file, rekeyfile.FormatHandover, nil)
	if err != nil {
		return rekeyfile.Offered{}, fileError("hand-over", err)
	}
	servers, err := s.store.JoinServers(ctx)
	if err != nil {
		return rekeyfile.Offered{}, err
	}
	n := slices.IndexFunc(servers, func(j joinery.JoinServer) bool { return j.ReceiptKey != nil && slices.Equal(j.ReceiptKey, key) })
	if n < 0 {
		return rekeyfile.Offered{}, joinery.Errorf(joinery.CodeForbidden, "no Join Server that is pinned here signed this hand-over")
	}
	return s.takeOffer(ctx, servers[n], file, func(ctx context.Context, a joinery.Arrival) error {
		return s.take(ctx, a, b, caller.Name)
	}, &org)
}

// takeOffer takes an offer in; accept is what becomes of a device that is parked.
// With only, devices of other organisations are refused as out of range.
func (s *Service) takeOffer(ctx context.Context, from joinery.JoinServer, file []byte, accept func(context.Context, joinery.Arrival) error, only *joinery.OrgID) (out rekeyfile.Offered, err error) {
	out = rekeyfile.Offered{Format: rekeyfile.FormatOffered, Results: []rekeyfile.Told{}}
	if from.ReceiptKey == nil {
		return out, joinery.Errorf(joinery.CodeForbidden, "no statement key is pinned of this Join Server")
	}
	var h rekeyfile.Handover
	if _, err := rekeyfile.Open(file, rekeyfile.FormatHandover, from.ReceiptKey, &h); err != nil {
		return out, fileError("hand-over", err)
	}
	// The newest key may be pinned for OAEP with SHA-1, which gives it another name.
	ours := h.Seal.Check() == nil && (slices.Contains(s.keys.Generations().Transport, h.Seal.KID) || s.keys.TransportKey().Named(h.Seal))
	for _, d := range h.Devices {
		told := rekeyfile.Told{Order: d.Order, State: rekeyfile.StateRefused}
		org, reason, err := s.admit(ctx, from, d)
		switch {
		case err != nil:
			return out, err
		case reason == "" && only != nil && org != *only:
			reason = rekeyfile.ReasonRange
		case reason == "" && !ours:
			reason = rekeyfile.ReasonSeal
		}
		if reason != "" {
			told.Reason = reason
			out.Results = append(out.Results, told)
			continue
		}
		if told, err = s.arrive(ctx, from, org, h, d, accept); err != nil {
			return out, err
		}
		out.Results = append(out.Results, told)
	}
	return out, nil
}

// admit tells for whom a device is, or why it cannot be for anybody.
func (s *Service) admit(ctx context.Context, from joinery.JoinServer, d rekeyfile.HandedOver) (org joinery.OrgID, reason string, err error) {
	switch {
	case d.Check() != nil:
		return 0, rekeyfile.ReasonMalformed, nil
	case len(d.Others) > joinery.MaxRekeyCandidates:
		return 0, rekeyfile.ReasonExhausted, nil
	case !within(from.Ours, d.Row.JoinEUI):
		return 0, rekeyfile.ReasonRange, nil
	}
	if org, err = s.store.RangeOrg(ctx, d.Row.JoinEUI); err == nil && org == 0 {
		reason = rekeyfile.ReasonRange
	}
	return org, reason, err
}

// arrive takes one device up.
func (s *Service) arrive(
	ctx context.Context, from joinery.JoinServer, org joinery.OrgID, h rekeyfile.Handover, d rekeyfile.HandedOver,
	accept func(context.Context, joinery.Arrival) error,
) (told rekeyfile.Told, err error) {
	now := s.now().UTC().Truncate(time.Millisecond)
	told = rekeyfile.Told{Order: d.Order, State: rekeyfile.StateRefused}
	sum := sha256.Sum256(from.ReceiptKey)
	signer := base64.RawURLEncoding.EncodeToString(sum[:])
	content, err := json.Marshal(arrived{h.Seal, d, signer})
	if err != nil {
		return told, err
	}
	a := joinery.Arrival{
		ID: joinery.NewArrivalID(), From: from.ID, Server: from.Name, Ref: d.Order, Org: org, JoinEUI: d.Row.JoinEUI, DevEUI: d.Row.DevEUI, Cookie: d.Cookie,
		State: joinery.ArrivalParked, Reason: rekeyfile.ReasonSeal, Content: content, OfferedAt: h.At.UTC(), At: now, ChangedAt: now,
	}
	a, err = s.store.Arrive(ctx, a, maxParked, s.arrivalEntry(a, joinery.AuditRekeyArrived, from.Name))
	switch joinery.CodeOf(err) {
	case "":
	case joinery.CodeConflict:
		told.Reason = rekeyfile.ReasonConflict
		return told, nil
	case joinery.CodeExhausted:
		told.Reason = rekeyfile.ReasonFull
		return told, nil
	default:
		return told, err
	}
	more := func(g rekeyfile.Generation) bool { return a.Labels[g.Label] == 0 }
	if a.State == joinery.ArrivalParked {
		err = accept(ctx, a)
	} else if a.State == joinery.ArrivalTaken && slices.ContainsFunc(d.Generations(), more) { // it came with more key sets
		a.Content = content
		err = s.take(ctx, a, nil, from.Name)
	}
	if err != nil {
		return told, err
	}
	if a.State == joinery.ArrivalTaken || a.State == joinery.ArrivalJoined { // more may be known by now of who could read its root keys
		if err = s.store.TellArrival(ctx, a.ID, toldOf(a.Server, arrived{h.Seal, d, signer}, h.At.UTC()), now); err != nil {
			return told, err
		}
	}
	if a, err = s.store.Arrival(ctx, a.ID); err != nil {
		return told, err
	}
	return rekeyfile.Told{Order: d.Order, State: string(a.State), Reason: a.Reason}, nil
}

// settle takes an arrival that is parked, if its organisation expects it.
func (s *Service) settle(ctx context.Context, a joinery.Arrival) error {
	list, err := s.store.Expectations(ctx, a.Org)
	if err != nil {
		return err
	}
	for _, x := range list {
		if x.From == a.From && x.Devices.Contains(a.DevEUI) && s.now().Before(x.ExpiresAt) {
			return s.take(ctx, a, x.Binding, x.By)
		}
	}
	return nil
}

// settleExpected takes what is parked and expected: of one Join Server, or of all.
func (s *Service) settleExpected(ctx context.Context, from joinery.JoinServerID) error {
	for range maxParked / receiptPage {
		list, err := s.store.ExpectedArrivals(ctx, from, s.now(), receiptPage)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, a := range list {
			if err := s.settle(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// take makes a device of an arrival, or refuses it. What is taken already gets the
// key sets that it has not yet.
func (s *Service) take(ctx context.Context, a joinery.Arrival, b *joinery.Binding, by string) error {
	in, reason, err := s.open(ctx, a)
	if err != nil {
		return err
	}
	if reason == "" {
		in.Binding = b
		if in.News, err = entryOf(rekeyfile.Told{Order: a.Ref, State: rekeyfile.StateTaken}); err != nil {
			return err
		}
		entry := s.arrivalEntry(a, joinery.AuditRekeyTaken, by)
		entry.Detail["key_sets"] = strconv.Itoa(len(in.Keys))
		if in.Keys[0].Held.ID != 0 {
			entry.Detail["rekeying_key"] = "came with it"
		}
		switch err := s.store.TakeArrival(ctx, in, entry); joinery.CodeOf(err) {
		case "":
			return nil
		case joinery.CodeConflict:
			reason = rekeyfile.ReasonConflict
		case joinery.CodeExhausted:
			reason = rekeyfile.ReasonExhausted
		case joinery.CodeInvalid: // of this device: it keeps no other out
			reason = rekeyfile.ReasonMalformed
		default:
			return err
		}
	}
	if a.State != joinery.ArrivalParked { // what it has stays
		return nil
	}
	_, err = s.refuse(ctx, a, reason, by)
	return err
}

// refuse ends an arrival that is parked, and tells who handed it over. What is not
// parked any more stays, and refused is false.
func (s *Service) refuse(ctx context.Context, a joinery.Arrival, reason, by string) (refused bool, err error) {
	news, err := entryOf(rekeyfile.Told{Order: a.Ref, State: rekeyfile.StateRefused, Reason: reason})
	if err != nil {
		return false, err
	}
	entry := s.arrivalEntry(a, joinery.AuditRekeyRefused, by)
	entry.Detail["reason"] = reason
	return s.store.RefuseArrival(ctx, a.ID, reason, news, entry)
}

// RejectArrivals refuses devices that are parked for the caller's organisation: their
// keys are forgotten, and who handed them over is told. done counts them. CodeNotFound
// where one is not for that organisation, and nothing is done; CodeConflict where one
// is not parked any more.
func (s *Service) RejectArrivals(ctx context.Context, caller joinery.Caller, ids []joinery.ArrivalID) (done int, err error) {
	if len(ids) > MaxBatch {
		return 0, tooMany()
	}
	org, err := s.acting(ctx, caller)
	if err != nil {
		return 0, err
	}
	list := make([]joinery.Arrival, len(ids))
	for i, id := range ids {
		list[i], err = s.store.Arrival(ctx, id)
		if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && list[i].Org != org {
			err = joinery.Errorf(joinery.CodeNotFound, "no such device was handed over to your organisation")
		}
		if err != nil {
			return 0, err
		}
	}
	for _, a := range list {
		refused, err := s.refuse(ctx, a, rekeyfile.ReasonRejected, caller.Name)
		if err == nil && !refused && a.Reason != rekeyfile.ReasonRejected {
			err = joinery.Errorf(joinery.CodeConflict, "device %s is not parked any more: see how it stands", a.DevEUI)
		}
		if err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}

// expireParked refuses what nobody accepted in time: its keys are forgotten.
func (s *Service) expireParked(ctx context.Context) error {
	list, err := s.store.ParkedArrivals(ctx, s.now().Add(-parkedLife), receiptPage)
	for _, a := range list {
		if err == nil {
			_, err = s.refuse(ctx, a, rekeyfile.ReasonExpired, "server")
		}
	}
	return err
}

func entryOf(t rekeyfile.Told) ([]byte, error) { return json.Marshal(rekeyfile.Entry{Told: &t}) }

// open opens the keys of an arrival and seals each to the key set that it becomes;
// reason tells why that cannot be.
func (s *Service) open(ctx context.Context, a joinery.Arrival) (in joinery.ArrivedDevice, reason string, err error) {
	var came arrived
	if err := json.Unmarshal(a.Content, &came, json.RejectUnknownMembers(true)); err != nil || came.Device.Check() != nil {
		return in, rekeyfile.ReasonMalformed, nil
	}
	d, now := came.Device, s.now().UTC().Truncate(time.Millisecond)
	in = joinery.ArrivedDevice{Arrival: a.ID, Serial: d.Serial, Device: joinery.Device{
		ID: joinery.NewDeviceID(), JoinEUI: a.JoinEUI, DevEUI: a.DevEUI, MACVersion: d.Row.MACVersion,
		Maker: a.Org, Ownership: joinery.Ownership{Org: a.Org, Since: now}, CreatedAt: now,
	}}
	if d.RekeyKey != nil {
		if err := in.Device.Rekey.UnmarshalText([]byte(d.Profile)); err != nil {
			return in, rekeyfile.ReasonMalformed, nil
		}
	}
	told := toldOf(a.Server, came, a.OfferedAt)
	in.Told = &told
	var roots []keyring.RootsIn
	var places []*joinery.KeySet
	in.Keys = make([]joinery.ArrivedKeys, len(d.Generations()))
	for i, g := range d.Generations() {
		k := &in.Keys[i]
		k.Label = g.Label
		k.KeySet = joinery.KeySet{
			ID: joinery.NewKeySetID(), DeviceID: in.Device.ID, DevEUI: a.DevEUI, Origin: joinery.OriginSealed, Root10: joinery.NwkKey,
			Nonces: joinery.Nonces{JoinNonce: g.Row.JoinNonceFloor},
		}
		roots, places = append(roots, keyring.RootsIn{KeySet: k.KeySet.ID, Row: g.Row}), append(places, &k.KeySet)
		if g.RekeyKey != nil {
			k.Held = joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: in.Device.ID, DevEUI: a.DevEUI, Origin: joinery.OriginSealed}
			roots, places = append(roots, keyring.RootsIn{KeySet: k.Held.ID, Row: *g.RekeyKey}), append(places, &k.Held)
		}
	}
	out, err := s.keys.SealRoots(ctx, came.Seal, roots)
	switch {
	case errors.Is(err, keyring.ErrTransport):
		return in, rekeyfile.ReasonSeal, nil
	case errors.Is(err, keyring.ErrNotServed):
		return in, rekeyfile.ReasonNotServed, nil
	case errors.Is(err, keyring.ErrToken):
		return in, "", joinery.WrapError(joinery.CodeUnavailable, err, "the keys of this server cannot be reached now; try again later")
	case err != nil:
		return in, "", err
	}
	for i, o := range out {
		if o.Err != nil {
			return in, rekeyfile.ReasonSeal, nil
		}
		places[i].Nwk, places[i].App = o.Nwk, o.App
	}
	return in, "", nil
}

// toldOf is what a Join Server told of a device as it handed it over. Who tells nothing
// may have got the root keys from anywhere.
func toldOf(server string, came arrived, asOf time.Time) joinery.Told {
	told := joinery.Told{Way: joinery.ToldHandover, Server: server, Signer: came.Signer, AsOf: asOf, Exposure: exposure.Exposure{Outside: true}}
	if came.Device.Exposure != nil {
		told.Exposure = *came.Device.Exposure
	}
	return told
}

// arrivalEntry makes an audit entry about an arrival.
func (s *Service) arrivalEntry(a joinery.Arrival, event joinery.AuditEvent, by string) joinery.AuditEntry {
	return joinery.AuditEntry{
		At: s.now().UTC().Truncate(time.Millisecond), Event: event, Actor: by, Org: a.Org, Device: a.Device,
		Detail: map[string]string{
			"arrival": a.ID.String(), "from": a.Server, "order": a.Ref, "cookie": a.Cookie.String(),
			"join_eui": a.JoinEUI.String(), "dev_eui": a.DevEUI.String(),
		},
	}
}

// Tell gives a Join Server, which proved that it is from, the signed page of its
// receipts behind after. ErrAhead where there are not so many, or where after is of
// another epoch: this server came back from a backup.
func (s *Service) Tell(ctx context.Context, from joinery.JoinServer, after joinery.ReceiptPlace) ([]byte, error) {
	if from.ReceiptKey == nil {
		return nil, joinery.Errorf(joinery.CodeForbidden, "no statement key is pinned of this Join Server")
	}
	// Before anything gets a number: what came back from a backup would give again
	// those that it lost, and who read them could not be told apart.
	_, newest, err := s.store.ArrivalNews(ctx, from.ID, after.N, 1)
	if err != nil {
		return nil, err
	}
	if after.N > 0 && (after.Epoch != newest.Epoch || after.N > newest.N) {
		return nil, ErrAhead
	}
	if err := s.settleExpected(ctx, from.ID); err != nil {
		return nil, err
	}
	if err := s.noteJoins(ctx, from); err != nil {
		return nil, err
	}
	was := newest.Epoch
	news, newest, err := s.store.ArrivalNews(ctx, from.ID, after.N, receiptPage)
	if err != nil {
		return nil, err
	}
	if newest.Epoch != was { // another server just came back from a backup, on this database
		return nil, ErrAhead
	}
	sum := sha256.Sum256(from.ReceiptKey)
	r := rekeyfile.Receipt{At: s.now().UTC().Truncate(time.Second), For: sum[:], Epoch: newest.Epoch, After: after.N, Next: after.N, Joins: []rekeyfile.Joined{}}
	for _, n := range news {
		var e rekeyfile.Entry
		if err := json.Unmarshal(n.Line, &e); err != nil {
			return nil, err
		}
		if e.Told != nil {
			r.Told = append(r.Told, *e.Told)
		} else if e.Join != nil {
			r.Joins = append(r.Joins, *e.Join)
		}
		r.Next = n.N
	}
	r.More = r.Next < newest.N
	return s.sign(ctx, rekeyfile.FormatReceipt, r)
}

// Arrivals lists what was handed over for the caller's organisation; to an operator
// who names none, all.
func (s *Service) Arrivals(ctx context.Context, caller joinery.Caller, after joinery.ArrivalID, limit int) ([]joinery.Arrival, error) {
	if !caller.Operator && caller.Org == 0 {
		return nil, nil
	}
	return s.store.Arrivals(ctx, caller.Org, after, limit)
}
