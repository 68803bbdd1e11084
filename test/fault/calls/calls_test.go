package calls

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"joinery"
	"joinery/internal/activation"
	"joinery/internal/claim"
	"joinery/internal/custodylog"
	"joinery/internal/export"
	"joinery/internal/fleet"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/provisioning"
	"joinery/internal/rekey"
	"joinery/internal/seal"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/internal/store"
	"joinery/lorawan"
)

// rooms is a Join Server without doors whose every call to store and keyring is
// a step.
type rooms struct {
	t    *testing.T
	base *base
	db   *store.DB
	path string
	steps

	activation   *activation.Service
	claim        *claim.Service
	networks     *claim.Networks
	provisioning *provisioning.Service
	fleet        *fleet.Service
	export       *export.Service
	rekey        *rekey.Service
	log          *custodylog.Service
}

// base is a database that every run begins from, and who is in it.
type base struct {
	keys    keyringtest.Fixture
	file    []byte
	maker   joinery.Caller
	owner   joinery.Caller
	network joinery.Peer
	kek     joinery.KEKID // the network's
	devices map[lorawan.MACVersion]*device.Device
	ids     map[lorawan.MACVersion]joinery.DeviceID
	// frames are join-requests, rejoin one rejoin-request of type 0; session names
	// the session that the 1.1 device has.
	frames  map[lorawan.MACVersion][]byte
	rejoin  []byte
	session []byte
	token   string // owner token of the 1.0.4 device
	list    string // key list that is not imported yet
}

var (
	operator  = joinery.Caller{Operator: true, Name: "operator"}
	stepEUI   = lorawan.EUI64FromUint64(0x70B3D57ED0000000)
	stepNetID = lorawan.NetID{0, 0, 0x13}
)

const stepASID = "as.example.com"

// open opens a copy of the base.
func (b *base) open(t *testing.T) *rooms {
	t.Helper()
	r := &rooms{t: t, base: b, path: filepath.Join(t.TempDir(), "joinery.db"), steps: steps{failAt: -1}}
	ok(t, os.WriteFile(r.path, b.file, 0o600))
	r.reopen()
	return r
}

// reopen opens the database again, as after a restart.
func (r *rooms) reopen() {
	r.t.Helper()
	if r.db != nil {
		ok(r.t, r.db.Close())
	}
	db, err := store.Open(r.t.Context(), store.Options{Path: r.path, UnsafeNoSync: true})
	ok(r.t, err)
	r.t.Cleanup(func() { _ = db.Close() })
	r.db = db
	if db.AnswersJoins() != nil { // it is a copy, as far as it can tell
		_, err := db.ConfirmFence(r.t.Context(), store.Confirmation{Jump: 1, Earlier: new(0)})
		ok(r.t, err)
	}
	s, k := stepStore{db, &r.steps}, stepKeys{r.base.keys.Keyring, &r.steps}
	r.fleet = fleet.New(s, k, fleet.Options{})
	ok(r.t, r.fleet.Directory().Reload(r.t.Context()))
	r.activation = activation.New(s, k, r.fleet.Directory(), activation.Options{
		Fetched: func(ctx context.Context, e joinery.AuditEntry) error { return s.Record(ctx, e) },
	})
	r.provisioning = provisioning.New(s, s, k)
	r.claim = claim.New(s, s, k, claim.Options{AnswerAfter: -1})
	r.networks = claim.NewNetworks(s, k, r.fleet, claim.NetworkOptions{AnswerAfter: -1})
	r.export = export.New(s, export.Options{})
	r.rekey = rekey.New(s, k, r.export, func(e lorawan.EUI64) bool { return e == stepEUI }, slog.New(slog.DiscardHandler), time.Now)
	r.log, err = custodylog.New(s, k, custodylog.Options{Origin: "log.example"})
	ok(r.t, err)
	r.steps = steps{failAt: -1}
}

