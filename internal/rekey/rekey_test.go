package rekey_test

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/internal/export"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/rekey"
	"joinery/internal/rekeyfile"
	"joinery/internal/sim/element"
	"joinery/internal/store"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/lorawan"
	"joinery/test/leak"
)

var (
	here  = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 0}
	there = lorawan.EUI64{0xEC, 0x65, 0x6E, 0xFF, 0xFE, 0, 0, 1}
	noon  = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
)

// server is a Join Server's rules of rekeying, over the real store and keyring.
type server struct {
	*rekey.Service
	t     *testing.T
	dir   string
	store *store.DB
	keys  keyringtest.Fixture
	org   joinery.OrgID
	owner joinery.Caller
	now   time.Time
	at    lorawan.EUI64 // the JoinEUI for which it answers

	exports *export.Service
}

var operator = joinery.Caller{Operator: true, Name: "operator"}

func newServer(t *testing.T, joinEUI lorawan.EUI64) *server {
	t.Helper()
	dir := t.TempDir()
	opt := store.Options{Path: filepath.Join(dir, "joinery.db"), UnsafeNoSync: true}
	sqlitetest.Create(t, opt.Path)
	db, err := store.Open(t.Context(), opt)
	ok(t, err)
	t.Cleanup(func() { ok(t, db.Close()) })
	s := &server{t: t, dir: dir, store: db, keys: keyringtest.SoftNumber(t, map[lorawan.EUI64]int{here: 0, there: 1, farther: 2}[joinEUI]), org: joinery.NewOrgID(), now: noon, at: joinEUI}
	s.owner = joinery.Caller{Org: s.org, Name: "owner", Key: joinery.NewAPIKeyID(), Rights: joinery.AllRights()}
	audit := joinery.AuditEntry{At: noon, Event: joinery.AuditOrgAdded, Actor: "test"}
	ok(t, db.AddOrg(t.Context(), joinery.Organisation{ID: s.org, Name: "maker", CreatedAt: noon}, audit))
	ok(t, db.AssignRange(t.Context(), joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: joinEUI, Last: joinEUI}, Org: s.org}, audit))
	clock := func() time.Time { return s.now }
	s.exports = export.New(db, export.Options{Now: clock})
	s.Service = rekey.New(db, s.keys.Keyring, s.exports, func(e lorawan.EUI64) bool { return e == joinEUI }, slog.New(slog.DiscardHandler), clock)
	return s
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, want joinery.Code) {
	t.Helper()
	if joinery.CodeOf(err) != want {
		t.Fatalf("got %v, want code %s", err, want)
	}
}

// add imports a device and gives it back with its element.
func (s *server) add(d joinery.Device, k joinery.KeySet, serial string) joinery.DeviceID {
	s.t.Helper()
	ctx := s.t.Context()
	d.ID, k.ID = joinery.NewDeviceID(), joinery.NewKeySetID()
	k.DeviceID, k.DevEUI, k.Root10, d.CreatedAt = d.ID, d.DevEUI, joinery.NwkKey, noon
	i := joinery.Import{Org: s.org, Kind: joinery.ImportKeyList, MACVersion: d.MACVersion, CreatedAt: noon}
	rand.Read(i.SHA256[:])
	i, err := s.store.BeginImport(ctx, i)
	ok(s.t, err)
	rows, err := s.store.CommitRows(ctx, joinery.ImportRows{
		Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{{Line: 1, Device: d, KeySet: k, Serial: serial}},
	}, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceImported, Actor: "test", Org: s.org})
	ok(s.t, err)
	if rows[0].Status != joinery.RowCreated {
		s.t.Fatalf("import: %+v", rows[0])
	}
	return rows[0].Device
}

// derived imports a device whose root keys derive from the master key.
func (s *server) derived(devEUI lorawan.EUI64, serial string) joinery.DeviceID {
	return s.add(joinery.Device{JoinEUI: here, DevEUI: devEUI, MACVersion: lorawan.MAC1_1},
		joinery.KeySet{Origin: joinery.OriginDerived, Master: s.keys.Master, Generation: 1}, serial)
}

// key derives a key of a device from the master key: purpose ‖ 01 ‖ generation 1 ‖
// 00 00 ‖ DevEUI.
func (s *server) key(purpose byte, e lorawan.EUI64) []byte {
	s.t.Helper()
	c, err := aes.NewCipher(s.keys.MasterKey[:])
	ok(s.t, err)
	key := []byte{purpose, 1, 0, 0, 0, 1, 0, 0, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]}
	c.Encrypt(key, key)
	return key
}

