package calls

import (
	"context"
	"time"

	"joinery"
	"joinery/internal/export"
	"joinery/internal/keyring"
	"joinery/internal/rekey"
	"joinery/internal/seal"
	"joinery/lorawan"
)

var (
	_ export.Store = stepStore{}
	_ rekey.State  = stepStore{}
	_ rekey.Keys   = stepKeys{}
)

func (x stepStore) AddRecipient(ctx context.Context, r joinery.Recipient, most int, a joinery.AuditEntry) error {
	return act(x.s, "AddRecipient", func() error { return x.db.AddRecipient(ctx, r, most, a) })
}

func (x stepStore) RemoveRecipient(ctx context.Context, id joinery.RecipientID, a joinery.AuditEntry) error {
	return act(x.s, "RemoveRecipient", func() error { return x.db.RemoveRecipient(ctx, id, a) })
}

func (x stepStore) Recipient(ctx context.Context, id joinery.RecipientID) (joinery.Recipient, error) {
	return step(x.s, "Recipient", func() (joinery.Recipient, error) { return x.db.Recipient(ctx, id) })
}

func (x stepStore) Recipients(ctx context.Context, org joinery.OrgID) ([]joinery.Recipient, error) {
	return step(x.s, "Recipients", func() ([]joinery.Recipient, error) { return x.db.Recipients(ctx, org) })
}

func (x stepStore) ExportPolicy(ctx context.Context, org joinery.OrgID) (joinery.ExportPolicy, error) {
	return step(x.s, "ExportPolicy", func() (joinery.ExportPolicy, error) { return x.db.ExportPolicy(ctx, org) })
}

func (x stepStore) SetExportPolicy(ctx context.Context, p, seen joinery.ExportPolicy, a joinery.AuditEntry) error {
	return act(x.s, "SetExportPolicy", func() error { return x.db.SetExportPolicy(ctx, p, seen, a) })
}

func (x stepStore) Members(ctx context.Context, org joinery.OrgID) ([]joinery.Member, error) {
	return step(x.s, "Members", func() ([]joinery.Member, error) { return x.db.Members(ctx, org) })
}

func (x stepStore) BeginExport(ctx context.Context, e joinery.Export) error {
	return act(x.s, "BeginExport", func() error { return x.db.BeginExport(ctx, e) })
}

func (x stepStore) AddExportDevices(ctx context.Context, id joinery.ExportID, devices []joinery.DeviceID) (joinery.Export, error) {
	return step(x.s, "AddExportDevices", func() (joinery.Export, error) { return x.db.AddExportDevices(ctx, id, devices) })
}

func (x stepStore) FixExportSet(ctx context.Context, id joinery.ExportID) (joinery.DeviceSet, error) {
	return step(x.s, "FixExportSet", func() (joinery.DeviceSet, error) { return x.db.FixExportSet(ctx, id) })
}

func (x stepStore) ExportDigest(ctx context.Context, id joinery.ExportID) (digest [32]byte, devices int64, err error) {
	err = act(x.s, "ExportDigest", func() (err error) {
		digest, devices, err = x.db.ExportDigest(ctx, id)
		return err
	})
	return digest, devices, err
}

func (x stepStore) MoveExport(ctx context.Context, e joinery.Export, from []joinery.ExportState, entries ...joinery.AuditEntry) error {
	return act(x.s, "MoveExport", func() error { return x.db.MoveExport(ctx, e, from, entries...) })
}

func (x stepStore) Export(ctx context.Context, id joinery.ExportID) (joinery.Export, error) {
	return step(x.s, "Export", func() (joinery.Export, error) { return x.db.Export(ctx, id) })
}

func (x stepStore) Exports(ctx context.Context, q joinery.ExportQuery) ([]joinery.Export, error) {
	return step(x.s, "Exports", func() ([]joinery.Export, error) { return x.db.Exports(ctx, q) })
}

func (x stepStore) ExportItems(ctx context.Context, id joinery.ExportID, from uint64, limit int) ([]joinery.ExportItem, error) {
	return step(x.s, "ExportItems", func() ([]joinery.ExportItem, error) { return x.db.ExportItems(ctx, id, from, limit) })
}

func (x stepStore) ExportBlobs(ctx context.Context, id joinery.ExportID, from uint64, skip, limit int) ([]joinery.WrappedItem, error) {
	return step(x.s, "ExportBlobs", func() ([]joinery.WrappedItem, error) { return x.db.ExportBlobs(ctx, id, from, skip, limit) })
}

