package provisioning

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/mac/subtle"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// joinRequest makes the join-request of a 1.0.x device: its MIC is the beginning
// of AES-CMAC under the root key (TS001-1.0.4 §6.2.5), computed by another
// library than ours.
func joinRequest(t testing.TB, key []byte, joinEUI, devEUI uint64) []byte {
	t.Helper()
	frame := lorawan.JoinRequest{JoinEUI: eui(joinEUI), DevEUI: eui(devEUI), DevNonce: 1}
	mac, err := subtle.NewAESCMAC(key, 16)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := mac.ComputeMAC(frame.AppendUnsigned(nil))
	if err != nil {
		t.Fatal(err)
	}
	frame.MIC = lorawan.MIC(sum[:4])
	return frame.Append(nil)
}

// readList seals a CSV as the customer's machine does, and gives its chunk.
func readList(t testing.TB, csv string) Chunk {
	t.Helper()
	r, err := seal.KeyList(strings.NewReader(csv), keys.TransportKey(), seal.KeyListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := Chunk{Seal: r.Header(), Last: true}
	for index := uint64(0); ; index++ {
		row, err := r.Next()
		var bad *seal.RowError
		switch {
		case errors.Is(err, io.EOF):
			return c
		case errors.As(err, &bad):
			c.BadRows = append(c.BadRows, joinery.RowResult{Index: index, Line: bad.Line, Reason: bad.Reason})
		case err != nil:
			t.Fatal(err)
		default:
			c.Keys = append(c.Keys, row)
		}
	}
}

func TestKeyList(t *testing.T) {
	f := newFixture(t)
	k := [][]byte{newKey(), newKey(), newKey(), newKey(), newKey()}
	csv := "JoinEUI,DevEUI,MACVersion,NwkKey,AppKey,UsedDevNonces,JoinNonceFloor\n" +
		fmt.Sprintf("%016X,%016X,1.0.3,,%X,7 65535 7,41\n", uint64(ordinary), 1, k[0]) +
		fmt.Sprintf("%016X,%016X,1.0.4,,%X,7|300|2,\n", uint64(ordinary), 2, k[1]) +
		fmt.Sprintf("%016X,%016X,1.0.2,,%X,,\n", uint64(ordinary), 3, k[2][:15]) + // a short key
		fmt.Sprintf("%016X,%016X,1.1,%X,%X,,\n", uint64(ordinary), 4, k[3], k[4]) +
		fmt.Sprintf("%016X,%016X,1.0.2,%X,,,\n", uint64(ordinary), 5, k[2]) +
		fmt.Sprintf("%016X,%016X,1.0.2,,%X,,\n", uint64(otherOrdinary), 6, k[2]) +
		fmt.Sprintf("%016X,%016X,1.0.2,,%X,,\n", uint64(elements), 7, k[2]) +
		fmt.Sprintf("%016X,%016X,1.0.2,,%X,,16777215\n", uint64(ordinary), 8, k[2])
	c := readList(t, csv)
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportKeyList, Bind: &home})
	c.Import = i.ID
	results, after := f.take(t, f.acme, c)
	if after.Created != 4 || after.Failed != 4 || !after.Done {
		t.Errorf("%+v", after)
	}
	for k, want := range []string{"", "", "key", "", "", reasonRange, reasonElements, reasonExhausted} {
		r := results[k]
		if r.Line != uint64(k)+2 || (want == "") != (r.Status == joinery.RowCreated) || !strings.Contains(strings.ToLower(r.Reason), strings.ToLower(want)) {
			t.Errorf("row %d: %+v", k, r)
		}
	}

	one, two, four, five := f.state(t, ordinary, 1), f.state(t, ordinary, 2), f.state(t, ordinary, 4), f.state(t, ordinary, 5)
	for _, s := range []joinery.ActivationState{one, two, four, five} {
		if s.KeySet.Origin != joinery.OriginSealed || s.Device.Maker != f.acme.Org || s.Binding == nil || s.Binding.ASID != home.ASID {
			t.Errorf("%+v", s)
		}
	}
	if one.KeySet.Root10 != joinery.AppKey || four.KeySet.Root10 != joinery.NwkKey || five.KeySet.Root10 != joinery.NwkKey {
		t.Errorf("1.0.x roots: %v %v %v", one.KeySet.Root10, four.KeySet.Root10, five.KeySet.Root10)
	}
	if len(four.KeySet.Nwk.Use) == 0 || len(four.KeySet.App.Use) == 0 || len(one.KeySet.Nwk.Use) != 0 || len(five.KeySet.App.Use) != 0 {
		t.Error("roots are missing, or more than were given")
	}
	// Nonces by the rule of the version.
	n1, n2 := one.KeySet.Nonces.For(eui(ordinary)), two.KeySet.Nonces.For(eui(ordinary))
	if got := slices.Collect(n1.Used.All); !slices.Equal(got, []lorawan.DevNonce{7, 65535}) || n1.Next != 0 || one.KeySet.Nonces.JoinNonce != 41 {
		t.Errorf("1.0.3: %v, next %d, JoinNonce %d", got, n1.Next, one.KeySet.Nonces.JoinNonce)
	}
	if n2.Used.Len() != 0 || n2.Next != 301 || two.KeySet.Nonces.JoinNonce != 0 {
		t.Errorf("1.0.4: %d used, next %d, JoinNonce %d", n2.Used.Len(), n2.Next, two.KeySet.Nonces.JoinNonce)
	}
	// The keys are those that were given, and bound to their own device.
	for devEUI, key := range map[uint64][]byte{1: k[0], 2: k[1], 4: k[3], 5: k[2]} {
		ks := f.state(t, ordinary, devEUI).KeySet
		if err := keys.VerifyJoin(t.Context(), ks, joinRequest(t, key, ordinary, devEUI)); err != nil {
			t.Errorf("device %d: %v", devEUI, err)
		}
		if err := keys.VerifyJoin(t.Context(), ks, joinRequest(t, newKey(), ordinary, devEUI)); !errors.Is(err, keyring.ErrMIC) {
			t.Errorf("device %d, another key: %v", devEUI, err)
		}
	}
	if err := keys.CheckKeySet(t.Context(), withRoots(two.KeySet, one.KeySet)); err == nil {
		t.Error("the roots of another key set open")
	}
	// Neither key nor ciphertext of the file is in what was stored of the import.
	failed, err := f.Errors(t.Context(), f.acme, i.ID, 0, 100)
	if err != nil || len(failed) != 4 {
		t.Fatalf("%d failed rows, %v", len(failed), err)
	}
	for _, r := range failed {
		for _, key := range k {
			if strings.Contains(strings.ToUpper(r.Reason), fmt.Sprintf("%X", key[:6])) {
				t.Errorf("a reason repeats a key: line %d", r.Line)
			}
		}
	}
}

