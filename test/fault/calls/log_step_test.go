package calls

import (
	"context"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/custodylog"
)

var (
	_ custodylog.Store = stepStore{}
	_ custodylog.Keys  = stepKeys{}
)

func (x stepStore) BeginLog(ctx context.Context, origin string, empty [32]byte) error {
	return act(x.s, "BeginLog", func() error { return x.db.BeginLog(ctx, origin, empty) })
}

func (x stepStore) LogState(ctx context.Context) (joinery.LogState, error) {
	return step(x.s, "LogState", func() (joinery.LogState, error) { return x.db.LogState(ctx) })
}

func (x stepStore) LogPending(ctx context.Context, s joinery.LogState, limit int) (joinery.LogBatch, error) {
	return step(x.s, "LogPending", func() (joinery.LogBatch, error) { return x.db.LogPending(ctx, s, limit) })
}

func (x stepStore) AppendLog(ctx context.Context, old joinery.LogState, b joinery.LogBatch, growth joinery.LogGrowth) error {
	return act(x.s, "AppendLog", func() error { return x.db.AppendLog(ctx, old, b, growth) })
}

func (x stepStore) LogBundles(ctx context.Context, from, to int64, limit int) ([]joinery.LogBundle, error) {
	return step(x.s, "LogBundles", func() ([]joinery.LogBundle, error) { return x.db.LogBundles(ctx, from, to, limit) })
}

func (x stepStore) LogTile(ctx context.Context, level int, index int64) ([]byte, error) {
	return step(x.s, "LogTile", func() ([]byte, error) { return x.db.LogTile(ctx, level, index) })
}

func (x stepStore) CustodyDevice(ctx context.Context, id joinery.DeviceID) (joinery.CustodyDevice, error) {
	return step(x.s, "CustodyDevice", func() (joinery.CustodyDevice, error) { return x.db.CustodyDevice(ctx, id) })
}

func (x stepStore) CustodyEntries(ctx context.Context, q joinery.CustodyQuery) ([]joinery.CustodyEntry, error) {
	return step(x.s, "CustodyEntries", func() ([]joinery.CustodyEntry, error) { return x.db.CustodyEntries(ctx, q) })
}

func (x stepStore) DeviceSets(ctx context.Context, device joinery.DeviceID, subjects []int64) ([]auditlog.Set, error) {
	return step(x.s, "DeviceSets", func() ([]auditlog.Set, error) { return x.db.DeviceSets(ctx, device, subjects) })
}

func (x stepStore) LinkEntries(ctx context.Context, id joinery.DeviceID) ([]joinery.CustodyEntry, error) {
	return step(x.s, "LinkEntries", func() ([]joinery.CustodyEntry, error) { return x.db.LinkEntries(ctx, id) })
}

func (x stepStore) StateProvenance(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, at time.Time) error {
	return act(x.s, "StateProvenance", func() error { return x.db.StateProvenance(ctx, id, owner, at) })
}

func (x stepStore) LogEntry(ctx context.Context, ref joinery.LogRef) (joinery.CustodyEntry, error) {
	return step(x.s, "LogEntry", func() (joinery.CustodyEntry, error) { return x.db.LogEntry(ctx, ref) })
}

func (x stepStore) EraseEntry(ctx context.Context, ref joinery.LogRef, a joinery.AuditEntry) error {
	return act(x.s, "EraseEntry", func() error { return x.db.EraseEntry(ctx, ref, a) })
}

func (x stepStore) LogCheckpoint(ctx context.Context) (joinery.LogCheckpoint, error) {
	return step(x.s, "LogCheckpoint", func() (joinery.LogCheckpoint, error) { return x.db.LogCheckpoint(ctx) })
}

func (x stepStore) SaveCheckpoint(ctx context.Context, p joinery.LogCheckpoint) error {
	return act(x.s, "SaveCheckpoint", func() error { return x.db.SaveCheckpoint(ctx, p) })
}

func (x stepStore) LogLag(ctx context.Context) (joinery.LogLag, error) {
	return step(x.s, "LogLag", func() (joinery.LogLag, error) { return x.db.LogLag(ctx) })
}

func (x stepStore) LogLines(ctx context.Context) ([]joinery.LogLine, error) {
	return step(x.s, "LogLines", func() ([]joinery.LogLine, error) { return x.db.LogLines(ctx) })
}

func (x stepStore) WitnessSize(ctx context.Context, name string, line int) (int64, error) {
	return step(x.s, "WitnessSize", func() (int64, error) { return x.db.WitnessSize(ctx, name, line) })
}

func (x stepStore) SaveWitnessSize(ctx context.Context, name string, line int, size int64) error {
	return act(x.s, "SaveWitnessSize", func() error { return x.db.SaveWitnessSize(ctx, name, line, size) })
}

func (x stepKeys) LogKey(ctx context.Context, generation uint32) ([]byte, error) {
	return step(x.s, "LogKey", func() ([]byte, error) { return x.k.LogKey(ctx, generation) })
}

func (x stepKeys) SignCheckpoint(ctx context.Context, generation uint32, text []byte) ([]byte, error) {
	return step(x.s, "SignCheckpoint", func() ([]byte, error) { return x.k.SignCheckpoint(ctx, generation, text) })
}