func (x stepStore) DueExports(ctx context.Context, by time.Time) ([]joinery.Export, error) {
	return step(x.s, "DueExports", func() ([]joinery.Export, error) { return x.db.DueExports(ctx, by) })
}

func (x stepStore) ExportWork(ctx context.Context, id joinery.ExportID, from uint64, limit int) (a []joinery.ExportItem, b []joinery.ActivationState, err error) {
	err = act(x.s, "ExportWork", func() (err error) {
		a, b, err = x.db.ExportWork(ctx, id, from, limit)
		return err
	})
	return a, b, err
}

func (x stepStore) StartExport(ctx context.Context, id joinery.ExportID, header []byte) (joinery.Export, error) {
	return step(x.s, "StartExport", func() (joinery.Export, error) { return x.db.StartExport(ctx, id, header) })
}

func (x stepStore) CommitExport(ctx context.Context, id joinery.ExportID, items []joinery.WrappedItem, expires time.Time, exposed, ready joinery.AuditEntry) (joinery.Export, error) {
	return step(x.s, "CommitExport", func() (joinery.Export, error) { return x.db.CommitExport(ctx, id, items, expires, exposed, ready) })
}

func (x stepStore) ClearExports(ctx context.Context) (bool, error) {
	return step(x.s, "ClearExports", func() (bool, error) { return x.db.ClearExports(ctx) })
}

func (x stepStore) Disclosures(ctx context.Context, id joinery.DeviceID) ([]joinery.Disclosure, error) {
	return step(x.s, "Disclosures", func() ([]joinery.Disclosure, error) { return x.db.Disclosures(ctx, id) })
}

func (x stepStore) RekeyingDevice(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error) {
	return step(x.s, "RekeyingDevice", func() (joinery.ActivationState, error) { return x.db.RekeyingDevice(ctx, id) })
}

func (x stepStore) RekeyOrder(ctx context.Context, id joinery.RekeyID) (joinery.RekeyOrder, error) {
	return step(x.s, "RekeyOrder", func() (joinery.RekeyOrder, error) { return x.db.RekeyOrder(ctx, id) })
}

func (x stepStore) RekeyOrders(ctx context.Context, device joinery.DeviceID) ([]joinery.RekeyOrder, error) {
	return step(x.s, "RekeyOrders", func() ([]joinery.RekeyOrder, error) { return x.db.RekeyOrders(ctx, device) })
}

func (x stepStore) RekeyRequests(ctx context.Context, org joinery.OrgID, after joinery.RekeyID, limit int) ([]joinery.RekeyOrder, error) {
	return step(x.s, "RekeyRequests", func() ([]joinery.RekeyOrder, error) { return x.db.RekeyRequests(ctx, org, after, limit) })
}

func (x stepStore) SetRekeyProfile(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, p joinery.RekeyProfile, a joinery.AuditEntry) error {
	return act(x.s, "SetRekeyProfile", func() error { return x.db.SetRekeyProfile(ctx, id, owner, p, a) })
}

func (x stepStore) ArmRekey(ctx context.Context, o joinery.RekeyOrder, to joinery.JoinServerID, a ...joinery.AuditEntry) error {
	return act(x.s, "ArmRekey", func() error { return x.db.ArmRekey(ctx, o, to, a...) })
}

func (x stepStore) EndRekey(ctx context.Context, id joinery.RekeyID, owner joinery.OrgID, state joinery.RekeyState, a ...joinery.AuditEntry) error {
	return act(x.s, "EndRekey", func() error { return x.db.EndRekey(ctx, id, owner, state, a...) })
}

func (x stepStore) NoteRekeySent(ctx context.Context, s joinery.ActivationState, o joinery.RekeyOrder, next joinery.KeySetID, at time.Time, a joinery.AuditEntry) error {
	return act(x.s, "NoteRekeySent", func() error { return x.db.NoteRekeySent(ctx, s, o, next, at, a) })
}

func (x stepStore) NoteHandover(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) error {
	return act(x.s, "NoteHandover", func() error { return x.db.NoteHandover(ctx, to, now, list) })
}

func (x stepStore) DiscloseRekey(ctx context.Context, s joinery.ActivationState, o joinery.RekeyOrder, next joinery.KeySetID, handedOver, exposed joinery.AuditEntry) error {
	return act(x.s, "DiscloseRekey", func() error { return x.db.DiscloseRekey(ctx, s, o, next, handedOver, exposed) })
}