func (s *server) element(e lorawan.EUI64) *element.Element {
	s.t.Helper()
	el, err := element.Provision(here, e, s.key(2, e), s.key(1, e))
	ok(s.t, err)
	return el
}

// pin has s pin other.
func (s *server) pin(other *server) joinery.JoinServerID {
	s.t.Helper()
	_, public, err := other.keys.Keyring.SignStatement(s.t.Context(), nil)
	ok(s.t, err)
	j, err := s.Pin(s.t.Context(), operator, joinery.JoinServer{Name: "other", TransportKey: other.keys.Keyring.TransportKey().MarshalDER(), ReceiptKey: public})
	ok(s.t, err)
	return j.ID
}

// joinRequest is what the element signs at a JoinEUI.
func joinRequest(t *testing.T, e *element.Element, joinEUI lorawan.EUI64) []byte {
	t.Helper()
	frame := lorawan.JoinRequest{JoinEUI: joinEUI, DevEUI: e.DevEUI(), DevNonce: 1}.AppendUnsigned(nil)
	mic, err := e.ComputeCMAC(element.NwkKey, nil, frame)
	ok(t, err)
	return append(frame, mic[:]...)
}

// One device goes from one Join Server to the other: by a ticket at the bench, a
// hand-over and a receipt. Each may be made and taken again.
func TestFromServerToServer(t *testing.T) {
	ctx := t.Context()
	for _, profile := range []joinery.RekeyProfile{joinery.RekeyS, joinery.RekeyM} {
		a, b := newServer(t, here), newServer(t, there)
		devEUI := lorawan.EUI64{0, 4, 0xA3, 0x10, 0, 0, 0, byte(profile)}
		serial := "0123114e171b98b427"
		id, e := a.derived(devEUI, serial), a.element(devEUI)
		to := a.pin(b)
		ok(t, a.SetProfile(ctx, a.owner, id, profile))
		order, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to})
		ok(t, err)

		var ticket rekeyfile.Ticket
		file, err := a.Ticket(ctx, a.owner, []joinery.DeviceID{id})
		ok(t, err)
		_, err = rekeyfile.Open(file, rekeyfile.FormatTicket, nil, &ticket)
		ok(t, err)
		o := ticket.Devices[0]
		if o.Rekey() != order.Rekey || o.Order != order.ID.String() || o.JoinNonceFloor < 1<<16 {
			t.Fatalf("got %+v", o)
		}
		switch profile {
		case joinery.RekeyS:
			ok(t, e.SetRekeyKey(a.key(3, devEUI)))
		case joinery.RekeyM:
			ok(t, e.SetSlotKey(append(a.key(4, devEUI), a.key(5, devEUI)...), []byte{1, 0x23, 0x11, 0x4e, 0x17, 0x1b, 0x98, 0xb4, 0x27}))
		}
		ok(t, e.Rekey(o.NewJoinEUI, o.Cookie, o.AuthMAC))

		var h rekeyfile.Handover
		for range 2 { // as often as it gets lost
			file, err = a.Handover(ctx, a.owner, to, []joinery.DeviceID{id})
			ok(t, err)
		}
		_, err = rekeyfile.Open(file, rekeyfile.FormatHandover, nil, &h)
		ok(t, err)
		set := joinery.NewKeySetID()
		out, err := b.keys.Keyring.SealRoots(ctx, h.Seal, []keyring.RootsIn{{KeySet: set, Row: h.Devices[0].Row}})
		ok(t, err)
		ok(t, out[0].Err)
		arrived := joinery.KeySet{ID: set, DevEUI: devEUI, Origin: joinery.OriginSealed, Root10: joinery.NwkKey, Nwk: out[0].Nwk, App: out[0].App}
		if err := b.keys.Keyring.VerifyJoin(ctx, arrived, joinRequest(t, e, there)); err != nil {
			t.Fatalf("profile %s: the new Join Server does not know the device: %v", profile, err)
		}
		a.wantStatus(id, joinery.RekeySent, 1)

		_, err = a.Results(ctx, a.owner, []rekeyfile.Result{{Order: o.Order, DevEUI: devEUI, Error: "out of reach"}})
		ok(t, err)
		a.wantStatus(id, joinery.RekeySent, 1)
		for range 2 {
			n, err := a.Results(ctx, a.owner, []rekeyfile.Result{{Order: o.Order, DevEUI: devEUI, Rekeyed: true}})
			if err != nil || n != 1 {
				t.Fatal(n, err)
			}
		}
		a.wantStatus(id, joinery.RekeyConfirmed, 1)

		// No root key, old or new, in what went between the two or on any disk.
		var keys leak.Secrets
		keys.PlantKey("master key", a.keys.MasterKey[:])
		for purpose := range byte(5) {
			keys.PlantKey(fmt.Sprintf("key of purpose %d", purpose+1), a.key(purpose+1, devEUI))
		}
		for name, key := range a.newRoots(profile, devEUI, order.Rekey) {
			keys.PlantKey(name, key)
		}
		sent, err := json.Marshal([]any{ticket, h})
		ok(t, err)
		hits := leak.Found{}
		keys.In(sent, hits)
		keys.In(file, hits)
		for _, s := range []*server{a, b} {
			files, err := os.ReadDir(s.dir)
			ok(t, err)
			for _, f := range files {
				content, err := os.ReadFile(filepath.Join(s.dir, f.Name()))
				ok(t, err)
				keys.In(content, hits)
			}
		}
		if len(hits) > 0 {
			t.Errorf("profile %s: %v", profile, hits)
		}
	}
}

