package export_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"

	"joinery"
	"joinery/internal/export"
	"joinery/internal/exportfile"
	"joinery/internal/store"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/lorawan"
)

// fixture is the rules on a real store, with a clock of its own.
type fixture struct {
	*export.Service
	t   *testing.T
	ctx context.Context
	db  *store.DB
	org joinery.OrgID
	now time.Time

	owner     joinery.Caller // an API key of org that no person made
	custody   joinery.Caller
	to        exportfile.Recipient
	recipient joinery.Recipient
	signer    *ecdsa.PrivateKey
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, ctx: t.Context(), db: sqlitetest.New(t), org: joinery.NewOrgID(), now: time.Now().UTC().Truncate(time.Millisecond)}
	f.Service = export.New(f.db, export.Options{Server: "js.example.com", Now: func() time.Time { return f.now }})
	f.ok(f.db.AddOrg(f.ctx, joinery.Organisation{ID: f.org, Name: "owner", CreatedAt: f.now}, f.entry()))
	f.ok(f.db.AssignRange(f.ctx, joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: lorawan.EUI64{1}, Last: lorawan.EUI64{1}}, Org: f.org}, f.entry()))
	f.owner = joinery.Caller{Org: f.org, Name: "key k", Key: joinery.NewAPIKeyID(), Rights: joinery.AllRights()}
	f.custody = joinery.Caller{Operator: true, Socket: true, Name: "socket uid 0", Rights: joinery.AllRights()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.ok(err)
	f.to, err = exportfile.NewRecipient(&key.PublicKey)
	f.ok(err)
	f.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.ok(err)
	f.recipient, err = f.AddRecipient(f.ctx, f.owner, export.NewRecipient{Name: "laptop", Kind: joinery.RecipientFile, Key: string(f.to.MarshalJWK())})
	f.ok(err)
	return f
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) refused(err error, code joinery.Code) {
	f.t.Helper()
	if joinery.CodeOf(err) != code {
		f.t.Fatalf("got %v, want %s", err, code)
	}
}

func (f *fixture) entry() joinery.AuditEntry {
	return joinery.AuditEntry{At: f.now, Event: joinery.AuditRangeAssigned, Actor: "test"}
}

// device imports a device for org.
func (f *fixture) device(n byte) joinery.DeviceRef {
	f.t.Helper()
	id, devEUI := joinery.NewDeviceID(), lorawan.EUI64{2, 7: n}
	i, err := f.db.BeginImport(f.ctx, joinery.Import{ID: joinery.NewImportID(), Org: f.org, Kind: joinery.ImportKeyList, SHA256: sha256.Sum256(devEUI[:]), CreatedAt: f.now})
	f.ok(err)
	d := joinery.NewDevice{
		Device: joinery.Device{ID: id, JoinEUI: lorawan.EUI64{1}, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_3, CreatedAt: f.now},
		KeySet: joinery.KeySet{
			ID: joinery.NewKeySetID(), DeviceID: id, DevEUI: devEUI, Origin: joinery.OriginSealed, Root10: joinery.AppKey,
			App: joinery.SealedRoot{Use: []byte("use"), Custody: []byte("custody")},
		},
	}
	results, err := f.db.CommitRows(f.ctx, joinery.ImportRows{Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{d}}, f.entry())
	f.ok(err)
	if results[0].Status != joinery.RowCreated {
		f.t.Fatalf("%+v", results[0])
	}
	return joinery.DeviceRef{ID: results[0].Device}
}

// person makes somebody of org who is signed in.
func (f *fixture) person(name string, role joinery.Role) joinery.Caller {
	f.t.Helper()
	return f.personOf(f.org, name, role)
}

func (f *fixture) personOf(org joinery.OrgID, name string, role joinery.Role) joinery.Caller {
	f.t.Helper()
	p := joinery.Person{ID: joinery.NewPersonID(), Name: name, Email: name + "@example.com", CreatedAt: f.now}
	i := joinery.Invitation{ID: joinery.NewInvitationID(), Org: org, Role: role, Email: p.Email, Hash: sha256.Sum256([]byte(name)), CreatedAt: f.now, ExpiresAt: f.now.Add(time.Hour)}
	f.ok(f.db.Invite(f.ctx, i, f.entry()))
	f.ok(f.db.Join(f.ctx, joinery.Joining{Invitation: i, Person: p, New: true, Identity: &joinery.Identity{Issuer: "https://id.example.com", Subject: name}}, f.now, f.entry()))
	return joinery.Caller{Org: f.org, Name: "person " + p.ID.String(), Person: p.ID, Session: joinery.NewSessionID(), SessionKind: joinery.SessionBrowser, Rights: role.Rights()}
}

// ask requests an export as somebody.
func (f *fixture) ask(caller joinery.Caller, refs ...joinery.DeviceRef) joinery.Export {
	f.t.Helper()
	e, err := f.Request(f.ctx, caller, export.Spec{Recipient: f.recipient.ID, Devices: refs})
	f.ok(err)
	return e
}

// begin is the first half of the custody process.
func (f *fixture) begin(id joinery.ExportID) exportfile.Header {
	f.t.Helper()
	jobs, err := f.Jobs(f.ctx, f.custody)
	f.ok(err)
	for _, j := range jobs {
		if j.ID != id {
			continue
		}
		h := j.Begin
		h.Wrapping = exportfile.JWEECDHES
		h.Signer, err = exportfile.NewSigner(&f.signer.PublicKey)
		f.ok(err)
		started, err := f.Start(f.ctx, f.custody, id, h)
		f.ok(err)
		return started.Begin
	}
	f.t.Fatalf("%s does not wait for the custody key", id)
	return exportfile.Header{}
}

// wrapped is what the custody process makes of a device, with a key of its own.
func (f *fixture) wrapped(h exportfile.Header, d export.Device) export.Done {
	f.t.Helper()
	w, err := exportfile.NewWrapper(f.to, h.Wrapping)
	f.ok(err)
	made, err := w.Wrap(d.About, nil, []byte("sixteen bytes...")[:16])
	f.ok(err)
	digests, err := exportfile.NewDigests(h)
	f.ok(err)
	f.ok(digests.Sign(&made, func(sum [32]byte) ([64]byte, error) {
		der, err := ecdsa.SignASN1(rand.Reader, f.signer, sum[:])
		f.ok(err)
		return exportfile.RawSignature(der)
	}))
	line, err := exportfile.MarshalDevice(made)
	f.ok(err)
	return export.Done{Index: d.Index, KeySet: d.KeySet.ID, Line: line}
}

// work does all that waits of an export.
func (f *fixture) work(id joinery.ExportID) joinery.Export {
	f.t.Helper()
	h := f.begin(id)
	list, _, err := f.Work(f.ctx, f.custody, id, 0, 0)
	f.ok(err)
	var done []export.Done
	for _, d := range list {
		done = append(done, f.wrapped(h, d))
	}
	e, err := f.HandIn(f.ctx, f.custody, id, done)
	f.ok(err)
	return e
}