func (x stepStore) ApproveRekeys(ctx context.Context, orders []joinery.RekeyOrder, keys map[joinery.JoinServerID][]byte, entries []joinery.AuditEntry) error {
	return act(x.s, "ApproveRekeys", func() error { return x.db.ApproveRekeys(ctx, orders, keys, entries) })
}

func (x stepStore) AddJoinServer(ctx context.Context, j joinery.JoinServer, a joinery.AuditEntry) error {
	return act(x.s, "AddJoinServer", func() error { return x.db.AddJoinServer(ctx, j, a) })
}

func (x stepStore) ChangeJoinServer(ctx context.Context, j joinery.JoinServer, former string, a joinery.AuditEntry) error {
	return act(x.s, "ChangeJoinServer", func() error { return x.db.ChangeJoinServer(ctx, j, former, a) })
}

func (x stepStore) EndUnpinned(ctx context.Context, actor string, at time.Time) error {
	return act(x.s, "EndUnpinned", func() error { return x.db.EndUnpinned(ctx, actor, at) })
}

func (x stepStore) RefuseRepinned(ctx context.Context, id joinery.JoinServerID, thumbprint, actor string, at time.Time) error {
	return act(x.s, "RefuseRepinned", func() error { return x.db.RefuseRepinned(ctx, id, thumbprint, actor, at) })
}

func (x stepStore) TellArrival(ctx context.Context, id joinery.ArrivalID, told joinery.Told, at time.Time) error {
	return act(x.s, "TellArrival", func() error { return x.db.TellArrival(ctx, id, told, at) })
}

func (x stepStore) FormerJoinServer(ctx context.Context, receiptKey []byte) (joinery.JoinServerID, error) {
	return step(x.s, "FormerJoinServer", func() (joinery.JoinServerID, error) { return x.db.FormerJoinServer(ctx, receiptKey) })
}

func (x stepStore) RemoveJoinServer(ctx context.Context, id joinery.JoinServerID, a joinery.AuditEntry) error {
	return act(x.s, "RemoveJoinServer", func() error { return x.db.RemoveJoinServer(ctx, id, a) })
}

func (x stepStore) JoinServers(ctx context.Context) ([]joinery.JoinServer, error) {
	return step(x.s, "JoinServers", func() ([]joinery.JoinServer, error) { return x.db.JoinServers(ctx) })
}

func (x stepStore) BeginRekeyBatch(ctx context.Context, b joinery.RekeyBatch) error {
	return act(x.s, "BeginRekeyBatch", func() error { return x.db.BeginRekeyBatch(ctx, b) })
}

func (x stepStore) AddRekeyBatchDevices(ctx context.Context, id joinery.RekeyBatchID, devices []joinery.DeviceID) (joinery.RekeyBatch, error) {
	return step(x.s, "AddRekeyBatchDevices", func() (joinery.RekeyBatch, error) { return x.db.AddRekeyBatchDevices(ctx, id, devices) })
}

func (x stepStore) MoveRekeyBatch(ctx context.Context, b joinery.RekeyBatch, from []joinery.RekeyBatchState, entries ...joinery.AuditEntry) error {
	return act(x.s, "MoveRekeyBatch", func() error { return x.db.MoveRekeyBatch(ctx, b, from, entries...) })
}

func (x stepStore) ArmRekeyBatch(ctx context.Context, id joinery.RekeyBatchID, list []joinery.RekeyBatchArm, done joinery.AuditEntry) (joinery.RekeyBatch, error) {
	return step(x.s, "ArmRekeyBatch", func() (joinery.RekeyBatch, error) { return x.db.ArmRekeyBatch(ctx, id, list, done) })
}

func (x stepStore) RekeyBatch(ctx context.Context, id joinery.RekeyBatchID) (joinery.RekeyBatch, error) {
	return step(x.s, "RekeyBatch", func() (joinery.RekeyBatch, error) { return x.db.RekeyBatch(ctx, id) })
}

func (x stepStore) RekeyBatches(ctx context.Context, q joinery.RekeyBatchQuery) ([]joinery.RekeyBatch, error) {
	return step(x.s, "RekeyBatches", func() ([]joinery.RekeyBatch, error) { return x.db.RekeyBatches(ctx, q) })
}