func withRoots(ks, of joinery.KeySet) joinery.KeySet {
	ks.Nwk, ks.App = of.Nwk, of.App
	return ks
}

func TestKeyListSealing(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportKeyList})
	s := sealer(t)
	// Sealed to another server: nothing is taken, and the message says what to do.
	private, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := seal.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := seal.NewSealer(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	row := sealRow(t, foreign, 1)
	_, _, err = f.Rows(ctx, f.acme, Chunk{Import: i.ID, Seal: foreign.Header(), Keys: []seal.SealedRow{row}})
	if joinery.CodeOf(err) != joinery.CodeInvalid || !strings.Contains(joinery.MessageOf(err), "transport key") {
		t.Errorf("sealed elsewhere: %v", err)
	}
	_, _, err = f.Rows(ctx, f.acme, Chunk{Import: i.ID, Keys: []seal.SealedRow{row}})
	wantCode(t, err, joinery.CodeInvalid)
	if now, err := f.Status(ctx, f.acme, i.ID); err != nil || now.Next != 0 {
		t.Errorf("%+v, %v", now, err)
	}

	// One damaged key costs its row.
	damaged := sealRow(t, s, 2)
	damaged.AppKey[5] ^= 1
	results, _ := f.take(t, f.acme, Chunk{Import: i.ID, Seal: s.Header(), Keys: []seal.SealedRow{sealRow(t, s, 1), damaged, sealRow(t, s, 3)}})
	if results[0].Status != joinery.RowCreated || results[1].Reason != reasonTransport || results[1].Line != 2 || results[2].Status != joinery.RowCreated {
		t.Errorf("%+v", results)
	}

	// A second row for a device leaves the first one's key.
	first := f.state(t, ordinary, 1).KeySet
	results, _ = f.take(t, f.acme, Chunk{Import: i.ID, From: 3, Seal: s.Header(), Keys: []seal.SealedRow{sealRow(t, s, 1)}})
	if again := f.state(t, ordinary, 1).KeySet; results[0].Status != joinery.RowUnchanged || !bytes.Equal(again.App.Use, first.App.Use) {
		t.Errorf("%+v", results)
	}

	// A dry run opens keys, too.
	dry := f.begin(t, f.acme, Spec{Kind: joinery.ImportKeyList, DryRun: true})
	results, _ = f.take(t, f.acme, Chunk{Import: dry.ID, Seal: s.Header(), Keys: []seal.SealedRow{damaged, sealRow(t, s, 10)}})
	if results[0].Reason != reasonTransport || results[1].Status != joinery.RowCreated {
		t.Errorf("%+v", results)
	}
}