// newBase makes the base through the same rules.
func newBase(t *testing.T) *base {
	t.Helper()
	ctx := t.Context()
	b := &base{
		keys: keyringtest.Soft(t), devices: map[lorawan.MACVersion]*device.Device{},
		ids: map[lorawan.MACVersion]joinery.DeviceID{}, frames: map[lorawan.MACVersion][]byte{},
	}
	empty := filepath.Join(t.TempDir(), "joinery.db")
	ok(t, store.Create(ctx, store.Options{Path: empty, UnsafeNoSync: true}))
	var err error
	b.file, err = os.ReadFile(empty)
	ok(t, err)
	r := b.open(t)
	for name, c := range map[string]*joinery.Caller{"maker": &b.maker, "owner": &b.owner} {
		o, err := r.fleet.AddOrg(ctx, operator, name, nil)
		ok(t, err)
		*c = joinery.Caller{Org: o.ID, Name: "key of " + name}
	}
	_, err = r.fleet.AssignRange(ctx, operator, joinery.JoinEUIRange{Org: b.maker.Org, EUIRange: joinery.EUIRange{First: stepEUI, Last: stepEUI}})
	ok(t, err)
	b.network, err = r.fleet.AddPeer(ctx, operator, joinery.Peer{
		Org: b.maker.Org, Name: "network", NetIDs: []lorawan.NetID{stepNetID}, ASIDs: []string{stepASID}, Credentials: []joinery.Credential{pin()}, ClaimKEKs: true,
	}, []fleet.NewKEK{b.newKEK(t, joinery.KEKForNS, "ns-1"), b.newKEK(t, joinery.KEKForAS, "as-1")}, fleet.PeerConfirm{})
	ok(t, err)
	keks, err := r.fleet.KEKs(ctx, operator)
	ok(t, err)
	b.kek = keks[0].ID

	var list bytes.Buffer
	factory := element.NewFactory(&list)
	for _, v := range []lorawan.MACVersion{lorawan.MAC1_0_3, lorawan.MAC1_0_4, lorawan.MAC1_1} {
		e, err := factory.Make(stepEUI, lorawan.EUI64FromUint64(0x0200_0000_0000_0000+uint64(v)), v)
		ok(t, err)
		b.devices[v], err = device.New(e, v, device.Options{})
		ok(t, err)
	}
	ok(t, r.importList(list.String(), true))
	for v, d := range b.devices {
		s, err := r.db.LoadActivation(ctx, stepEUI, d.DevEUI())
		ok(t, err)
		b.ids[v] = s.Device.ID
	}
	b.token, err = r.claim.OwnerToken(ctx, b.maker, b.ids[lorawan.MAC1_0_4])
	ok(t, err)

	d := b.devices[lorawan.MAC1_1]
	frame, err := d.JoinRequest()
	ok(t, err)
	answer, err := r.activation.Join(ctx, b.join(lorawan.MAC1_1, frame))
	ok(t, err)
	_, err = d.HandleAccept(answer.PHYPayload)
	ok(t, err)
	b.session = answer.SessionKeyID
	b.rejoin, err = d.RejoinRequest(lorawan.Rejoin0)
	ok(t, err)
	for v, d := range b.devices {
		b.frames[v], err = d.JoinRequest()
		ok(t, err)
	}
	list.Reset()
	factory = element.NewFactory(&list)
	for n := range 5 {
		_, err := factory.Make(stepEUI, lorawan.EUI64FromUint64(0x0300_0000_0000_0000+uint64(n)), lorawan.MAC1_0_4)
		ok(t, err)
	}
	b.list = list.String()
	ok(t, r.db.Close())
	b.file, err = os.ReadFile(r.path)
	ok(t, err)
	return b
}

func pin() (c joinery.Credential) {
	c.Kind = joinery.CredentialSPKI
	rand.Read(c.SPKI[:])
	return c
}

func (b *base) newKEK(t *testing.T, role joinery.KEKRole, label string) fleet.NewKEK {
	t.Helper()
	var key [16]byte
	rand.Read(key[:])
	h, k, err := seal.SealKEK(b.keys.Keyring.TransportKey(), string(role), label, key[:])
	ok(t, err)
	return fleet.NewKEK{Role: role, Label: label, Header: h, Wrapped: k.Wrapped, MAC: k.MAC}
}