func (x stepStore) RekeyBatchItems(ctx context.Context, id joinery.RekeyBatchID, from uint64, waiting bool, limit int) ([]joinery.RekeyBatchItem, error) {
	return step(x.s, "RekeyBatchItems", func() ([]joinery.RekeyBatchItem, error) { return x.db.RekeyBatchItems(ctx, id, from, waiting, limit) })
}

func (x stepStore) FixRekeyBatchSet(ctx context.Context, id joinery.RekeyBatchID) (joinery.DeviceSet, error) {
	return step(x.s, "FixRekeyBatchSet", func() (joinery.DeviceSet, error) { return x.db.FixRekeyBatchSet(ctx, id) })
}

func (x stepStore) RekeyBatchDigest(ctx context.Context, id joinery.RekeyBatchID) (digest [32]byte, devices int64, err error) {
	err = act(x.s, "RekeyBatchDigest", func() (err error) {
		digest, devices, err = x.db.RekeyBatchDigest(ctx, id)
		return err
	})
	return digest, devices, err
}

func (x stepStore) DuePassages(ctx context.Context, to joinery.JoinServerID, now, until time.Time, limit int) ([]joinery.RekeyOrder, error) {
	return step(x.s, "DuePassages", func() ([]joinery.RekeyOrder, error) { return x.db.DuePassages(ctx, to, now, until, limit) })
}

func (x stepStore) NextPassage(ctx context.Context, to joinery.JoinServerID) (due time.Time, waits bool, err error) {
	err = act(x.s, "NextPassage", func() (err error) {
		due, waits, err = x.db.NextPassage(ctx, to)
		return err
	})
	return due, waits, err
}

func (x stepStore) PassageCounts(ctx context.Context) (map[joinery.PassageState]int, error) {
	return step(x.s, "PassageCounts", func() (map[joinery.PassageState]int, error) { return x.db.PassageCounts(ctx) })
}

func (x stepStore) NoteOffered(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) ([]joinery.RekeyID, error) {
	return step(x.s, "NoteOffered", func() ([]joinery.RekeyID, error) { return x.db.NoteOffered(ctx, to, now, list) })
}

func (x stepStore) MovePassage(ctx context.Context, id joinery.RekeyID, p joinery.Passage, a joinery.AuditEntry) error {
	return act(x.s, "MovePassage", func() error { return x.db.MovePassage(ctx, id, p, a) })
}

func (x stepStore) TakeReceipt(ctx context.Context, from joinery.JoinServerID, after, next joinery.ReceiptPlace, list []joinery.PassageChange) error {
	return act(x.s, "TakeReceipt", func() error { return x.db.TakeReceipt(ctx, from, after, next, list) })
}

func (x stepStore) ReadReceiptsAgain(ctx context.Context, from joinery.JoinServerID, epoch uint64, now time.Time) error {
	return act(x.s, "ReadReceiptsAgain", func() error { return x.db.ReadReceiptsAgain(ctx, from, epoch, now) })
}

func (x stepStore) RangeOrg(ctx context.Context, joinEUI lorawan.EUI64) (joinery.OrgID, error) {
	return step(x.s, "RangeOrg", func() (joinery.OrgID, error) { return x.db.RangeOrg(ctx, joinEUI) })
}

func (x stepStore) Arrive(ctx context.Context, a joinery.Arrival, limit int, entry joinery.AuditEntry) (joinery.Arrival, error) {
	return step(x.s, "Arrive", func() (joinery.Arrival, error) { return x.db.Arrive(ctx, a, limit, entry) })
}

func (x stepStore) RefuseArrival(ctx context.Context, id joinery.ArrivalID, reason string, news []byte, entry joinery.AuditEntry) (bool, error) {
	return step(x.s, "RefuseArrival", func() (bool, error) { return x.db.RefuseArrival(ctx, id, reason, news, entry) })
}

func (x stepStore) ParkedArrivals(ctx context.Context, before time.Time, limit int) ([]joinery.Arrival, error) {
	return step(x.s, "ParkedArrivals", func() ([]joinery.Arrival, error) { return x.db.ParkedArrivals(ctx, before, limit) })
}

func (x stepStore) TakeArrival(ctx context.Context, in joinery.ArrivedDevice, entry joinery.AuditEntry) error {
	return act(x.s, "TakeArrival", func() error { return x.db.TakeArrival(ctx, in, entry) })
}