// newRoots derives what the element has after an instruction, written out.
func (s *server) newRoots(profile joinery.RekeyProfile, devEUI lorawan.EUI64, r lorawan.Rekey) map[string][]byte {
	s.t.Helper()
	if profile == joinery.RekeyM {
		slot := append(s.key(4, devEUI), s.key(5, devEUI)...)
		temp := sha256.Sum256(slices.Concat([]byte("LWJS-REKEY-v1"), r.JoinEUI[:], devEUI[:], r.Cookie[:]))
		both := sha256.Sum256(slices.Concat(slot, []byte{0x1C, 4, 0, 0, 0x27, 1, 0x23}, make([]byte, 25), temp[:]))
		return map[string][]byte{"new AppKey": both[:16], "new NwkKey": both[16:]}
	}
	c, err := aes.NewCipher(s.key(3, devEUI))
	ok(s.t, err)
	keys := map[string][]byte{}
	for purpose, name := range map[byte]string{0x21: "new NwkKey", 0x22: "new AppKey", 0x23: "new rekeying key"} {
		key := append([]byte{purpose}, r.Cookie[:]...)
		for i := range r.JoinEUI {
			key = append(key, r.JoinEUI[7-i])
		}
		c.Encrypt(key, key)
		keys[name] = key
	}
	return keys
}

func (s *server) wantStatus(id joinery.DeviceID, want joinery.RekeyState, candidates int) {
	s.t.Helper()
	st, err := s.Status(s.t.Context(), s.owner, id)
	ok(s.t, err)
	if st.Orders[0].State != want || st.Candidates != candidates {
		s.t.Fatalf("got %+v", st)
	}
}

// A receipt confirms what the right Join Server says of the right order.
func TestReceipts(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	devEUI := lorawan.EUI64{9}
	id, e := a.derived(devEUI, ""), a.element(devEUI)
	a.rekeys(e, joinery.RekeyS)
	to, _ := know(a, b, there, "b")
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	order, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to.ID})
	ok(t, err)
	file, err := a.Handover(ctx, a.owner, to.ID, []joinery.DeviceID{id})
	ok(t, err)
	a.tell(e, id)
	_, err = b.TakeFile(ctx, b.owner, file, nil)
	ok(t, err)
	arrived := b.arrivedAs(there, devEUI)
	over := []rekey.HandedOver{{Device: arrived, Order: order.ID.String(), Cookie: order.Rekey.Cookie}}
	file, err = b.Receipts(ctx, b.owner, over)
	ok(t, err)
	if n, err := a.TakeReceipts(ctx, a.owner, file); n != 0 || err != nil {
		t.Errorf("before it joined: %d, %v", n, err)
	}
	b.joins(e, there)
	file, err = b.Receipts(ctx, b.owner, over)
	ok(t, err)

	// Another order, another owner, another server's word, another accept.
	wrong, err := b.Receipts(ctx, b.owner, []rekey.HandedOver{{Device: arrived, Order: order.ID.String()}})
	ok(t, err)
	_, err = a.TakeReceipts(ctx, a.owner, wrong)
	wantCode(t, err, joinery.CodeInvalid)
	_, err = a.TakeReceipts(ctx, a.owner, resign(t, b, rekeyfile.FormatReceipt, file, func(r *rekeyfile.Receipt) { r.Joins[0].Accept[3] ^= 1 }))
	wantCode(t, err, joinery.CodeInvalid)
	_, err = a.TakeReceipts(ctx, joinery.Caller{Org: 77}, file)
	wantCode(t, err, joinery.CodeNotFound)
	_, err = a.TakeReceipts(ctx, a.owner, file[1:])
	wantCode(t, err, joinery.CodeInvalid)
	_, err = b.Receipts(ctx, joinery.Caller{Org: 77}, over)
	wantCode(t, err, joinery.CodeNotFound)
	a.wantStatus(id, joinery.RekeySent, 1)

	for range 2 {
		if n, err := a.TakeReceipts(ctx, a.owner, file); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	a.wantStatus(id, joinery.RekeyConfirmed, 1)
	a.wantPassage(id, joinery.RekeyConfirmed, joinery.PassageJoined)
}

