package calls

import (
	"context"
	"time"

	"joinery"
	"joinery/internal/activation"
	"joinery/internal/claim"
	"joinery/internal/fleet"
	"joinery/internal/keyring"
	"joinery/internal/provisioning"
	"joinery/internal/seal"
	"joinery/internal/store"
	"joinery/lorawan"
)

// steps counts the calls that a flow makes on store and keyring, and fails one
// of them: before it does anything, or after it took effect.
type steps struct {
	calls  []string
	failAt int // index of the call; -1: none
	after  bool
	// done, where it is set, is called after each call that was made.
	done func()
}

// errStep is what a store says that is away.
var errStep = joinery.Errorf(joinery.CodeUnavailable, "the step was made to fail")

func step[T any](s *steps, name string, call func() (T, error)) (T, error) {
	at := len(s.calls)
	s.calls = append(s.calls, name)
	var none T
	if at == s.failAt && !s.after {
		return none, errStep
	}
	got, err := call()
	if s.done != nil {
		s.done()
	}
	if at == s.failAt && err == nil {
		return none, errStep
	}
	return got, err
}

func act(s *steps, name string, call func() error) error {
	_, err := step(s, name, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// stepStore is the store with each of its calls a step. It embeds nothing: a
// call that is new in an interface does not compile until it is a step, too.
type stepStore struct {
	db *store.DB
	s  *steps
}

// stepKeys is the same of the keyring.
type stepKeys struct {
	k keyring.Verbs
	s *steps
}

var (
	_ activation.Store      = stepStore{}
	_ claim.Store           = stepStore{}
	_ claim.Registry        = stepStore{}
	_ claim.NetworkStore    = stepStore{}
	_ provisioning.Store    = stepStore{}
	_ provisioning.Registry = stepStore{}
	_ fleet.Store           = stepStore{}
	_ activation.Keys       = stepKeys{}
	_ claim.Tokens          = stepKeys{}
	_ provisioning.Keys     = stepKeys{}
	_ fleet.Keys            = stepKeys{}
)

func (x stepStore) LoadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (joinery.ActivationState, error) {
	return step(x.s, "LoadActivation", func() (joinery.ActivationState, error) { return x.db.LoadActivation(ctx, joinEUI, devEUI) })
}

func (x stepStore) CommitActivation(ctx context.Context, c joinery.ActivationCommit) error {
	return act(x.s, "CommitActivation", func() error { return x.db.CommitActivation(ctx, c) })
}

func (x stepStore) Activation(ctx context.Context, id joinery.ActivationID) (joinery.Activation, error) {
	return step(x.s, "Activation", func() (joinery.Activation, error) { return x.db.Activation(ctx, id) })
}

func (x stepStore) RoamingAllowed(ctx context.Context, org joinery.OrgID, d joinery.DeviceID, netID lorawan.NetID) (bool, error) {
	return step(x.s, "RoamingAllowed", func() (bool, error) { return x.db.RoamingAllowed(ctx, org, d, netID) })
}

func (x stepStore) Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error) {
	return step(x.s, "Device", func() (joinery.ActivationState, error) { return x.db.Device(ctx, id) })
}

func (x stepStore) ManifestEntry(ctx context.Context, id joinery.DeviceID) (entry []byte, serial string, err error) {
	err = act(x.s, "ManifestEntry", func() error {
		entry, serial, err = x.db.ManifestEntry(ctx, id)
		return err
	})
	return entry, serial, err
}

func (x stepStore) Labelled(ctx context.Context, refs []joinery.DeviceRef) ([]joinery.Labelled, error) {
	return step(x.s, "Labelled", func() ([]joinery.Labelled, error) { return x.db.Labelled(ctx, refs) })
}

func (x stepStore) Claim(ctx context.Context, d joinery.DeviceID, epoch uint32, org joinery.OrgID, b *joinery.Binding, e joinery.AuditEntry) error {
	return act(x.s, "Claim", func() error { return x.db.Claim(ctx, d, epoch, org, b, e) })
}

func (x stepStore) SetBinding(ctx context.Context, d joinery.DeviceID, owner joinery.OrgID, epoch uint32, b *joinery.Binding, e joinery.AuditEntry) error {
	return act(x.s, "SetBinding", func() error { return x.db.SetBinding(ctx, d, owner, epoch, b, e) })
}

func (x stepStore) Orgs(ctx context.Context) ([]joinery.Organisation, error) {
	return step(x.s, "Orgs", func() ([]joinery.Organisation, error) { return x.db.Orgs(ctx) })
}

func (x stepStore) Record(ctx context.Context, entries ...joinery.AuditEntry) error {
	return act(x.s, "Record", func() error { return x.db.Record(ctx, entries...) })
}

func (x stepStore) BeginImport(ctx context.Context, i joinery.Import) (joinery.Import, error) {
	return step(x.s, "BeginImport", func() (joinery.Import, error) { return x.db.BeginImport(ctx, i) })
}

func (x stepStore) Import(ctx context.Context, id joinery.ImportID) (joinery.Import, error) {
	return step(x.s, "Import", func() (joinery.Import, error) { return x.db.Import(ctx, id) })
}

func (x stepStore) CommitRows(ctx context.Context, rows joinery.ImportRows, e joinery.AuditEntry) ([]joinery.RowResult, error) {
	return step(x.s, "CommitRows", func() ([]joinery.RowResult, error) { return x.db.CommitRows(ctx, rows, e) })
}

func (x stepStore) ImportErrors(ctx context.Context, id joinery.ImportID, after uint64, limit int) ([]joinery.RowResult, error) {
	return step(x.s, "ImportErrors", func() ([]joinery.RowResult, error) { return x.db.ImportErrors(ctx, id, after, limit) })
}

func (x stepStore) ImportedDevices(ctx context.Context, id joinery.ImportID, from uint64, limit int) (devices []joinery.ImportedDevice, next uint64, err error) {
	devices, err = step(x.s, "ImportedDevices", func() (found []joinery.ImportedDevice, err error) {
		found, next, err = x.db.ImportedDevices(ctx, id, from, limit)
		return found, err
	})
	return devices, next, err
}

func (x stepStore) Ranges(ctx context.Context) ([]joinery.JoinEUIRange, error) {
	return step(x.s, "Ranges", func() ([]joinery.JoinEUIRange, error) { return x.db.Ranges(ctx) })
}

func (x stepStore) AssignRange(ctx context.Context, r joinery.JoinEUIRange, e joinery.AuditEntry) error {
	return act(x.s, "AssignRange", func() error { return x.db.AssignRange(ctx, r, e) })
}

func (x stepStore) ReleaseRange(ctx context.Context, r joinery.JoinEUIRange, e joinery.AuditEntry) error {
	return act(x.s, "ReleaseRange", func() error { return x.db.ReleaseRange(ctx, r, e) })
}

func (x stepStore) Signers(ctx context.Context) ([]joinery.Signer, error) {
	return step(x.s, "Signers", func() ([]joinery.Signer, error) { return x.db.Signers(ctx) })
}

func (x stepStore) AddSigner(ctx context.Context, n joinery.Signer, e joinery.AuditEntry) error {
	return act(x.s, "AddSigner", func() error { return x.db.AddSigner(ctx, n, e) })
}

func (x stepStore) RemoveSigner(ctx context.Context, id joinery.SignerID, e joinery.AuditEntry) error {
	return act(x.s, "RemoveSigner", func() error { return x.db.RemoveSigner(ctx, id, e) })
}

func (x stepStore) Peers(ctx context.Context) ([]joinery.Peer, error) {
	return step(x.s, "Peers", func() ([]joinery.Peer, error) { return x.db.Peers(ctx) })
}

func (x stepStore) AddPeer(ctx context.Context, p joinery.Peer, keks []joinery.KEK, entries ...joinery.AuditEntry) error {
	return act(x.s, "AddPeer", func() error { return x.db.AddPeer(ctx, p, keks, entries...) })
}

func (x stepStore) ChangePeer(ctx context.Context, p joinery.Peer, entries ...joinery.AuditEntry) error {
	return act(x.s, "ChangePeer", func() error { return x.db.ChangePeer(ctx, p, entries...) })
}

func (x stepStore) SuspendPeer(ctx context.Context, id joinery.PeerID, suspended bool, e joinery.AuditEntry) error {
	return act(x.s, "SuspendPeer", func() error { return x.db.SuspendPeer(ctx, id, suspended, e) })
}

func (x stepStore) RemovePeer(ctx context.Context, id joinery.PeerID, e joinery.AuditEntry) error {
	return act(x.s, "RemovePeer", func() error { return x.db.RemovePeer(ctx, id, e) })
}

func (x stepStore) KEKs(ctx context.Context) ([]joinery.KEK, error) {
	return step(x.s, "KEKs", func() ([]joinery.KEK, error) { return x.db.KEKs(ctx) })
}

func (x stepStore) AddKEK(ctx context.Context, k joinery.KEK, e joinery.AuditEntry) error {
	return act(x.s, "AddKEK", func() error { return x.db.AddKEK(ctx, k, e) })
}

func (x stepStore) RetireKEK(ctx context.Context, id joinery.KEKID, e joinery.AuditEntry) error {
	return act(x.s, "RetireKEK", func() error { return x.db.RetireKEK(ctx, id, e) })
}

func (x stepStore) AddOrg(ctx context.Context, o joinery.Organisation, e joinery.AuditEntry) error {
	return act(x.s, "AddOrg", func() error { return x.db.AddOrg(ctx, o, e) })
}

func (x stepStore) ChangeOrg(ctx context.Context, o joinery.Organisation, e joinery.AuditEntry) error {
	return act(x.s, "ChangeOrg", func() error { return x.db.ChangeOrg(ctx, o, e) })
}

func (x stepStore) Roaming(ctx context.Context, org joinery.OrgID) ([]joinery.RoamingRule, error) {
	return step(x.s, "Roaming", func() ([]joinery.RoamingRule, error) { return x.db.Roaming(ctx, org) })
}

func (x stepStore) SetRoaming(ctx context.Context, r joinery.RoamingRule, e joinery.AuditEntry) error {
	return act(x.s, "SetRoaming", func() error { return x.db.SetRoaming(ctx, r, e) })
}

func (x stepStore) Devices(ctx context.Context, q joinery.DeviceQuery) (joinery.DevicePage, error) {
	return step(x.s, "Devices", func() (joinery.DevicePage, error) { return x.db.Devices(ctx, q) })
}

func (x stepStore) FindDevices(ctx context.Context, devEUI lorawan.EUI64) ([]joinery.ActivationState, error) {
	return step(x.s, "FindDevices", func() ([]joinery.ActivationState, error) { return x.db.FindDevices(ctx, devEUI) })
}

func (x stepStore) Activations(ctx context.Context, id joinery.DeviceID, limit int) ([]joinery.Activation, error) {
	return step(x.s, "Activations", func() ([]joinery.Activation, error) { return x.db.Activations(ctx, id, limit) })
}

func (x stepStore) ActivationsBefore(ctx context.Context, id joinery.DeviceID, before joinery.ActivationID, limit int) ([]joinery.Activation, error) {
	return step(x.s, "ActivationsBefore", func() ([]joinery.Activation, error) { return x.db.ActivationsBefore(ctx, id, before, limit) })
}

func (x stepStore) SetSuspended(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, suspended bool, e joinery.AuditEntry) error {
	return act(x.s, "SetSuspended", func() error { return x.db.SetSuspended(ctx, id, owner, suspended, e) })
}

func (x stepStore) DeleteDevice(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, e joinery.AuditEntry) error {
	return act(x.s, "DeleteDevice", func() error { return x.db.DeleteDevice(ctx, id, owner, e) })
}

func (x stepStore) OpenReset(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, at time.Time, floor lorawan.JoinNonce, e joinery.AuditEntry) error {
	return act(x.s, "OpenReset", func() error { return x.db.OpenReset(ctx, id, owner, at, floor, e) })
}

func (x stepStore) AuditEntries(ctx context.Context, after int64, limit int) ([]joinery.AuditEntry, error) {
	return step(x.s, "AuditEntries", func() ([]joinery.AuditEntry, error) { return x.db.AuditEntries(ctx, after, limit) })
}

// Follow cannot fail.
func (x stepStore) Follow(changed func(), current func(time.Time), lost func(error)) {
	x.db.Follow(changed, current, lost)
}

func (x stepStore) LockFleet(ctx context.Context) (release func(), err error) {
	return step(x.s, "LockFleet", func() (func(), error) { return x.db.LockFleet(ctx) })
}

func (x stepKeys) VerifyJoin(ctx context.Context, ks joinery.KeySet, frame []byte) error {
	return act(x.s, "VerifyJoin", func() error { return x.k.VerifyJoin(ctx, ks, frame) })
}

func (x stepKeys) VerifyRejoin(ctx context.Context, ks joinery.KeySet, frame []byte, sessions []joinery.Activation) (int, error) {
	return step(x.s, "VerifyRejoin", func() (int, error) { return x.k.VerifyRejoin(ctx, ks, frame, sessions) })
}

func (x stepKeys) Accept(ctx context.Context, r keyring.AcceptRequest) (keyring.Answer, error) {
	return step(x.s, "Accept", func() (keyring.Answer, error) { return x.k.Accept(ctx, r) })
}

func (x stepKeys) AppSKey(ctx context.Context, ks joinery.KeySet, a joinery.Activation, as joinery.KEK) (keyring.Envelope, error) {
	return step(x.s, "AppSKey", func() (keyring.Envelope, error) { return x.k.AppSKey(ctx, ks, a, as) })
}

func (x stepKeys) OwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32) (string, error) {
	return step(x.s, "OwnerToken", func() (string, error) { return x.k.OwnerToken(ctx, d, generation) })
}

func (x stepKeys) CheckOwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32, presented string) (bool, error) {
	return step(x.s, "CheckOwnerToken", func() (bool, error) { return x.k.CheckOwnerToken(ctx, d, generation, presented) })
}

func (x stepKeys) SealRoots(ctx context.Context, h seal.Header, in []keyring.RootsIn) ([]keyring.RootsOut, error) {
	return step(x.s, "SealRoots", func() ([]keyring.RootsOut, error) { return x.k.SealRoots(ctx, h, in) })
}

func (x stepKeys) SealKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, peer joinery.PeerID, version uint32) (joinery.Sealed, error) {
	return step(x.s, "SealKEK", func() (joinery.Sealed, error) { return x.k.SealKEK(ctx, h, in, peer, version) })
}

func (x stepKeys) IsKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, kek joinery.KEK) (bool, error) {
	return step(x.s, "IsKEK", func() (bool, error) { return x.k.IsKEK(ctx, h, in, kek) })
}

// Masters cannot fail.
func (x stepKeys) Masters() []keyring.Master { return x.k.Masters() }