func (b *base) join(v lorawan.MACVersion, frame []byte) activation.JoinRequest {
	req := activation.JoinRequest{
		Requester: activation.Requester{Peer: b.network, NetID: stepNetID}, JoinEUI: stepEUI, DevEUI: b.devices[v].DevEUI(),
		MACVersion: v, PHYPayload: frame, DevAddr: lorawan.DevAddr{0x26, 1, 0x1B, 0xDA}, DLSettings: 3, RxDelay: 1,
	}
	if v.NegotiatesOptions() {
		req.DLSettings |= 0x80
	}
	return req
}

// importList imports a key list in chunks of two rows, from where its import
// stands.
func (r *rooms) importList(csv string, bind bool) error {
	ctx := r.t.Context()
	spec := provisioning.Spec{Kind: joinery.ImportKeyList, SHA256: [32]byte{1, byte(len(csv)), csv[len(csv)-2]}}
	if bind {
		spec.Bind = &joinery.Binding{NetID: stepNetID, ASID: stepASID, Policy: joinery.AppSKeyWrapped}
	}
	i, err := r.provisioning.Begin(ctx, r.base.maker, spec)
	if err != nil {
		return err
	}
	rows, err := seal.KeyList(strings.NewReader(csv), r.base.keys.Keyring.TransportKey(), seal.KeyListOptions{})
	ok(r.t, err)
	defer rows.Close()
	var all []seal.SealedRow
	for {
		row, err := rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		ok(r.t, err)
		all = append(all, row)
	}
	for i.Next < uint64(len(all)) {
		n := min(2, len(all)-int(i.Next))
		_, i, err = r.provisioning.Rows(ctx, r.base.maker, provisioning.Chunk{
			Import: i.ID, From: i.Next, Last: int(i.Next)+n == len(all), Seal: rows.Header(), Keys: all[i.Next : int(i.Next)+n],
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// networkClaim claims the 1.0.4 device for the network, with a KEK.
func (r *rooms) networkClaim(ctx context.Context) error {
	h, k, err := seal.SealKEK(r.base.keys.Keyring.TransportKey(), "as", "claimed", make([]byte, 16))
	if err != nil {
		return err
	}
	return r.networks.Claim(ctx, r.base.network, claim.NetworkClaim{
		NetworkDevice: claim.NetworkDevice{DevEUI: r.base.devices[lorawan.MAC1_0_4].DevEUI()}, OwnerToken: r.base.token,
		NetID: stepNetID, Lock: true, KEK: &claim.NetworkKEK{Header: h, Sealed: k},
	})
}

// flow is something that callers ask for. done tells of an error whether it says
// that what was asked for is so already, which is right when it is asked for
// again.
type flow struct {
	name string
	run  func(context.Context, *rooms) error
	done func(error) bool
	// once is set where asking again for what is so already changes nothing.
	once bool
	// left, where it is set, judges what a call leaves that fails and tidies up behind
	// itself, in the place of the state that was; asking again is asking for more.
	left func(context.Context, *rooms) error
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func never(error) bool { return false }

func isCode(codes ...joinery.Code) func(error) bool {
	return func(err error) bool { return slices.Contains(codes, joinery.CodeOf(err)) }
}

func flows(b *base) []flow {
	d := b.ids[lorawan.MAC1_0_4]
	network := b.network
	network.Name = "network with another name"
	answered := func(answer activation.JoinAnswer, err error) error {
		if (len(answer.PHYPayload) > 0) != (err == nil) {
			return fmt.Errorf("an answer of %d bytes with error %w", len(answer.PHYPayload), err)
		}
		return err
	}
	return []flow{
		{name: "join of a 1.0.3 device", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			return answered(r.activation.Join(ctx, b.join(lorawan.MAC1_0_3, b.frames[lorawan.MAC1_0_3])))
		}},
		{name: "join of a 1.0.4 device", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			return answered(r.activation.Join(ctx, b.join(lorawan.MAC1_0_4, b.frames[lorawan.MAC1_0_4])))
		}},
		{name: "join of a 1.1 device", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			return answered(r.activation.Join(ctx, b.join(lorawan.MAC1_1, b.frames[lorawan.MAC1_1])))
		}},
		{name: "rejoin", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			return answered(r.activation.Rejoin(ctx, b.join(lorawan.MAC1_1, b.rejoin)))
		}},
		{name: "replay", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			req := b.join(lorawan.MAC1_0_4, b.frames[lorawan.MAC1_0_4])
			if err := answered(r.activation.Join(ctx, req)); err != nil {
				return err
			}
			req.RxDelay++ // so that it is no repeat
			if err := answered(r.activation.Join(ctx, req)); joinery.CodeOf(err) != joinery.CodeReplay {
				return fmt.Errorf("a replay was not refused as one: %w", err)
			}
			return nil
		}},
		{name: "AppSKey", done: never, run: func(ctx context.Context, r *rooms) error {
			_, err := r.activation.AppSKey(ctx, activation.AppSKeyRequest{
				Peer: b.network, ASID: stepASID, JoinEUI: stepEUI, DevEUI: b.devices[lorawan.MAC1_1].DevEUI(), SessionKeyID: b.session,
			})
			return err
		}},
		{name: "HomeNS", once: true, done: never, run: func(ctx context.Context, r *rooms) error {
			_, err := r.activation.HomeNS(ctx, activation.HomeNSRequest{
				Requester: activation.Requester{Peer: b.network, NetID: stepNetID}, JoinEUI: stepEUI, DevEUI: b.devices[lorawan.MAC1_1].DevEUI(),
			})
			return err
		}},
		{name: "claim", once: true, done: isCode(joinery.CodeConflict, joinery.CodeNotFound, joinery.CodeForbidden), run: func(ctx context.Context, r *rooms) error {
			_, err := r.claim.Claim(ctx, b.owner, claim.Request{
				JoinEUI: stepEUI, DevEUI: b.devices[lorawan.MAC1_0_4].DevEUI(), OwnerToken: b.token,
				Binding: &joinery.Binding{NetID: stepNetID, ASID: stepASID, Policy: joinery.AppSKeyByID},
			})
			return err
		}},
		{name: "owner tokens", done: never, run: func(ctx context.Context, r *rooms) error {
			tokens, err := r.claim.LabelTokens(ctx, b.maker, []joinery.DeviceRef{{ID: d}, {ID: b.ids[lorawan.MAC1_1]}})
			if (len(tokens) == 2) != (err == nil) {
				return fmt.Errorf("%d tokens with error %w", len(tokens), err)
			}
			return err
		}},
		{name: "bind", done: never, run: func(ctx context.Context, r *rooms) error {
			return r.claim.Bind(ctx, b.maker, d, joinery.Binding{NetID: stepNetID, ASID: stepASID, Policy: joinery.AppSKeyByID})
		}},
		{name: "unbind", once: true, done: isCode(joinery.CodeConflict, joinery.CodeNotFound), run: func(ctx context.Context, r *rooms) error { return r.claim.Unbind(ctx, b.maker, d) }},
		{name: "claim of a network", once: true, done: never, run: func(ctx context.Context, r *rooms) error { return r.networkClaim(ctx) }},
		{name: "unclaim of a network", done: never, run: func(ctx context.Context, r *rooms) error {
			if err := r.networkClaim(ctx); err != nil {
				return err
			}
			return r.networks.Unclaim(ctx, b.network, claim.NetworkDevice{DevEUI: b.devices[lorawan.MAC1_0_4].DevEUI()})
		}},
		{name: "import of a key list", once: true, done: never, run: func(_ context.Context, r *rooms) error { return r.importList(b.list, false) }},
		{name: "new organisation", once: true, done: isCode(joinery.CodeConflict), run: func(ctx context.Context, r *rooms) error {
			_, err := r.fleet.AddOrg(ctx, operator, "third", nil)
			return err
		}},
		{name: "new range", once: true, done: isCode(joinery.CodeConflict), run: func(ctx context.Context, r *rooms) error {
			first := lorawan.EUI64FromUint64(0x70B3D57ED0009000)
			_, err := r.fleet.AssignRange(ctx, operator, joinery.JoinEUIRange{Org: b.owner.Org, EUIRange: joinery.EUIRange{First: first, Last: first}})
			return err
		}},
		{name: "new peer without KEKs", once: true, done: isCode(joinery.CodeConflict), run: func(ctx context.Context, r *rooms) error {
			_, err := r.fleet.AddPeer(ctx, operator, joinery.Peer{
				Org: b.owner.Org, Name: "clear", ASIDs: []string{"clear.example.com"}, Credentials: []joinery.Credential{{Kind: joinery.CredentialSPKI, SPKI: [32]byte{1}}}, ClearKeys: true,
			}, nil, fleet.PeerConfirm{ClearKeysFor: "clear"})
			return err
		}},
		{name: "new peer with its KEK", once: true, done: isCode(joinery.CodeConflict), run: func(ctx context.Context, r *rooms) error {
			_, err := r.fleet.AddPeer(ctx, operator, joinery.Peer{
				Org: b.owner.Org, Name: "second", NetIDs: []lorawan.NetID{{0, 0, 0x42}}, Credentials: []joinery.Credential{{Kind: joinery.CredentialSPKI, SPKI: [32]byte{2}}},
			}, []fleet.NewKEK{b.newKEK(r.t, joinery.KEKForNS, "second-1")}, fleet.PeerConfirm{})
			return err
		}},
		{name: "change of a peer", done: never, run: func(ctx context.Context, r *rooms) error {
			_, err := r.fleet.ChangePeer(ctx, operator, network, fleet.PeerConfirm{})
			return err
		}},
		{name: "removal of a peer", once: true, done: isCode(joinery.CodeNotFound), run: func(ctx context.Context, r *rooms) error {
			return r.fleet.RemovePeer(ctx, operator, b.network.ID)
		}},
		{name: "new KEK", once: true, done: isCode(joinery.CodeConflict), run: func(ctx context.Context, r *rooms) error {
			_, err := r.fleet.AddKEK(ctx, operator, b.network.ID, b.newKEK(r.t, joinery.KEKForNS, "ns-2"))
			return err
		}},
		{name: "retirement of a KEK", once: true, done: isCode(joinery.CodeConflict, joinery.CodeNotFound), run: func(ctx context.Context, r *rooms) error {
			return r.fleet.RetireKEK(ctx, operator, b.kek)
		}},
		{name: "roaming rule", done: never, run: func(ctx context.Context, r *rooms) error {
			return r.fleet.SetRoaming(ctx, b.maker, joinery.RoamingRule{Org: b.maker.Org, NetIDs: []lorawan.NetID{{0, 0, 0x42}}})
		}},
		{name: "suspension", done: never, run: func(ctx context.Context, r *rooms) error { return r.fleet.Suspend(ctx, b.maker, d, true) }},
		{name: "reset", done: never, run: func(ctx context.Context, r *rooms) error { return r.fleet.OpenReset(ctx, operator, d, 100) }},
		{name: "deletion", once: true, done: isCode(joinery.CodeNotFound), run: func(ctx context.Context, r *rooms) error { return r.fleet.Delete(ctx, b.maker, d) }},
	}
}

