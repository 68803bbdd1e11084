package custodylog

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/store"
	"joinery/internal/store/storetest"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/lorawan"
)

// keys is the keyring that the tests of this package share.
var keys *keyring.Keyring

func TestMain(m *testing.M) {
	if url := os.Getenv(asServer); url != "" {
		os.Exit(serveAndHang(url))
	}
	os.Exit(keyringtest.Main(m, "test-master", &keys))
}

var testJoinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1}

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// world is a log over a real database and keyring, with some devices.
type world struct {
	*testing.T
	ctx context.Context
	db  *store.DB
	*Service
	maker, buyer, stranger joinery.OrgID
	devices                []joinery.DeviceID
	n                      int
	forge                  func(*joinery.AuditEntry) // what a server would write that lies; nil: nothing
}

func newWorld(t *testing.T, opt Options) *world {
	t.Helper()
	return newWorldIn(t, sqlitetest.New(t), opt)
}

func newWorldIn(t *testing.T, db *store.DB, opt Options) *world {
	t.Helper()
	w := &world{T: t, ctx: t.Context(), db: db}
	w.ok(w.db.BeginFeed(w.ctx))
	w.maker, w.buyer, w.stranger = w.org("Maker"), w.org("Buyer"), w.org("Stranger")
	first := testJoinEUI
	w.ok(w.db.AssignRange(w.ctx, joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: first, Last: first}, Org: w.maker}, w.entry(joinery.AuditRangeAssigned)))
	for n := range 3 {
		w.devices = append(w.devices, w.device(first, n))
	}
	w.serve(opt, w.db)
	return w
}

func (w *world) serve(opt Options, db Store) {
	w.Helper()
	if opt.Origin == "" {
		opt.Origin = "log.example"
	}
	s, err := New(db, keys, opt)
	w.ok(err)
	w.Service = s
	w.ok(s.Begin(w.ctx))
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) entry(event joinery.AuditEvent) joinery.AuditEntry {
	return joinery.AuditEntry{At: epoch, Event: event, Actor: "test"}
}

func (w *world) about(event joinery.AuditEvent, org joinery.OrgID, d joinery.DeviceID) joinery.AuditEntry {
	a := w.entry(event)
	a.Org, a.Device = org, d
	return a
}

func (w *world) org(name string) joinery.OrgID {
	w.Helper()
	o := joinery.Organisation{ID: joinery.NewOrgID(), Name: name, CreatedAt: epoch}
	w.ok(w.db.AddOrg(w.ctx, o, w.entry(joinery.AuditOrgAdded)))
	return o.ID
}

func (w *world) device(joinEUI lorawan.EUI64, n int) joinery.DeviceID {
	w.Helper()
	i, err := w.db.BeginImport(w.ctx, joinery.Import{
		Org: w.maker, Kind: joinery.ImportManifest, SHA256: [32]byte{byte(n)}, MACVersion: lorawan.MAC1_0_4, CreatedAt: epoch,
	})
	w.ok(err)
	id, devEUI := joinery.NewDeviceID(), lorawan.EUI64FromUint64(0x0004A30B_00000000+uint64(n))
	results, err := w.db.CommitRows(w.ctx, joinery.ImportRows{Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{{
		Line: 2, Device: joinery.Device{ID: id, JoinEUI: joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_4, CreatedAt: epoch},
		KeySet: joinery.KeySet{
			ID: joinery.NewKeySetID(), DeviceID: id, DevEUI: devEUI, Origin: joinery.OriginDerived, Master: "test-master", Root10: joinery.NwkKey,
		},
		Manifest: fmt.Appendf(nil, "signed entry %d", n),
	}}}, w.entry(joinery.AuditDeviceImported))
	w.ok(err)
	return results[0].Device
}

func (w *world) state(d joinery.DeviceID) joinery.ActivationState {
	w.Helper()
	s, err := w.db.Device(w.ctx, d)
	w.ok(err)
	return s
}

func (w *world) join(d joinery.DeviceID) {
	w.Helper()
	w.ok(w.db.CommitActivation(w.ctx, storetest.NextCommit(w.state(d))))
}

// suspend writes an event about a device.
func (w *world) suspend(d joinery.DeviceID) {
	w.Helper()
	w.n++
	owner := w.state(d).Device.Ownership.Org
	w.ok(w.db.SetSuspended(w.ctx, d, owner, w.n%2 == 1, w.about(joinery.AuditDeviceSuspended, owner, d)))
}

func (w *world) claim(d joinery.DeviceID, org joinery.OrgID) {
	w.Helper()
	w.ok(w.db.Claim(w.ctx, d, w.state(d).Device.Ownership.Epoch, org, nil, w.about(joinery.AuditDeviceClaimed, org, d)))
}

// publish takes everything into the log and signs it.
func (w *world) publish() string {
	w.Helper()
	_, err := w.db.Sequence(w.ctx, false)
	w.ok(err)
	w.ok(w.CatchUp(w.ctx))
	w.ok(w.Publish(w.ctx))
	note, err := w.Checkpoint(w.ctx)
	w.ok(err)
	return note
}

// bundle fetches what a caller gets of a device, page by page.
func (w *world) bundle(caller joinery.Caller, d joinery.DeviceID, from int64) auditlog.Bundle {
	w.Helper()
	q := Query{Device: d, Limit: 3, From: from}
	p, err := w.Custody(w.ctx, caller, q)
	w.ok(err)
	b := p.Bundle
	key, err := w.Key(w.ctx)
	w.ok(err)
	c, _, err := key.Open(b.Checkpoint)
	w.ok(err)
	q.Size, q.From = c.Size, 0
	for p.Next != 0 {
		q.After = p.Next
		p, err = w.Custody(w.ctx, caller, q)
		w.ok(err)
		b.Entries = append(b.Entries, p.Bundle.Entries...)
		for _, set := range p.Bundle.Sets {
			if !slices.ContainsFunc(b.Sets, func(s auditlog.Set) bool { return s.Of == set.Of }) {
				b.Sets = append(b.Sets, set)
			}
		}
	}
	return b
}

func (w *world) trust() auditlog.Trust {
	w.Helper()
	key, err := w.Key(w.ctx)
	w.ok(err)
	return auditlog.Trust{Key: key}
}

// good fails unless nothing is wrong with a bundle.
func (w *world) good(b auditlog.Bundle, trust auditlog.Trust) auditlog.Report {
	w.Helper()
	r := auditlog.Verify(b, trust)
	for _, f := range r.Findings {
		w.Error(f)
	}
	return r
}

func as(org joinery.OrgID) joinery.Caller { return joinery.Caller{Org: org, Name: "test"} }

// digest is SHA-256 of a text, in hexadecimal digits.
func digest(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

var operator = joinery.Caller{Operator: true, Name: "operator"}