// What must not be is refused, each with its own words.
func TestRefusals(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	id := a.derived(lorawan.EUI64{1}, "")
	sealed := a.add(joinery.Device{JoinEUI: here, DevEUI: lorawan.EUI64{2}, MACVersion: lorawan.MAC1_1},
		joinery.KeySet{Origin: joinery.OriginSealed, Nwk: joinery.SealedRoot{Use: []byte{1}}}, "")
	arm := rekey.Arm{Device: id, JoinEUI: there, To: to}
	refused := func(want joinery.Code, change func(*rekey.Arm)) {
		t.Helper()
		x := arm
		change(&x)
		_, err := a.Arm(ctx, a.owner, x)
		wantCode(t, err, want)
	}
	refused(joinery.CodeConflict, func(*rekey.Arm) {}) // nobody said that it rekeys
	wantCode(t, a.SetProfile(ctx, a.owner, sealed, joinery.RekeyS), joinery.CodeInvalid)
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyM))
	refused(joinery.CodeConflict, func(*rekey.Arm) {}) // no serial number
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	refused(joinery.CodeInvalid, func(x *rekey.Arm) { x.JoinEUI = here })
	refused(joinery.CodeInvalid, func(x *rekey.Arm) { x.JoinEUI = lorawan.EUI64{} })
	refused(joinery.CodeInvalid, func(x *rekey.Arm) { x.Life = rekey.MaxLife + 1 })
	refused(joinery.CodeNotFound, func(x *rekey.Arm) { x.To++ })
	refused(joinery.CodeInvalid, func(x *rekey.Arm) { x.To = 0 })
	refused(joinery.CodeInvalid, func(x *rekey.Arm) { x.Recipient = joinery.NewRecipientID() })
	refused(joinery.CodeNotFound, func(x *rekey.Arm) { x.To, x.Recipient = 0, joinery.NewRecipientID() })
	refused(joinery.CodeConflict, func(x *rekey.Arm) { x.Device = sealed })

	stranger := joinery.Caller{Org: 77}
	_, err := a.Arm(ctx, stranger, arm)
	wantCode(t, err, joinery.CodeNotFound)
	_, err = a.Status(ctx, stranger, id)
	wantCode(t, err, joinery.CodeNotFound)
	wantCode(t, a.Cancel(ctx, stranger, id), joinery.CodeNotFound)
	wantCode(t, a.Cancel(ctx, a.owner, id), joinery.CodeConflict)
	_, err = a.Handover(ctx, a.owner, to, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Pin(ctx, a.owner, joinery.JoinServer{Name: "x"})
	wantCode(t, err, joinery.CodeForbidden)
	_, err = a.Pin(ctx, operator, joinery.JoinServer{Name: "x", TransportKey: []byte{1}})
	wantCode(t, err, joinery.CodeInvalid)

	powerless := a.owner
	powerless.Rights = joinery.RightsOf(joinery.RightDevicesOwn)
	_, err = a.Arm(ctx, powerless, arm)
	wantCode(t, err, joinery.CodeForbidden)

	_, err = a.Arm(ctx, a.owner, arm)
	ok(t, err)
	refused(joinery.CodeConflict, func(*rekey.Arm) {}) // there is one
	wantCode(t, a.Confirm(ctx, a.owner, id), joinery.CodeConflict)
	wantCode(t, a.Unpin(ctx, operator, to), joinery.CodeConflict)
	ok(t, a.Cancel(ctx, a.owner, id))
	_, err = a.Ticket(ctx, a.owner, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeConflict)
	_, err = a.Handover(ctx, a.owner, to, []joinery.DeviceID{id})
	wantCode(t, err, joinery.CodeConflict)
	a.now = noon.Add(time.Hour)
	_, err = a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to, Life: time.Minute})
	ok(t, err)
	a.now = noon.Add(2 * time.Hour)
	a.wantStatus(id, joinery.RekeyExpired, 0)

	// Every change left an entry.
	entries, err := a.store.AuditEntries(ctx, 0, 100)
	ok(t, err)
	seen := map[joinery.AuditEvent]int{}
	for _, e := range entries {
		seen[e.Event]++
	}
	for _, e := range []joinery.AuditEvent{joinery.AuditRekeyProfile, joinery.AuditRekeyArmed, joinery.AuditRekeyCancelled, joinery.AuditJoinServerAdded} {
		if seen[e] == 0 {
			t.Errorf("no entry %s", e)
		}
	}
	found, err := a.store.Fsck(ctx, nil)
	if err != nil || len(found) > 0 {
		t.Error(found, err)
	}
}

