// Package storetest is the contract of a store as a test suite: every engine
// passes the same one.
package storetest

import (
	"context"
	"crypto/ecdsa"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Backend is a store under test. What the methods promise stands with those of
// store.DB. A Backend that a test opened is closed by that test's cleanup.
type Backend interface {
	Joins
	Devices
	Ownership
	HandOver
	Imports
	Roots
	Rekeying
	HandingOver
	Attestations
	Organisations
	Peers
	APIKeys
	People
	Refusals
	Events
	Webhooks
	Services
	Recipients
	Exports
	CustodyLog
	Life
}

// Joins is what an activation needs.
type Joins interface {
	LoadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (joinery.ActivationState, error)
	CommitActivation(ctx context.Context, c joinery.ActivationCommit) error
	Activation(ctx context.Context, id joinery.ActivationID) (joinery.Activation, error)
	Activations(ctx context.Context, device joinery.DeviceID, limit int) ([]joinery.Activation, error)
	ActivationsBefore(ctx context.Context, device joinery.DeviceID, before joinery.ActivationID, limit int) ([]joinery.Activation, error)
	NoteJoins(ctx context.Context, upTo joinery.ActivationID) (more bool, err error)
}

// Devices lists and changes devices.
type Devices interface {
	Devices(ctx context.Context, q joinery.DeviceQuery) (joinery.DevicePage, error)
	Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	FindDevices(ctx context.Context, devEUI lorawan.EUI64) ([]joinery.ActivationState, error)
	ManifestEntry(ctx context.Context, id joinery.DeviceID) (entry []byte, serial string, err error)
	Labelled(ctx context.Context, refs []joinery.DeviceRef) ([]joinery.Labelled, error)
	DeviceKey(ctx context.Context, id joinery.DeviceID) (*ecdsa.PublicKey, error)
	SetSuspended(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, suspended bool, a joinery.AuditEntry) error
	DeleteDevice(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, a joinery.AuditEntry) error
	OpenReset(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, at time.Time, joinNonceAtLeast lorawan.JoinNonce, a joinery.AuditEntry) error
}

// Ownership moves devices, and says who may reach them.
type Ownership interface {
	Claim(ctx context.Context, id joinery.DeviceID, expectedEpoch uint32, org joinery.OrgID, binding *joinery.Binding, a joinery.AuditEntry) error
	SetBinding(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, expectedEpoch uint32, binding *joinery.Binding, a joinery.AuditEntry) error
	SetRoaming(ctx context.Context, rule joinery.RoamingRule, a joinery.AuditEntry) error
	Roaming(ctx context.Context, org joinery.OrgID) ([]joinery.RoamingRule, error)
	RoamingAllowed(ctx context.Context, org joinery.OrgID, device joinery.DeviceID, netID lorawan.NetID) (bool, error)
}

// HandOver moves devices from owner to owner.
type HandOver interface {
	ChangeOwners(ctx context.Context, changes []joinery.OwnerChange) (outcomes []error, err error)
	LastOwner(ctx context.Context, id joinery.DeviceID) (joinery.OwnerLink, error)
	Transfer(ctx context.Context, device joinery.DeviceID) (joinery.Transfer, error)
	Transfers(ctx context.Context, q joinery.TransferQuery) ([]joinery.Transfer, error)
	AddChallenge(ctx context.Context, c joinery.Challenge, now time.Time) error
	TakeChallenge(ctx context.Context, random [32]byte, org joinery.OrgID) (joinery.Challenge, error)
	OpenDispute(ctx context.Context, p joinery.Dispute, entries ...joinery.AuditEntry) error
	CloseDispute(ctx context.Context, p joinery.Dispute, entries ...joinery.AuditEntry) error
	Dispute(ctx context.Context, id joinery.DisputeID) (joinery.Dispute, error)
	Disputes(ctx context.Context, q joinery.DisputeQuery) ([]joinery.Dispute, error)
	NoteClaimFailures(ctx context.Context, failures []joinery.ClaimFailure, since time.Time) error
	ClaimFailures(ctx context.Context, since time.Time, limit int) ([]joinery.ClaimFailure, error)
}

// Roots is the imported root keys as they are stored.
type Roots interface {
	StoredRoots(ctx context.Context, after joinery.KeySetID, limit int) ([]joinery.StoredRoots, error)
	RootsOf(ctx context.Context, ids []joinery.KeySetID) ([]joinery.StoredRoots, error)
	EachRootHead(ctx context.Context, fn func(nwk, app joinery.SealedRoot)) error
	ReplaceRoots(ctx context.Context, list []joinery.NewRoots, entry func(changed int) joinery.AuditEntry) (int, error)
}

// Imports brings devices in.
type Imports interface {
	BeginImport(ctx context.Context, i joinery.Import) (joinery.Import, error)
	Import(ctx context.Context, id joinery.ImportID) (joinery.Import, error)
	CommitRows(ctx context.Context, rows joinery.ImportRows, a joinery.AuditEntry) ([]joinery.RowResult, error)
	ImportErrors(ctx context.Context, id joinery.ImportID, after uint64, limit int) ([]joinery.RowResult, error)
	ImportedDevices(ctx context.Context, id joinery.ImportID, from uint64, limit int) (devices []joinery.ImportedDevice, next uint64, err error)
}

// Organisations holds organisations, their ranges and their signers.
type Organisations interface {
	AddOrg(ctx context.Context, o joinery.Organisation, a joinery.AuditEntry) error
	ChangeOrg(ctx context.Context, o joinery.Organisation, a joinery.AuditEntry) error
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
	AssignRange(ctx context.Context, r joinery.JoinEUIRange, a joinery.AuditEntry) error
	ReleaseRange(ctx context.Context, r joinery.JoinEUIRange, a joinery.AuditEntry) error
	Ranges(ctx context.Context) ([]joinery.JoinEUIRange, error)
	AddSigner(ctx context.Context, s joinery.Signer, a joinery.AuditEntry) error
	RemoveSigner(ctx context.Context, id joinery.SignerID, a joinery.AuditEntry) error
	Signers(ctx context.Context) ([]joinery.Signer, error)
}

// Peers holds peers and their KEKs.
type Peers interface {
	AddPeer(ctx context.Context, p joinery.Peer, keks []joinery.KEK, a ...joinery.AuditEntry) error
	ChangePeer(ctx context.Context, p joinery.Peer, a ...joinery.AuditEntry) error
	SuspendPeer(ctx context.Context, id joinery.PeerID, suspended bool, a joinery.AuditEntry) error
	RemovePeer(ctx context.Context, id joinery.PeerID, a joinery.AuditEntry) error
	Peers(ctx context.Context) ([]joinery.Peer, error)
	AddKEK(ctx context.Context, k joinery.KEK, a joinery.AuditEntry) error
	RetireKEK(ctx context.Context, id joinery.KEKID, a joinery.AuditEntry) error
	KEKs(ctx context.Context) ([]joinery.KEK, error)
}

// APIKeys holds API keys.
type APIKeys interface {
	AddAPIKey(ctx context.Context, k joinery.APIKey, a joinery.AuditEntry) error
	APIKey(ctx context.Context, id joinery.APIKeyID) (joinery.APIKey, error)
	APIKeys(ctx context.Context, org joinery.OrgID) ([]joinery.APIKey, error)
	APIKeyStanding(ctx context.Context, id joinery.APIKeyID) (joinery.APIKey, joinery.Standing, error)
	TouchAPIKey(ctx context.Context, id joinery.APIKeyID, at time.Time) error
	RevokeAPIKey(ctx context.Context, id joinery.APIKeyID, at time.Time, a joinery.AuditEntry) error
}

// Refusals keeps refused requests within bounds.
type Refusals interface {
	RecordRefusals(ctx context.Context, b joinery.RefusalBatch) error
	NoteKeys(ctx context.Context, generations map[string]string) error
	CloseAttempts(ctx context.Context, at time.Time) (more bool, err error)
	DeviceRefusals(ctx context.Context, device joinery.DeviceID) ([]joinery.RefusalCount, error)
	PeerRefusals(ctx context.Context, peer joinery.PeerID, limit int) (joinery.PeerRefusals, error)
}

// Recipients holds whom root keys are exported to, and who has to agree.
type Recipients interface {
	AddRecipient(ctx context.Context, r joinery.Recipient, most int, a joinery.AuditEntry) error
	RemoveRecipient(ctx context.Context, id joinery.RecipientID, a joinery.AuditEntry) error
	Recipient(ctx context.Context, id joinery.RecipientID) (joinery.Recipient, error)
	Recipients(ctx context.Context, org joinery.OrgID) ([]joinery.Recipient, error)
	ExportPolicy(ctx context.Context, org joinery.OrgID) (joinery.ExportPolicy, error)
	SetExportPolicy(ctx context.Context, p, seen joinery.ExportPolicy, a joinery.AuditEntry) error
}

// Exports holds exports, what was wrapped in them and what was disclosed.
type Exports interface {
	BeginExport(ctx context.Context, e joinery.Export) error
	AddExportDevices(ctx context.Context, id joinery.ExportID, devices []joinery.DeviceID) (joinery.Export, error)
	FixExportSet(ctx context.Context, id joinery.ExportID) (joinery.DeviceSet, error)
	ExportDigest(ctx context.Context, id joinery.ExportID) (digest [32]byte, devices int64, err error)
	MoveExport(ctx context.Context, e joinery.Export, from []joinery.ExportState, entries ...joinery.AuditEntry) error
	Export(ctx context.Context, id joinery.ExportID) (joinery.Export, error)
	Exports(ctx context.Context, q joinery.ExportQuery) ([]joinery.Export, error)
	ExportItems(ctx context.Context, id joinery.ExportID, from uint64, limit int) ([]joinery.ExportItem, error)
	ExportWork(ctx context.Context, id joinery.ExportID, from uint64, limit int) ([]joinery.ExportItem, []joinery.ActivationState, error)
	StartExport(ctx context.Context, id joinery.ExportID, header []byte) (joinery.Export, error)
	CommitExport(ctx context.Context, id joinery.ExportID, items []joinery.WrappedItem, expires time.Time, exposed, ready joinery.AuditEntry) (joinery.Export, error)
	ExportBlobs(ctx context.Context, id joinery.ExportID, from uint64, skip, limit int) ([]joinery.WrappedItem, error)
	DueExports(ctx context.Context, by time.Time) ([]joinery.Export, error)
	ClearExports(ctx context.Context) (more bool, err error)
	Disclosures(ctx context.Context, id joinery.DeviceID) ([]joinery.Disclosure, error)
}

// Life is the audit log, and what the suite does to a store as a whole.
type Life interface {
	AuditEntries(ctx context.Context, after int64, limit int) ([]joinery.AuditEntry, error)
	Ping(ctx context.Context) error
	// Reopen closes the store and opens the same state again.
	Reopen(t testing.TB) Backend
	// CheckInvariants fails t for each invariant that does not hold.
	CheckInvariants(t testing.TB)
	// Violations gives them.
	Violations(t testing.TB) []string
}

// Run runs the whole contract. open gives an empty store, new in each call.
func Run(t *testing.T, open func(t testing.TB) Backend) {
	for _, group := range []struct {
		name string
		run  func(*testing.T, func(testing.TB) Backend)
	}{
		{"Commit", runCommits}, {"Service", runServices}, {"Import", runImports}, {"Roots", runRoots}, {"Manifest", runManifests}, {"Delete", runDeletes}, {"Device", runDevices},
		{"Ownership", runOwnership}, {"HandOver", runHandOver}, {"Fleet", runFleet}, {"Foreign", runForeign}, {"Refusals", runRefusals}, {"Keys", runKeys},
		{"Meanwhile", runMeanwhile}, {"Labels", runLabels}, {"People", runPeople}, {"NetworkClaims", runNetworkClaims},
		{"Events", runEvents}, {"Webhooks", runWebhooks}, {"Export", runExports}, {"CustodyLog", runCustodyLog}, {"Rekeying", runRekeying}, {"Passages", passages}, {"Arrivals", arrivals},
		{"Attestations", runAttestations},
	} {
		t.Run(group.name, func(t *testing.T) { group.run(t, open) })
	}
}
