// Package rekey has devices derive new root keys inside their elements and join at
// another Join Server. An order goes from armed to sent to confirmed, or ends
// cancelled or expired; the instruction itself travels in join-accepts, which
// package activation makes, or in a ticket to the bench. The new root keys go
// sealed to the Join Server that the order names, and to nobody else.
package rekey

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/rekeyfile"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Store keeps orders. Absent things are CodeNotFound; what was decided by a state
// that is gone is CodeConflict or joinery.ErrSwapLost.
type Store interface {
	RekeyingDevice(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	RekeyOrder(ctx context.Context, id joinery.RekeyID) (joinery.RekeyOrder, error)
	RekeyOrders(ctx context.Context, device joinery.DeviceID) ([]joinery.RekeyOrder, error)
	RekeyRequests(ctx context.Context, org joinery.OrgID, after joinery.RekeyID, limit int) ([]joinery.RekeyOrder, error)
	ActivationsBefore(ctx context.Context, device joinery.DeviceID, before joinery.ActivationID, limit int) ([]joinery.Activation, error)
}

// Changes changes orders, each with its audit entries.
type Changes interface {
	SetRekeyProfile(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, p joinery.RekeyProfile, a joinery.AuditEntry) error
	ArmRekey(ctx context.Context, o joinery.RekeyOrder, to joinery.JoinServerID, a ...joinery.AuditEntry) error
	EndRekey(ctx context.Context, id joinery.RekeyID, owner joinery.OrgID, state joinery.RekeyState, a ...joinery.AuditEntry) error
	NoteRekeySent(ctx context.Context, s joinery.ActivationState, o joinery.RekeyOrder, next joinery.KeySetID, at time.Time, a joinery.AuditEntry) error
	Handovers
}

// Handovers writes, before new root keys leave, that they do.
type Handovers interface {
	// Disclosures gives all that is known of a device's, which goes with it.
	Disclosures(ctx context.Context, id joinery.DeviceID) ([]joinery.Disclosure, error)
	NoteHandover(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) error
	// DiscloseRekey is that for a recipient of the owner's: the disclosure is never
	// forgotten. next becomes the key set to which the order leads, unless there is
	// one. joinery.ErrSwapLost where the device moved, or the order ended, meanwhile.
	DiscloseRekey(ctx context.Context, s joinery.ActivationState, o joinery.RekeyOrder, next joinery.KeySetID, handedOver, exposed joinery.AuditEntry) error
	// ApproveRekeys arms all or none.
	ApproveRekeys(ctx context.Context, orders []joinery.RekeyOrder, keys map[joinery.JoinServerID][]byte, entries []joinery.AuditEntry) error
}

// Servers keeps the pinned Join Servers.
type Servers interface {
	AddJoinServer(ctx context.Context, j joinery.JoinServer, a joinery.AuditEntry) error
	ChangeJoinServer(ctx context.Context, j joinery.JoinServer, former string, a joinery.AuditEntry) error
	FormerJoinServer(ctx context.Context, receiptKey []byte) (joinery.JoinServerID, error)
	RemoveJoinServer(ctx context.Context, id joinery.JoinServerID, a joinery.AuditEntry) error
	JoinServers(ctx context.Context) ([]joinery.JoinServer, error)
}

// PinEnds ends what pins that were removed or changed leave, in many transactions where
// it is much. See the methods of the same names of the store.
type PinEnds interface {
	EndUnpinned(ctx context.Context, actor string, at time.Time) error
	RefuseRepinned(ctx context.Context, id joinery.JoinServerID, thumbprint, actor string, at time.Time) error
}

// State is what a Service needs of the state.
type State interface {
	Store
	Changes
	Servers
	PinEnds
	Passages
	Arrivals
	Expectations
	Batches
}

// Keys are the verbs of custody that rekeying uses; see keyring.Keyring.
type Keys interface {
	Handover(ctx context.Context, to seal.PublicKey, in []keyring.HandoverIn) (seal.Header, []seal.SealedRow, error)
	AuthMAC(ctx context.Context, ks joinery.KeySet) ([32]byte, error)
	SignStatement(ctx context.Context, content []byte) (signature, public []byte, err error)
	TransportKey() seal.PublicKey
	SealRoots(ctx context.Context, h seal.Header, in []keyring.RootsIn) ([]keyring.RootsOut, error)
	AcceptHash(ctx context.Context, ks joinery.KeySet, a joinery.Activation) ([32]byte, error)
	Generations() keyring.Generations
}

// Authority says who may let root keys of an organisation's devices go, and to whom:
// what exporting them needs. That the caller holds the devices was looked at.
type Authority interface {
	// NeedsAnother tells whether another person has to agree to what caller asks for;
	// CodeForbidden where he may not ask.
	NeedsAnother(ctx context.Context, caller joinery.Caller, org joinery.OrgID) (bool, error)
	// Another refuses who is not another person than the one who asked.
	Another(ctx context.Context, caller joinery.Caller, org joinery.OrgID, asked joinery.PersonID) error
	// RecipientOf finds a recipient of an organisation to which something may be
	// disclosed now.
	RecipientOf(ctx context.Context, org joinery.OrgID, id joinery.RecipientID) (joinery.Recipient, error)
	// Acting gives the organisation for which a caller acts.
	Acting(ctx context.Context, caller joinery.Caller) (joinery.OrgID, error)
	// Held refuses to let anything go while the database may not be the newest state:
	// an order that it has as open may have been cancelled since.
	Held() error
}

// Service is the rules of rekeying.
type Service struct {
	store     State
	keys      Keys
	authority Authority
	served    func(lorawan.EUI64) bool
	log       *slog.Logger
	now       func() time.Time
	wake      chan struct{} // has room for one: something is to be handed over
	// wakeBatches likewise: devices of a batch are to be armed.
	wakeBatches chan struct{}
	page        int // of arrivals that are looked at for joins
	turns       turns
	pins        pins
}

// New makes a Service. served tells for which JoinEUIs this server answers itself.
func New(store State, keys Keys, a Authority, served func(lorawan.EUI64) bool, log *slog.Logger, now func() time.Time) *Service {
	return &Service{
		store: store, keys: keys, authority: a, served: served, log: log, now: now,
		wake: make(chan struct{}, 1), wakeBatches: make(chan struct{}, 1), page: receiptPage,
	}
}

// Bounds.
const (
	// DefaultLife is how long an order is sent, unless somebody says otherwise;
	// MaxLife the longest.
	DefaultLife = 90 * 24 * time.Hour
	MaxLife     = 366 * 24 * time.Hour
	// MaxBatch is the most devices of one ticket, hand-over or receipt.
	MaxBatch = rekeyfile.MaxDevices
	// nonceMargin is how far above the last JoinNonce the new Join Server begins:
	// until the device goes there it may join here as often as it has DevNonces
	// under one JoinEUI.
	nonceMargin lorawan.JoinNonce = 1 << 16
)

// Status is how the rekeying of a device stands.
type Status struct {
	Device joinery.Device
	// Orders are newest first, each with its state at this time.
	Orders []joinery.RekeyOrder
	// Candidates is how many key sets it may have besides the one that it is known
	// to have; Generation how often it is known to have been rekeyed.
	Candidates int
	Generation int
}

// Status tells how the rekeying of a device stands.
func (s *Service) Status(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (Status, error) {
	state, err := s.device(ctx, caller, id)
	if err != nil {
		return Status{}, err
	}
	orders, err := s.store.RekeyOrders(ctx, id)
	for i := range orders {
		orders[i].State = orders[i].StateAt(s.now())
	}
	return Status{state.Device, orders, len(state.Rekeying.Candidates), len(state.KeySet.Steps)}, err
}

// SetProfile says how a device rekeys, by its owner's word: where the element's
// manifest or who imported it says how, that stands. A device that is told to rekey
// and cannot ignores it, and loses the network's list of channels for it; so by the
// owner's word alone it is told joinery.RekeyTries times.
func (s *Service) SetProfile(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, p joinery.RekeyProfile) error {
	state, err := s.device(ctx, caller, id)
	if err != nil || state.Device.Rekey == p {
		return err
	}
	if state.Device.Rekey != 0 && state.Device.RekeyWord > joinery.RekeyByOwner {
		return joinery.Errorf(joinery.CodeConflict, "how this device rekeys stands by the word of its %s: profile %s", state.Device.RekeyWord, state.Device.Rekey)
	}
	if p != 0 && !state.KeySet.CanRekey() {
		return joinery.Errorf(joinery.CodeInvalid, "its root keys were imported without a rekeying key: only elements whose keys derive from a master key, or were handed over with it, can be rekeyed from here")
	}
	return s.store.SetRekeyProfile(ctx, id, state.Device.Ownership.Org, p, s.entry(caller, joinery.AuditRekeyProfile, state.Device, map[string]string{"profile": p.String()}))
}

// Arm is an order to rekey a device.
type Arm struct {
	Device  joinery.DeviceID
	JoinEUI lorawan.EUI64 // at which it is to join
	// To is the pinned Join Server to which the new root keys go, or Recipient the
	// recipient of the owner's, and then they are disclosed.
	To        joinery.JoinServerID
	Recipient joinery.RecipientID
	Life      time.Duration // zero: DefaultLife
	// RekeyKey has the next rekeying key go to the Join Server, too, so that the
	// device can be rekeyed from there on. Whoever has it can compute all root keys
	// that come after.
	RekeyKey bool
}

// Arm gives an order. Its instruction goes with the next join-accept of the device,
// or the order waits for another person first: see Approve.
func (s *Service) Arm(ctx context.Context, caller joinery.Caller, a Arm) (o joinery.RekeyOrder, err error) {
	if err := s.checkArm(&a); err != nil {
		return o, err
	}
	owner, err := s.authority.Acting(ctx, caller)
	if err != nil {
		return o, err
	}
	state, err := s.deviceOf(ctx, caller, owner, a.Device)
	if err != nil {
		return o, err
	}
	to, err := s.targetFor(ctx, owner, a)
	if err != nil {
		return o, err
	}
	if err := s.rekeyable(ctx, state); err != nil {
		return o, err
	}
	another, err := s.authority.NeedsAnother(ctx, caller, owner)
	if err != nil {
		return o, err
	}
	if state.KeySet.Held.KeySet != 0 {
		if err := s.noteJoinsOf(ctx, a.Device); err != nil {
			return o, err
		}
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	o = joinery.RekeyOrder{
		ID: joinery.NewRekeyID(), Device: a.Device, State: joinery.RekeyArmed, Rekey: lorawan.Rekey{JoinEUI: a.JoinEUI},
		Server: a.To, To: to.name, Recipient: a.Recipient, Thumbprint: to.thumbprint, RekeyKey: a.RekeyKey,
		Owner: owner, By: caller.Name, Person: caller.Person, At: now, ArmedAt: now, ExpiresAt: now.Add(a.Life),
	}
	defer s.hurry()
	rand.Read(o.Rekey.Cookie[:]) // never fails (crypto/rand)
	event := joinery.AuditRekeyArmed
	if another {
		o.State, o.ArmedAt, event = joinery.RekeyRequested, time.Time{}, joinery.AuditRekeyRequested
	}
	if err := s.store.ArmRekey(ctx, o, a.To, s.orderEntry(caller, event, state.Device, o)); err != nil {
		return o, err
	}
	// As it is kept it says how its hand-over stands, where this server sees to that.
	if kept, err := s.store.RekeyOrder(ctx, o.ID); err == nil {
		o = kept
	}
	return o, nil // it is armed, whatever that read gave
}

// checkArm checks an order by itself, and says how long it lives where that was not.
func (s *Service) checkArm(a *Arm) error {
	if a.Life == 0 {
		a.Life = DefaultLife
	}
	switch {
	case a.JoinEUI.IsZero():
		return joinery.Errorf(joinery.CodeInvalid, "joinEUI: want the JoinEUI at which the device is to join")
	case (a.To == 0) == (a.Recipient == 0):
		return joinery.Errorf(joinery.CodeInvalid, "to: name a pinned Join Server or a recipient, one of the two")
	case a.RekeyKey && a.Recipient != 0:
		return joinery.Errorf(joinery.CodeInvalid, "rekeyKey: rekeying keys go to pinned Join Servers alone")
	case a.Life < 0 || a.Life > MaxLife:
		return joinery.Errorf(joinery.CodeInvalid, "expiry: want at most %d days from now", int(MaxLife.Hours()/24))
	}
	return nil
}

// targetFor finds where the new root keys of an order go, and refuses a JoinEUI that
// is not its own, or is this server's by now.
func (s *Service) targetFor(ctx context.Context, owner joinery.OrgID, a Arm) (target, error) {
	if s.served(a.JoinEUI) {
		return target{}, joinery.Errorf(joinery.CodeInvalid, "joinEUI: this Join Server answers for it itself; name one of the other Join Server's")
	}
	to, err := s.target(ctx, owner, a.To, a.Recipient)
	if err == nil && len(to.ranges) > 0 && !within(to.ranges, a.JoinEUI) {
		err = joinery.Errorf(joinery.CodeInvalid, "joinEUI: it is none of %s's", to.name)
	}
	return to, err
}

// rekeyable tells why a device cannot be rekeyed now, or nil.
func (s *Service) rekeyable(ctx context.Context, state joinery.ActivationState) error {
	switch {
	case state.Device.Ownership.Released:
		return released(state.Device)
	case state.Device.Rekey == 0:
		return joinery.Errorf(joinery.CodeConflict, "nobody said that this device rekeys: say by which profile, if its element can")
	case !state.KeySet.CanRekey():
		return joinery.Errorf(joinery.CodeConflict, "its root keys were imported, and no rekeying key came with them")
	case state.KeySet.Nonces.JoinNonce > lorawan.MaxJoinNonce-2*nonceMargin:
		return joinery.Errorf(joinery.CodeExhausted, "it has too few JoinNonces left to go on elsewhere")
	case state.Device.Rekey != joinery.RekeyM:
		return nil
	case state.KeySet.Serial == [joinery.SerialLen]byte{}:
		return joinery.Errorf(joinery.CodeConflict, "its manifest has no serial number of a chip, which profile M derives with")
	}
	_, err := s.keys.AuthMAC(ctx, state.KeySet)
	switch {
	case errors.Is(err, keyring.ErrNotServed) || errors.Is(err, keyring.ErrNoRoot):
		return joinery.WrapError(joinery.CodeConflict, err, "the keyring does not serve profile M")
	case err != nil: // that the keys are not at hand is nothing that the device can do about
		return joinery.WrapError(joinery.CodeUnavailable, err, "the keys are not at hand; try again")
	}
	return nil
}

// released refuses a device that its owner let go: nobody holds it, so nobody may send
// its keys away, though it stands under the operator's organisation meanwhile.
func released(d joinery.Device) error {
	return joinery.Errorf(joinery.CodeConflict, "device %s was released, and nobody holds it until somebody claims it", d.DevEUI)
}

// Cancel ends the newest order of a device. What was sent may still be obeyed, and is
// served as before.
func (s *Service) Cancel(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
	state, err := s.device(ctx, caller, id)
	if err != nil {
		return err
	}
	orders, err := s.store.RekeyOrders(ctx, id) // one that waits for approval, too
	if err == nil && len(orders) == 0 {
		err = noOrder()
	}
	if err != nil {
		return err
	}
	return s.end(ctx, caller, state, orders[0], joinery.RekeyCancelled, joinery.AuditRekeyCancelled)
}

// Confirm takes the owner's word that the device joined at the other Join Server by
// its newest order. It is refused here from then on.
func (s *Service) Confirm(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
	state, err := s.device(ctx, caller, id)
	if err == nil && state.Rekeying.Order == nil {
		err = noOrder()
	}
	if err != nil {
		return err
	}
	return s.end(ctx, caller, state, *state.Rekeying.Order, joinery.RekeyConfirmed, joinery.AuditRekeyConfirmed)
}

func noOrder() error {
	return joinery.Errorf(joinery.CodeConflict, "there is no order to rekey this device")
}

func (s *Service) end(ctx context.Context, caller joinery.Caller, state joinery.ActivationState, o joinery.RekeyOrder, to joinery.RekeyState, event joinery.AuditEvent) error {
	entry := s.orderEntry(caller, event, state.Device, o)
	entry.Detail["by"] = "owner"
	return s.store.EndRekey(ctx, o.ID, state.Device.Ownership.Org, to, entry)
}

// Servers lists the pinned Join Servers.
func (s *Service) Servers(ctx context.Context) ([]joinery.JoinServer, error) {
	return s.store.JoinServers(ctx)
}

// StatementKey gives the key that verifies what this server signs, DER.
func (s *Service) StatementKey(ctx context.Context) (public []byte, err error) {
	_, public, err = s.keys.SignStatement(ctx, nil)
	return public, err
}

// Unpin removes a pinned Join Server.
func (s *Service) Unpin(ctx context.Context, caller joinery.Caller, id joinery.JoinServerID) error {
	if err := caller.RequireOperator(); err != nil {
		return err
	}
	defer s.pins.forget()
	err := s.store.RemoveJoinServer(ctx, id, s.entry(caller, joinery.AuditJoinServerRemoved, joinery.Device{}, map[string]string{"server": id.String()}))
	if err == nil {
		err = s.settlePins(context.WithoutCancel(ctx), caller.Name)
	}
	return err
}

func (s *Service) server(ctx context.Context, id joinery.JoinServerID) (joinery.JoinServer, error) {
	list, err := s.store.JoinServers(ctx)
	for _, j := range list {
		if j.ID == id {
			return j, nil
		}
	}
	if err == nil {
		err = joinery.Errorf(joinery.CodeNotFound, "no such Join Server is pinned")
	}
	return joinery.JoinServer{}, err
}

// device finds a device that caller owns; another's is absent.
func (s *Service) device(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (joinery.ActivationState, error) {
	state, err := s.store.RekeyingDevice(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(state.Device.Ownership.Org) {
		return joinery.ActivationState{}, &joinery.Attempted{Device: id, Err: joinery.Errorf(joinery.CodeNotFound, "no such device")}
	}
	return state, err
}

// deviceOf is device, for what sends its keys away: the operator has no right of his own
// to them. He acts for the organisation that holds it, by name, and that stands in the
// log.
func (s *Service) deviceOf(ctx context.Context, caller joinery.Caller, org joinery.OrgID, id joinery.DeviceID) (joinery.ActivationState, error) {
	state, err := s.device(ctx, caller, id)
	if err == nil && state.Device.Ownership.Org != org {
		return joinery.ActivationState{}, &joinery.Attempted{Device: id, Err: joinery.Errorf(joinery.CodeNotFound, "the organisation for which you act holds no such device")}
	}
	return state, err
}

func (s *Service) entry(caller joinery.Caller, event joinery.AuditEvent, d joinery.Device, detail map[string]string) joinery.AuditEntry {
	return joinery.AuditEntry{At: s.now().UTC().Truncate(time.Millisecond), Event: event, Actor: caller.Name, Org: d.Ownership.Org, Device: d.ID, Detail: detail}
}

func (s *Service) orderEntry(caller joinery.Caller, event joinery.AuditEvent, d joinery.Device, o joinery.RekeyOrder) joinery.AuditEntry {
	detail := map[string]string{
		"order": o.ID.String(), "cookie": o.Rekey.Cookie.String(), "new_join_eui": o.Rekey.JoinEUI.String(), "key": o.Thumbprint,
	}
	nameServer(detail, o.Server, o.To)
	if o.RekeyKey {
		detail["rekeying_key"] = "goes with it"
	}
	return s.entry(caller, event, d, detail)
}

// nameServer says in the log to which pinned Join Server keys are to go. What an
// organisation calls a recipient is its own word, and later owners read the entry: they
// have the key's thumbprint.
func nameServer(detail map[string]string, server joinery.JoinServerID, to string) {
	if server != 0 {
		detail["to"] = to
	}
}

// sign makes a signed file.
func (s *Service) sign(ctx context.Context, format string, payload any) ([]byte, error) {
	return rekeyfile.Sign(format, payload, func(content []byte) (signature, public []byte, err error) {
		return s.keys.SignStatement(ctx, content)
	})
}