func (x stepStore) NoteArrivalJoined(ctx context.Context, id joinery.ArrivalID, news []byte, entry joinery.AuditEntry) error {
	return act(x.s, "NoteArrivalJoined", func() error { return x.db.NoteArrivalJoined(ctx, id, news, entry) })
}

func (x stepStore) Arrival(ctx context.Context, id joinery.ArrivalID) (joinery.Arrival, error) {
	return step(x.s, "Arrival", func() (joinery.Arrival, error) { return x.db.Arrival(ctx, id) })
}

func (x stepStore) Arrivals(ctx context.Context, org joinery.OrgID, after joinery.ArrivalID, limit int) ([]joinery.Arrival, error) {
	return step(x.s, "Arrivals", func() ([]joinery.Arrival, error) { return x.db.Arrivals(ctx, org, after, limit) })
}

func (x stepStore) ExpectedArrivals(ctx context.Context, from joinery.JoinServerID, now time.Time, limit int) ([]joinery.Arrival, error) {
	return step(x.s, "ExpectedArrivals", func() ([]joinery.Arrival, error) { return x.db.ExpectedArrivals(ctx, from, now, limit) })
}

func (x stepStore) JoinedArrivals(ctx context.Context, from joinery.JoinServerID, after joinery.ArrivalID, limit int) ([]joinery.Arrival, error) {
	return step(x.s, "JoinedArrivals", func() ([]joinery.Arrival, error) { return x.db.JoinedArrivals(ctx, from, after, limit) })
}

func (x stepStore) JoinedArrivalsOf(ctx context.Context, device joinery.DeviceID) ([]joinery.Arrival, error) {
	return step(x.s, "JoinedArrivalsOf", func() ([]joinery.Arrival, error) { return x.db.JoinedArrivalsOf(ctx, device) })
}

func (x stepStore) ArrivalNews(ctx context.Context, from joinery.JoinServerID, after uint64, limit int) (list []joinery.ArrivalNews, newest joinery.ReceiptPlace, err error) {
	err = act(x.s, "ArrivalNews", func() (err error) {
		list, newest, err = x.db.ArrivalNews(ctx, from, after, limit)
		return err
	})
	return list, newest, err
}

func (x stepStore) CameBy(ctx context.Context, device joinery.DeviceID) (joinery.Arrival, error) {
	return step(x.s, "CameBy", func() (joinery.Arrival, error) { return x.db.CameBy(ctx, device) })
}

func (x stepStore) Expect(ctx context.Context, want joinery.Expectation, limit int, entry joinery.AuditEntry) error {
	return act(x.s, "Expect", func() error { return x.db.Expect(ctx, want, limit, entry) })
}

func (x stepStore) EndExpectation(ctx context.Context, id joinery.ExpectationID, org joinery.OrgID, entry joinery.AuditEntry) error {
	return act(x.s, "EndExpectation", func() error { return x.db.EndExpectation(ctx, id, org, entry) })
}

func (x stepStore) Expectations(ctx context.Context, org joinery.OrgID) ([]joinery.Expectation, error) {
	return step(x.s, "Expectations", func() ([]joinery.Expectation, error) { return x.db.Expectations(ctx, org) })
}

func (x stepKeys) Handover(ctx context.Context, to seal.PublicKey, in []keyring.HandoverIn) (a seal.Header, b []seal.SealedRow, err error) {
	err = act(x.s, "Handover", func() (err error) {
		a, b, err = x.k.Handover(ctx, to, in)
		return err
	})
	return a, b, err
}

func (x stepKeys) AuthMAC(ctx context.Context, ks joinery.KeySet) ([32]byte, error) {
	return step(x.s, "AuthMAC", func() ([32]byte, error) { return x.k.AuthMAC(ctx, ks) })
}

func (x stepKeys) SignStatement(ctx context.Context, content []byte) (signature, public []byte, err error) {
	err = act(x.s, "SignStatement", func() (err error) {
		signature, public, err = x.k.SignStatement(ctx, content)
		return err
	})
	return signature, public, err
}

// TransportKey cannot fail.
func (x stepKeys) TransportKey() seal.PublicKey { return x.k.TransportKey() }

func (x stepKeys) AcceptHash(ctx context.Context, ks joinery.KeySet, a joinery.Activation) ([32]byte, error) {
	return step(x.s, "AcceptHash", func() ([32]byte, error) { return x.k.AcceptHash(ctx, ks, a) })
}

// Generations cannot fail.
func (x stepKeys) Generations() keyring.Generations { return x.k.Generations() }