// An export in the middle of a rekeying has the root keys that the device is known
// to have, and no candidate. A device that is seen to have obeyed between request and
// wrapping is left out: its exported keys would be stale; asked for again it has the
// new ones.
func TestExportAmidRekeying(t *testing.T) {
	ctx := t.Context()
	a, b := newServer(t, here), newServer(t, there)
	to := a.pin(b)
	devEUI := lorawan.EUI64{7}
	id := a.derived(devEUI, "")
	ok(t, a.SetProfile(ctx, a.owner, id, joinery.RekeyS))
	_, err := a.Arm(ctx, a.owner, rekey.Arm{Device: id, JoinEUI: there, To: to})
	ok(t, err)
	_, err = a.Ticket(ctx, a.owner, []joinery.DeviceID{id}) // from now on it may have obeyed
	ok(t, err)
	before, err := a.store.RekeyingDevice(ctx, id)
	ok(t, err)

	custodian := joinery.Caller{Operator: true, Socket: true, Name: "custody"}
	recipient, err := a.exports.AddRecipient(ctx, a.owner, export.NewRecipient{Name: "laptop", Kind: joinery.RecipientServer, Key: string(b.keys.Keyring.TransportKey().MarshalPEM())})
	ok(t, err)
	request := func() (joinery.Export, []export.Device) {
		t.Helper()
		x, err := a.exports.Request(ctx, a.owner, export.Spec{Recipient: recipient.ID, Devices: []joinery.DeviceRef{{ID: id}}})
		ok(t, err)
		work, _, err := a.exports.Work(ctx, custodian, x.ID, 0, 10)
		ok(t, err)
		return x, work
	}
	first, work := request()
	if len(work) != 1 || work[0].KeySet.ID != before.KeySet.ID || work[0].KeySet.Origin != joinery.OriginDerived {
		t.Fatalf("in the middle: %+v", work)
	}
	obeyed := joinery.AuditEntry{At: a.now, Event: joinery.AuditRekeyObeyed, Actor: "test", Org: a.org, Device: id}
	ok(t, a.store.ProveKeySet(ctx, before, before.Rekeying.Candidates[0].ID, obeyed))
	if work, _, err := a.exports.Work(ctx, custodian, first.ID, 0, 10); err != nil || len(work) != 0 {
		t.Fatalf("stale root keys are to be wrapped: %+v, %v", work, err)
	}
	items, err := a.exports.Items(ctx, a.owner, first.ID, 0, 10)
	ok(t, err)
	if items[0].State != joinery.ItemDropped || items[0].Reason != joinery.DropKeySet {
		t.Errorf("%+v", items[0])
	}
	_, work = request()
	if len(work) != 1 || work[0].KeySet.Origin != joinery.OriginRekeyed || len(work[0].KeySet.Steps) != 1 {
		t.Fatalf("after it obeyed: %+v", work)
	}
}
