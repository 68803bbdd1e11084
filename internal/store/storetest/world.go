package storetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"joinery"
	"joinery/lorawan"
)

// world is a store with one organisation and its range of JoinEUIs.
type world struct {
	t   testing.TB
	ctx context.Context
	Backend
	org joinery.OrgID
}

var (
	epoch   = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	joinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1}
	netID   = lorawan.NetID{0, 0, 0x13}
)

func newWorld(t testing.TB, open func(testing.TB) Backend) *world {
	w := &world{t: t, ctx: t.Context(), Backend: open(t), org: joinery.NewOrgID()}
	w.ok(w.AddOrg(w.ctx, joinery.Organisation{ID: w.org, Name: "maker", CreatedAt: epoch}, w.audit(joinery.AuditOrgAdded)))
	w.assign(w.org, 0x01, 0x0F)
	return w
}

// assign gives org the JoinEUIs from joinEUI's first seven bytes ‖ first to … ‖ last.
func (w *world) assign(org joinery.OrgID, first, last byte) joinery.JoinEUIRange {
	w.t.Helper()
	r := joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: joinEUI, Last: joinEUI}, Org: org}
	r.First[7], r.Last[7] = first, last
	w.ok(w.AssignRange(w.ctx, r, w.audit(joinery.AuditRangeAssigned)))
	return r
}

func (w *world) addOrg(name string) joinery.OrgID {
	w.t.Helper()
	o := joinery.Organisation{ID: joinery.NewOrgID(), Name: name, CreatedAt: epoch.Add(time.Minute)}
	w.ok(w.AddOrg(w.ctx, o, w.audit(joinery.AuditOrgAdded)))
	return o.ID
}

func (w *world) audit(event joinery.AuditEvent) joinery.AuditEntry {
	return joinery.AuditEntry{At: epoch, Event: event, Actor: "storetest", Detail: map[string]string{"why": "contract"}}
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// refused checks that err has code, and that no other's secret is in its text.
func (w *world) refused(err error, code joinery.Code) {
	w.t.Helper()
	if joinery.CodeOf(err) != code {
		w.t.Fatalf("got %v, want code %s", err, code)
	}
}

func (w *world) equal(got, want any) {
	w.t.Helper()
	opts := cmp.Options{cmpopts.EquateComparable(lorawan.CFList{}), cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b joinery.DevNonceSet) bool { return cmp.Equal(members(a), members(b)) })}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		w.t.Fatalf("(-want +got)\n%s", diff)
	}
}