// Whoever gets a sealed list of somebody else's cannot import its keys as devices
// of his own: a changed row is refused by itself, and says why.
func TestKeyListRedirected(t *testing.T) {
	f := newFixture(t)
	s := sealer(t)
	var rows []seal.SealedRow
	for n, change := range []func(*seal.SealedRow){
		func(*seal.SealedRow) {},
		func(r *seal.SealedRow) { r.DevEUI = eui(100) },
		func(r *seal.SealedRow) { r.JoinEUI = eui(ordinary + 1) },
		func(r *seal.SealedRow) { r.MACVersion = lorawan.MAC1_0_4 },
		func(r *seal.SealedRow) { r.UsedDevNonces = nil },
		func(r *seal.SealedRow) { r.JoinNonceFloor = 0 },
		func(r *seal.SealedRow) { r.AppKey, r.MAC = rows[0].AppKey, rows[0].MAC },
	} {
		row := seal.SealedRow{
			Line: uint64(n) + 2, JoinEUI: eui(ordinary), DevEUI: eui(uint64(n) + 1), MACVersion: lorawan.MAC1_0_3,
			Root10: seal.RootAppKey, UsedDevNonces: []lorawan.DevNonce{3}, JoinNonceFloor: 4,
		}
		if err := s.SealRow(&row, nil, newKey()); err != nil {
			t.Fatal(err)
		}
		change(&row)
		rows = append(rows, row)
	}
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportKeyList})
	results, state := f.take(t, f.acme, Chunk{Import: i.ID, Last: true, Seal: s.Header(), Keys: rows})
	for n, r := range results {
		switch {
		case n == 0 && r.Status != joinery.RowCreated:
			t.Errorf("untouched row: %+v", r)
		case n > 0 && (r.Status != joinery.RowFailed || r.Reason != reasonTransport || r.Line != rows[n].Line):
			t.Errorf("changed row %d: %+v", n, r)
		}
	}
	if state.Created != 1 || state.Failed != 6 {
		t.Errorf("%+v", state)
	}
}

func TestRefuseRow(t *testing.T) {
	key, mac := make([]byte, 24), make([]byte, seal.MACLen)
	row := func(v lorawan.MACVersion, nwk, app []byte, root10 string) seal.SealedRow {
		return seal.SealedRow{JoinEUI: eui(ordinary), DevEUI: eui(1), MACVersion: v, NwkKey: nwk, AppKey: app, Root10: root10, MAC: mac}
	}
	for name, c := range map[string]struct {
		row  seal.SealedRow
		good bool
	}{
		"1.0.x, AppKey":        {row(lorawan.MAC1_0_0, nil, key, "AppKey"), true},
		"1.0.x, NwkKey":        {row(lorawan.MAC1_0_4, key, nil, "NwkKey"), true},
		"1.0.x, other root":    {row(lorawan.MAC1_0_4, key, nil, "AppKey"), false},
		"1.0.x, no key":        {row(lorawan.MAC1_0_4, nil, nil, "AppKey"), false},
		"1.1":                  {row(lorawan.MAC1_1, key, key, "NwkKey"), true},
		"1.1, one key":         {row(lorawan.MAC1_1, key, nil, "NwkKey"), false},
		"1.1, AppKey for 1.0.": {row(lorawan.MAC1_1, key, key, "AppKey"), false},
		"no version":           {row(0, nil, key, "AppKey"), false},
		"key not wrapped":      {row(lorawan.MAC1_0_3, nil, key[:16], "AppKey"), false},
		"root10 unknown":       {row(lorawan.MAC1_0_3, nil, key, "JSIntKey"), false},
	} {
		if reason := refuseRow(c.row); (reason == "") != c.good {
			t.Errorf("%s: %q", name, reason)
		}
	}
}

