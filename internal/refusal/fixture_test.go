package refusal

import (
	"crypto/rand"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/lorawan"
)

var (
	joinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1}
	noon    = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	home    = lorawan.NetID{0, 0, 0x42}
	foreign = lorawan.NetID{0, 0, 0x13}
)

func devEUI(n int) lorawan.EUI64 { return lorawan.EUI64FromUint64(0x0004A30B_00000000 + uint64(n)) }

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fixture is a recorder and a service over a real store, with one maker, one
// buyer, and devices of the maker's that are bound to home.
type fixture struct {
	*Service
	*Recorder
	t            testing.TB
	db           *store.DB
	maker, buyer joinery.OrgID
	peer         joinery.Peer
	devices      []joinery.ActivationState
}

func audit(event joinery.AuditEvent) joinery.AuditEntry {
	return joinery.AuditEntry{At: noon, Event: event, Actor: "test"}
}

func newFixture(t testing.TB, devices int) *fixture {
	t.Helper()
	ctx := t.Context()
	f := &fixture{t: t, db: sqlitetest.New(t), maker: joinery.NewOrgID(), buyer: joinery.NewOrgID()}
	ok(t, f.db.AddOrg(ctx, joinery.Organisation{ID: f.maker, Name: "maker", CreatedAt: noon}, audit(joinery.AuditOrgAdded)))
	ok(t, f.db.AddOrg(ctx, joinery.Organisation{ID: f.buyer, Name: "buyer", CreatedAt: noon}, audit(joinery.AuditOrgAdded)))
	ok(t, f.db.AssignRange(ctx, joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: joinEUI, Last: joinEUI}, Org: f.maker}, audit(joinery.AuditRangeAssigned)))
	f.peer = f.addPeer("network", f.maker)
	i := joinery.Import{Org: f.maker, Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4, CreatedAt: noon}
	rand.Read(i.SHA256[:])
	i, err := f.db.BeginImport(ctx, i)
	ok(t, err)
	rows := joinery.ImportRows{Import: i.ID, Count: uint64(devices), Last: true}
	for n := range devices {
		id := joinery.NewDeviceID()
		rows.Devices = append(rows.Devices, joinery.NewDevice{
			Index: uint64(n), Line: uint64(n) + 2,
			Device:  joinery.Device{ID: id, JoinEUI: joinEUI, DevEUI: devEUI(n), MACVersion: lorawan.MAC1_0_4, CreatedAt: noon},
			KeySet:  joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: id, DevEUI: devEUI(n), Origin: joinery.OriginDerived, Master: "m", Root10: joinery.NwkKey},
			Binding: &joinery.Binding{NetID: home, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped, Source: "owner", Since: noon},
		})
	}
	_, err = f.db.CommitRows(ctx, rows, audit(joinery.AuditDeviceImported))
	ok(t, err)
	page, err := f.db.Devices(ctx, joinery.DeviceQuery{Limit: max(1, devices)})
	ok(t, err)
	f.devices = page.Items
	f.Recorder = NewRecorder(f.db, nil)
	t.Cleanup(f.Close)
	f.Service = New(f.db, f.Recorder)
	return f
}

func (f *fixture) addPeer(name string, org joinery.OrgID) joinery.Peer {
	f.t.Helper()
	p := joinery.Peer{ID: joinery.NewPeerID(), Org: org, Name: name, CreatedAt: noon}
	ok(f.t, f.db.AddPeer(f.t.Context(), p, nil, audit(joinery.AuditPeerAdded)))
	return p
}

// about is a refused join-request of a device that is here, n seconds after
// noon.
func about(peer joinery.Peer, s joinery.ActivationState, reason joinery.RefusalReason, n int) joinery.Refusal {
	x := unknown(peer, 0, n)
	x.Device, x.Owner, x.Reason = s.Device.ID, s.Device.Ownership.Org, reason
	x.Received.DevEUI = s.Device.DevEUI
	x.Decided = joinery.Decided{Bound: true, NetID: home, ASID: "as.example.com", MACVersion: lorawan.MAC1_0_4, Root10: joinery.NwkKey, Next: 8}
	return x
}

// unknown is a refused join-request of a device that is not here.
func unknown(peer joinery.Peer, device, n int) joinery.Refusal {
	return joinery.Refusal{
		At: noon.Add(time.Duration(n) * time.Second), Peer: peer.ID, Reason: joinery.RefusedUnknownDevice,
		Received: joinery.Received{
			Message: "JoinReq", ProtocolVersion: "1.0", TransactionID: 7, SenderID: foreign.String(), ReceiverID: joinEUI.String(),
			NetID: foreign, JoinEUI: joinEUI, DevEUI: lorawan.EUI64FromUint64(0xFF<<56 + uint64(device)), MACVersion: lorawan.MAC1_0_3, Frame: "join", Count: 7,
		},
	}
}