func members(s joinery.DevNonceSet) (all []lorawan.DevNonce) {
	for v := range s.All {
		all = append(all, v)
	}
	return all
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func devEUI(n int) lorawan.EUI64 { return lorawan.EUI64FromUint64(0x0004A30B_00000000 + uint64(n)) }

// derived is a new element; n numbers its DevEUI.
func derived(n int) joinery.NewDevice {
	id := joinery.NewDeviceID()
	return joinery.NewDevice{
		Device: joinery.Device{ID: id, JoinEUI: joinEUI, DevEUI: devEUI(n), MACVersion: lorawan.MAC1_0_4, CreatedAt: epoch},
		KeySet: joinery.KeySet{
			ID: joinery.NewKeySetID(), DeviceID: id, DevEUI: devEUI(n), Origin: joinery.OriginDerived, Master: "maker-1", Root10: joinery.NwkKey,
		},
		Manifest: fmt.Appendf(nil, "entry %d", n), Serial: fmt.Sprintf("SN%d", n),
	}
}

// sealed is a new ordinary device with an imported key.
func sealed(n int) joinery.NewDevice {
	d := derived(n)
	d.Device.MACVersion = lorawan.MAC1_0_2
	d.KeySet.Origin, d.KeySet.Master, d.KeySet.Root10 = joinery.OriginSealed, "", joinery.AppKey
	d.KeySet.App = joinery.SealedRoot{Use: randomBytes(57), Custody: randomBytes(400)}
	d.Manifest, d.Serial = nil, ""
	return d
}

// binding is one that a join under netID may use.
func binding() *joinery.Binding {
	return &joinery.Binding{NetID: netID, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped, Source: "owner", Since: epoch}
}

func (w *world) begin(org joinery.OrgID, file string) joinery.Import {
	w.t.Helper()
	i, err := w.BeginImport(w.ctx, joinery.Import{
		Org: org, Kind: joinery.ImportManifest, SHA256: sha256.Sum256([]byte(file)), MACVersion: lorawan.MAC1_0_4, Bind: binding(), CreatedAt: epoch,
	})
	w.ok(err)
	return i
}

// importAs imports devices for org as one file that nobody imported before.
func (w *world) importAs(org joinery.OrgID, devices ...joinery.NewDevice) []joinery.RowResult {
	w.t.Helper()
	i := w.begin(org, string(randomBytes(16)))
	for n := range devices {
		devices[n].Index, devices[n].Line = uint64(n), uint64(n)+2
	}
	results, err := w.CommitRows(w.ctx, joinery.ImportRows{Import: i.ID, Count: uint64(len(devices)), Devices: devices, Last: true}, w.audit(joinery.AuditDeviceImported))
	w.ok(err)
	return results
}

// add imports one device, which must be new, and gives its state.
func (w *world) add(d joinery.NewDevice) joinery.ActivationState {
	w.t.Helper()
	r := w.importAs(w.org, d)[0]
	if r.Status != joinery.RowCreated {
		w.t.Fatalf("row %s: %s", r.Status, r.Reason)
	}
	return w.load(d.Device.JoinEUI, d.Device.DevEUI)
}

func (w *world) load(joinEUI, devEUI lorawan.EUI64) joinery.ActivationState {
	w.t.Helper()
	s, err := w.LoadActivation(w.ctx, joinEUI, devEUI)
	w.ok(err)
	return s
}

// again reads a state anew.
func (w *world) again(s joinery.ActivationState) joinery.ActivationState {
	w.t.Helper()
	return w.load(s.Device.JoinEUI, s.Device.DevEUI)
}

// NextCommit makes the commit of the next join of a device, as the rules of
// activation would: the next JoinNonce, and the next DevNonce that they accept.
func NextCommit(s joinery.ActivationState) joinery.ActivationCommit {
	n := s.KeySet.Nonces
	e := n.For(s.Device.JoinEUI)
	a := joinery.Activation{
		ID: joinery.NewActivationID(), At: epoch.Add(time.Duration(n.JoinNonce) * time.Second), Device: s.Device.ID, KeySet: s.KeySet.ID,
		Owner: s.Device.Ownership.Org, Peer: 1, Type: joinery.JoinTypeJoin, JoinEUI: s.Device.JoinEUI, DevEUI: s.Device.DevEUI,
		Root: s.KeySet.Root10, JoinNonce: n.JoinNonce + 1, NetID: netID, RxDelay: 5, Policy: joinery.AppSKeyWrapped, ASID: "as.example.com",
	}
	if s.Device.MACVersion.CountsDevNonces() {
		a.Count = uint16(e.Next)
		e.Next++
	} else {
		a.Count = uint16(e.Used.Len()*40503 + 7) // odd factor: no value twice in 65,536
		e.Used = e.Used.With(lorawan.DevNonce(a.Count))
	}
	if s.Binding != nil {
		a.BindingEpoch = s.Binding.Epoch
	}
	rand.Read(a.FrameHash[:])
	rand.Read(a.SessionKeyID[:])
	binary.BigEndian.PutUint64(a.SessionKeyID[:], uint64(a.ID))
	n.JoinNonce++
	n = n.With(e).WithActivation(joinery.RecentActivation{ID: a.ID, Tag: [8]byte(a.FrameHash[:])}, 0)
	return joinery.ActivationCommit{KeySet: s.KeySet.ID, Version: s.KeySet.Version, Nonces: n, Activation: a}
}

// join commits the next join of a device.
func (w *world) join(s joinery.ActivationState) joinery.Activation {
	w.t.Helper()
	c := NextCommit(w.again(s))
	w.ok(w.CommitActivation(w.ctx, c))
	return c.Activation
}