// P4: every call that a flow makes on store and keyring fails, once before it
// does anything and once after it took effect. The state after a restart is that
// before or after the call, whoever was told of success finds it so, and asking
// again brings what was asked for.
func TestEveryCallFails(t *testing.T) {
	b := newBase(t)
	failEach(t, b, append(flows(b), ownershipFlows(b)...))
}

func failEach(t *testing.T, b *base, list []flow) {
	t.Helper()
	calls := 0
	for _, f := range list {
		t.Run(f.name, func(t *testing.T) {
			// The states along the way, by number of calls made.
			r := b.open(t)
			states := []string{everything(t, r)}
			r.done = func() { states = append(states, everything(t, r)) }
			ok(t, f.run(t.Context(), r))
			r.done = nil
			names, last := r.calls, states[len(states)-1]
			calls += len(names)
			for n, name := range names {
				for _, after := range []bool{false, true} {
					if after && states[n] == states[n+1] && os.Getenv("JOINERY_LONG") == "" {
						continue // it changed nothing: it is the same as before
					}
					r := b.open(t)
					r.failAt, r.after = n, after
					what := fmt.Sprintf("call %d, %s, after it took effect: %t", n, name, after)
					err := f.run(t.Context(), r)
					r.reopen()
					r.fsck()
					want := states[n]
					if after {
						want = states[n+1]
					}
					switch got := everything(t, r); {
					case err == nil && got != last:
						t.Errorf("%s: success was told of\n%s\ninstead of\n%s", what, got, last)
					case err != nil && f.left != nil:
						ok(t, f.left(t.Context(), r))
					case err != nil && got != want:
						t.Errorf("%s: %v, with\n%s\ninstead of\n%s", what, err, got, want)
					case err != nil && !isCode(joinery.CodeUnavailable, joinery.CodeInternal)(err): // internal is for keys
						t.Errorf("%s: got %v", what, err)
					}
					if err != nil && f.left == nil {
						already := want == last
						if err := f.run(t.Context(), r); err != nil && (!already || !f.done(err)) {
							t.Errorf("%s: asked again: %v", what, err)
						}
						if got := everything(t, r); got != last && (!already || f.once) {
							t.Errorf("%s: asked again, there is\n%s\ninstead of\n%s", what, got, last)
						}
					}
					ok(t, r.db.Close())
					r.db = nil
				}
			}
		})
	}
	t.Logf("%d calls failed in two ways", calls)
}