func TestPlaceRows(t *testing.T) {
	bad := func(indexes ...uint64) (list []joinery.RowResult) {
		for _, i := range indexes {
			list = append(list, joinery.RowResult{Index: i, Reason: "no key"})
		}
		return list
	}
	for name, c := range map[string]struct {
		chunk Chunk
		want  []uint64 // nil is refused
	}{
		"no bad rows":    {Chunk{From: 10, Keys: make([]seal.SealedRow, 3)}, []uint64{10, 11, 12}},
		"between":        {Chunk{From: 10, Keys: make([]seal.SealedRow, 3), BadRows: bad(11, 13)}, []uint64{10, 12, 14}},
		"all bad":        {Chunk{From: 10, BadRows: bad(11, 10)}, []uint64{}},
		"below":          {Chunk{From: 10, Keys: make([]seal.SealedRow, 3), BadRows: bad(9)}, nil},
		"above":          {Chunk{From: 10, Keys: make([]seal.SealedRow, 3), BadRows: bad(14)}, nil},
		"twice":          {Chunk{From: 10, Keys: make([]seal.SealedRow, 3), BadRows: bad(11, 11)}, nil},
		"far beyond all": {Chunk{From: 10, Keys: make([]seal.SealedRow, 1), BadRows: bad(1<<64 - 1)}, nil},
	} {
		_, got, err := placeRows(c.chunk)
		if (err != nil) != (c.want == nil) || err == nil && !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestCleanReason(t *testing.T) {
	const clean = "AppKey must have 32 hexadecimal digits"
	if got := cleanReason(clean); got != clean {
		t.Errorf("got %q", got)
	}
	key := fmt.Sprintf("%x", newKey())
	for _, dirty := range []string{
		"", "bad key " + key, "bad key " + strings.ToUpper(key), "key " + key[:8] + " " + key[8:16] + "-" + key[16:24] + ":" + key[24:],
		strings.Repeat("x", maxReason+1), "escape \x1b[2J", "line\nend",
	} {
		if got := cleanReason(dirty); got != "the row was refused before it was sent" {
			t.Errorf("%q passes", got)
		}
	}
}

// failing is custody that takes nothing in, for a reason that is no row's.
type failing struct {
	Keys
	err error
}

func (f failing) SealRoots(context.Context, seal.Header, []keyring.RootsIn) ([]keyring.RootsOut, error) {
	return nil, f.err
}

// Where the token takes no imported keys, or is away, no row is at fault: the whole
// chunk is refused and can be sent again.
func TestKeyListsThatCustodyDoesNotTake(t *testing.T) {
	for want, cause := range map[joinery.Code]error{
		joinery.CodeForbidden: keyring.ErrNotServed, joinery.CodeUnavailable: keyring.ErrToken,
	} {
		f := newFixture(t)
		i := f.begin(t, f.acme, Spec{Kind: joinery.ImportKeyList})
		s := sealer(t)
		f.keys = failing{keys, cause}
		_, _, err := f.Rows(t.Context(), f.acme, Chunk{Import: i.ID, Seal: s.Header(), Keys: []seal.SealedRow{sealRow(t, s, 1)}})
		wantCode(t, err, want)
		if now, err := f.Status(t.Context(), f.acme, i.ID); err != nil || now.Next != 0 {
			t.Errorf("%+v, %v", now, err)
		}
	}
}

// What another Joinery exported comes in with all that it knew of nonces: of the JoinEUI
// of now, of former ones, and RJcount1. The rows say it back as it was.
func TestMovedNonces(t *testing.T) {
	f := newFixture(t)
	to, err := exportfile.ParseRecipientDER(keys.TransportKey().MarshalDER())
	if err != nil {
		t.Fatal(err)
	}
	w, err := exportfile.NewWrapper(to, exportfile.SealOAEP256)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Wipe()
	var list []exportfile.Metadata
	c := Chunk{Last: true}
	for i, version := range []lorawan.MACVersion{lorawan.MAC1_0_3, lorawan.MAC1_0_4, lorawan.MAC1_1} {
		m := exportfile.Metadata{JoinEUI: eui(ordinary), DevEUI: eui(uint64(i) + 1), MACVersion: version, Root10: exportfile.NwkKey, JoinNonce: 77}
		for k, joinEUI := range []uint64{ordinary - 9, ordinary, ordinary + 5} {
			n := exportfile.Nonces{JoinEUI: eui(joinEUI)}
			if version.CountsDevNonces() {
				n.NextDevNonce = []uint32{1 << 16, 0, 9}[k]
			} else {
				n.UsedDevNonces = [][]lorawan.DevNonce{{0, 65535}, {4}, {1, 2, 3}}[k]
			}
			if version.HasTwoRootKeys() {
				n.NextRJCount1 = []uint32{3, 1 << 16, 0}[k]
			}
			if n.NextDevNonce > 0 || n.NextRJCount1 > 0 || n.UsedDevNonces != nil {
				m.Nonces = append(m.Nonces, n)
			}
		}
		d, err := w.Wrap(m, newKey(), newKey())
		if err != nil {
			t.Fatal(err)
		}
		list, c.Seal, c.Keys = append(list, m), *d.Seal, append(c.Keys, d.Row())
	}
	forged := c.Keys[2]
	forged.Former = forged.Former[1:]
	c.Keys = append(c.Keys, forged)
	c.Import = f.begin(t, f.acme, Spec{Kind: joinery.ImportKeyList}).ID
	results, _ := f.take(t, f.acme, c)
	if results[3].Reason != reasonTransport {
		t.Errorf("a row without a part of its history: %+v", results[3])
	}
	for i, want := range list {
		s := f.state(t, ordinary, uint64(i)+1)
		if got := keyring.ExportMetadata(s.KeySet, s.Device.JoinEUI, s.Device.MACVersion); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: row %+v\nhave %+v\nwant %+v", want.MACVersion, results[i], got, want)
		}
	}
}