func (r *rooms) fsck() {
	r.t.Helper()
	found, err := r.db.Fsck(r.t.Context(), r.base.keys.Keyring)
	ok(r.t, err)
	for _, v := range found {
		r.t.Errorf("fsck: %s", v)
	}
}

// everything is all rows of the database. Random parts are left out: of blobs
// only their length counts, and identifiers and times, which are large numbers or
// have a form of their own in text.
func everything(t *testing.T, r *rooms) string {
	t.Helper()
	c, err := sqlite.OpenConn(r.path, sqlite.OpenReadOnly)
	ok(t, err)
	defer func() { _ = c.Close() }()
	var tables []string
	ok(t, sqlitex.ExecuteTransient(c, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'store' ORDER BY name", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error { tables = append(tables, s.ColumnText(0)); return nil },
	}))
	var all strings.Builder
	for _, table := range tables {
		var rows []string
		ok(t, sqlitex.ExecuteTransient(c, "SELECT * FROM "+table, &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			rows = append(rows, rowText(s))
			return nil
		}}))
		slices.Sort(rows)
		fmt.Fprintf(&all, "%s\n%s\n", table, strings.Join(rows, "\n"))
	}
	return all.String()
}

// drawnText is what is drawn at random, or depends on the time, within text:
// identifiers, cookies and digests, times.
var drawnText = regexp.MustCompile(`\b[a-z]{3}_[0-9a-hjkmnp-tv-z]{13}\b|\b[0-9A-Fa-f]{14,}\b|\b\d{4}-\d\d-\d\dT[0-9:.]+Z`)

func rowText(s *sqlite.Stmt) string {
	var b strings.Builder
	for col := range s.ColumnCount() {
		switch s.ColumnType(col) {
		case sqlite.TypeInteger:
			drawn := s.ColumnName(col) == "tag" // at random, for each page of events
			if n := s.ColumnInt64(col); n < 1<<34 && !drawn {
				fmt.Fprintf(&b, " %d", n)
			} else {
				b.WriteString(" #")
			}
		case sqlite.TypeBlob:
			fmt.Fprintf(&b, " [%d]", s.ColumnLen(col))
		default:
			text := drawnText.ReplaceAllString(s.ColumnText(col), "#")
			if s.ColumnName(col) == "checkpoint" { // of a tree of salted leaves
				text = fmt.Sprint(len(text))
			}
			fmt.Fprintf(&b, " %q", text)
		}
	}
	return b.String()
}
