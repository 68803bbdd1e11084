package provisioning

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
	"joinery/manifest"
)

var home = joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped}

func TestManifest(t *testing.T) {
	f := newFixture(t)
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4, Bind: &home})
	entries := f.maker.run(t, firstDevEUI, 3)
	results, after := f.take(t, f.acme, Chunk{Import: i.ID, Entries: entries, Last: true})
	if after.Created != 3 || after.Failed != 0 || after.Next != 3 || !after.Done {
		t.Errorf("%+v", after)
	}
	for k, r := range results {
		if r.Status != joinery.RowCreated || r.Line != uint64(k)+1 || r.DevEUI != eui(firstDevEUI+uint64(k)) {
			t.Errorf("%+v", r)
		}
		s := f.state(t, elements, firstDevEUI+uint64(k))
		d, ks := s.Device, s.KeySet
		if d.ID != r.Device || d.Maker != f.acme.Org || d.Ownership.Org != f.acme.Org || d.Ownership.Claimed() || d.MACVersion != lorawan.MAC1_0_4 {
			t.Errorf("%+v", d)
		}
		// The trap of 1.0.x: an element joins with its NwkKey.
		if ks.Origin != joinery.OriginDerived || ks.Master != master || ks.Generation != 7 || ks.Root10 != joinery.NwkKey || ks.DevEUI != d.DevEUI {
			t.Errorf("%+v", ks)
		}
		if s.Binding == nil || s.Binding.NetID != home.NetID || s.Binding.ASID != home.ASID || s.Binding.Policy != home.Policy || s.Binding.Source != "owner" {
			t.Errorf("%+v", s.Binding)
		}
		raw, serial, err := f.db.ManifestEntry(t.Context(), d.ID)
		if err != nil || !bytes.Equal(raw, signedPart(t, entries[k])) || serial != element(elements, firstDevEUI+uint64(k)).UniqueID {
			t.Errorf("entry kept: %v, serial %s", err, serial)
		}
	}

	// The same file again goes on where it stood: at its end.
	again, err := f.Begin(t.Context(), f.acme, Spec{Kind: joinery.ImportManifest, SHA256: i.SHA256, MACVersion: lorawan.MAC1_0_4, Bind: &home})
	if err != nil || again.ID != i.ID || !again.Done {
		t.Errorf("%+v, %v", again, err)
	}
	_, _, err = f.Rows(t.Context(), f.acme, Chunk{Import: i.ID, From: 3, Entries: entries})
	wantCode(t, err, joinery.CodeConflict)

	// The same elements in another file are unchanged.
	j := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4})
	results, after = f.take(t, f.acme, Chunk{Import: j.ID, Entries: entries, Last: true})
	if after.Unchanged != 3 || after.Created != 0 {
		t.Errorf("%+v", after)
	}
	for _, r := range results {
		if s := f.state(t, elements, r.DevEUI.Uint64()); r.Status != joinery.RowUnchanged || r.Device != s.Device.ID || s.Binding == nil {
			t.Errorf("%+v", r)
		}
	}
}

// How an element rekeys stands by the word of its signed manifest; where that says
// nothing, by the importer's.
func TestManifestRekeying(t *testing.T) {
	f := newFixture(t)
	says, silent := element(elements, firstDevEUI), element(elements, firstDevEUI+1)
	says.Rekey = "S"
	entries := f.maker.entries(t, says, silent)
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4, Rekey: joinery.RekeyM})
	f.take(t, f.acme, Chunk{Import: i.ID, Entries: entries, Last: true})
	for k, want := range []joinery.Device{
		{Rekey: joinery.RekeyS, RekeyWord: joinery.RekeyByManifest},
		{Rekey: joinery.RekeyM, RekeyWord: joinery.RekeyByImporter},
	} {
		if d := f.state(t, elements, firstDevEUI+uint64(k)).Device; d.Rekey != want.Rekey || d.RekeyWord != want.RekeyWord {
			t.Errorf("element %d rekeys by %s, by the word of its %s", k, d.Rekey, d.RekeyWord)
		}
	}
	_, err := f.Begin(t.Context(), f.acme, Spec{Kind: joinery.ImportManifest, SHA256: i.SHA256, MACVersion: lorawan.MAC1_0_4})
	wantCode(t, err, joinery.CodeConflict)
	_, err = f.Begin(t.Context(), f.acme, Spec{Kind: joinery.ImportKeyList, SHA256: i.SHA256, Rekey: joinery.RekeyS})
	wantCode(t, err, joinery.CodeInvalid)
}

// TestManifestAuthority: a row fails by itself and says why, and nobody
// registers what is not theirs.
func TestManifestAuthority(t *testing.T) {
	f := newFixture(t)
	stranger, theirs, noMaster := newSigner(t), newSigner(t), newSigner(t)
	f.pin(t, theirs, f.others.Org, span(otherElements, rangeSize), master)
	f.pin(t, noMaster, f.acme.Org, span(elements, rangeSize), "gone")
	one := func(s signer, joinEUI, devEUI uint64) json.RawMessage {
		return s.entries(t, element(joinEUI, devEUI))[0]
	}
	good := one(f.maker, elements, firstDevEUI)
	short := f.maker.entries(t, element(elements, firstDevEUI+1))[0]
	cases := []struct {
		name   string
		entry  json.RawMessage
		reason string // "" is created
	}{
		{"empty", json.RawMessage(`{}`), "not a flattened JWS: protected header must have alg, kid and x5t#S256, each once, and may have typ"},
		{"empty, too", json.RawMessage(`{}`), "not a flattened JWS: protected header must have alg, kid and x5t#S256, each once, and may have typ"},
		{"good", good, ""},
		{"unpinned signer", one(stranger, elements, firstDevEUI+2), manifest.ErrUnknownSigner.Error()},
		{"damaged", bytes.Replace(short, []byte(`"payload":"ey`), []byte(`"payload":"eY`), 1), manifest.ErrSignature.Error()},
		{"not JSON", json.RawMessage(`{"payload":`), "not a flattened JWS: want an object with payload, protected and signature, each once"},
		{"JoinEUI not ours", one(f.maker, 0x1122334455667788, firstDevEUI+3), reasonRange},
		{"JoinEUI of another", one(f.maker, otherElements, firstDevEUI+4), reasonRange},
		{"signer of another, our JoinEUI", one(theirs, elements, firstDevEUI+5), reasonSigner},
		{"signer of another, its JoinEUI", one(theirs, otherElements, firstDevEUI+6), reasonRange},
		{"JoinEUI beyond the signer's", one(f.maker, elements+rangeSize/2, firstDevEUI+7), reasonJoinEUI},
		{"DevEUI below the signer's", one(f.maker, elements, firstDevEUI-1), reasonDevEUI},
		{"DevEUI above the signer's", one(f.maker, elements, lastDevEUI+1), reasonDevEUI},
		{"DevEUI zero", one(f.maker, elements, 0), reasonZero},
		{"master key gone", one(noMaster, elements, firstDevEUI+8), reasonMaster},
		{"good again", good, "unchanged"},
		{"another good", one(f.maker, elements+1, firstDevEUI+9), ""},
		{"one DevEUI, two JoinEUIs", one(f.maker, elements+2, firstDevEUI+9), "the element is here already under another JoinEUI"},
	}
	var c Chunk
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest})
	c.Import, c.Last = i.ID, true
	for _, x := range cases {
		c.Entries = append(c.Entries, x.entry)
	}
	results, after := f.take(t, f.acme, c)
	var failed []joinery.RowResult
	for k, r := range results {
		want := cases[k].reason
		switch want {
		case "":
			if r.Status != joinery.RowCreated {
				t.Errorf("%s: %+v", cases[k].name, r)
			}
		case "unchanged":
			if r.Status != joinery.RowUnchanged {
				t.Errorf("%s: %+v", cases[k].name, r)
			}
		default:
			failed = append(failed, r)
			if r.Status != joinery.RowFailed || r.Reason != want || r.Device != 0 {
				t.Errorf("%s: %+v", cases[k].name, r)
			}
		}
	}
	if after.Created != 2 || after.Unchanged != 1 || after.Failed != uint64(len(failed)) {
		t.Errorf("%+v", after)
	}

	// The failed rows can be asked for later, page by page.
	var listed []joinery.RowResult
	for from := uint64(0); ; {
		page, err := f.Errors(t.Context(), f.acme, i.ID, from, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		listed = append(listed, page...)
		from = page[len(page)-1].Index + 1
	}
	if fmt.Sprint(listed) != fmt.Sprint(failed) {
		t.Errorf("listed %v\nwant %v", listed, failed)
	}

	// What is Acme's stays Acme's: the other's own signer and range do not help.
	f.pin(t, newSigner(t), f.others.Org, span(otherElements, rangeSize), master)
	j := f.begin(t, f.others, Spec{Kind: joinery.ImportManifest})
	results, _ = f.take(t, f.others, Chunk{Import: j.ID, Entries: []json.RawMessage{good, one(theirs, otherElements, firstDevEUI)}})
	if results[0].Reason != reasonRange {
		t.Errorf("%+v", results[0])
	}
	// Same master, generation and DevEUI would be the same root keys.
	if results[1].Status != joinery.RowConflict || results[1].Reason != reasonTaken {
		t.Errorf("%+v", results[1])
	}
}

// TestSignerIsAskedEachTime: a signer that is removed signs nothing more, also
// in the middle of a file.
func TestSignerIsAskedEachTime(t *testing.T) {
	f := newFixture(t)
	second := newSigner(t)
	pinned := f.pin(t, second, f.acme.Org, span(elements, rangeSize), master)
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest})
	entries := second.run(t, firstDevEUI, 2)
	f.take(t, f.acme, Chunk{Import: i.ID, Entries: entries[:1]})
	if err := f.db.RemoveSigner(t.Context(), pinned.ID, joinery.AuditEntry{At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	results, _ := f.take(t, f.acme, Chunk{Import: i.ID, From: 1, Entries: entries[1:]})
	if results[0].Reason != manifest.ErrUnknownSigner.Error() {
		t.Errorf("%+v", results[0])
	}
}

func TestBegin(t *testing.T) {
	f := newFixture(t)
	sum := sha256.Sum256([]byte("file"))
	nobody := f.newOrg(t, "Nobody")
	good := Spec{Kind: joinery.ImportManifest, SHA256: sum, MACVersion: lorawan.MAC1_1}
	locked := joinery.Binding{Locked: true}
	for name, c := range map[string]struct {
		caller joinery.Caller
		edit   func(*Spec)
		want   joinery.Code
	}{
		"no hash":               {f.acme, func(s *Spec) { s.SHA256 = [32]byte{} }, joinery.CodeInvalid},
		"no kind":               {f.acme, func(s *Spec) { s.Kind = "" }, joinery.CodeInvalid},
		"no version":            {f.acme, func(s *Spec) { s.MACVersion = 0 }, joinery.CodeInvalid},
		"key list with version": {f.acme, func(s *Spec) { s.Kind = joinery.ImportKeyList }, joinery.CodeInvalid},
		"bad binding":           {f.acme, func(s *Spec) { s.Bind = &joinery.Binding{Policy: joinery.AppSKeyByID} }, joinery.CodeInvalid},
		"locked binding":        {f.acme, func(s *Spec) { s.Bind = &locked }, joinery.CodeInvalid},
		"for another":           {f.acme, func(s *Spec) { s.Org = f.others.Org }, joinery.CodeNotFound},
		"operator for nobody":   {joinery.Caller{Operator: true}, func(*Spec) {}, joinery.CodeInvalid},
		"operator for one":      {joinery.Caller{Operator: true}, func(s *Spec) { s.Org = f.others.Org }, ""},
		"without a range":       {nobody, func(*Spec) {}, joinery.CodeForbidden},
		"without a range, dry":  {nobody, func(s *Spec) { s.DryRun = true }, joinery.CodeForbidden},
		"no organisation":       {joinery.Caller{}, func(*Spec) {}, joinery.CodeInvalid},
		"same file of another":  {f.others, func(*Spec) {}, ""},
		"same file, other kind": {f.acme, func(s *Spec) { s.Kind, s.MACVersion = joinery.ImportKeyList, 0 }, ""},
		"as it should be":       {f.acme, func(*Spec) {}, ""},
	} {
		spec := good
		c.edit(&spec)
		if _, err := f.Begin(t.Context(), c.caller, spec); joinery.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}

	first := f.begin(t, f.acme, good)
	for name, edit := range map[string]func(*Spec){
		"other version": func(s *Spec) { s.MACVersion = lorawan.MAC1_0_3 },
		"now bound":     func(s *Spec) { s.Bind = &home },
	} {
		spec := good
		edit(&spec)
		if _, err := f.Begin(t.Context(), f.acme, spec); joinery.CodeOf(err) != joinery.CodeConflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	if again := f.begin(t, f.acme, good); again.ID != first.ID {
		t.Error("the same file is another import")
	}
}

// TestForeignImportIsAbsent asks for another's import and for one that never
// was.
func TestForeignImportIsAbsent(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	for _, dry := range []bool{false, true} {
		i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, DryRun: dry})
		answers := func(id joinery.ImportID) [3]error {
			_, status := f.Status(ctx, f.others, id)
			_, _, rows := f.Rows(ctx, f.others, Chunk{Import: id})
			_, errs := f.Errors(ctx, f.others, id, 0, 10)
			return [3]error{status, rows, errs}
		}
		absent := answers(joinery.NewImportID())
		for k, err := range answers(i.ID) {
			if joinery.CodeOf(err) != joinery.CodeNotFound || err.Error() != absent[k].Error() {
				t.Errorf("dry %v, call %d: %v; absent %v", dry, k, err, absent[k])
			}
		}
	}
}

func TestChunks(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest})
	entries := f.maker.run(t, firstDevEUI, 9)
	for name, c := range map[string]struct {
		chunk Chunk
		want  joinery.Code
	}{
		"too many":    {Chunk{Entries: make([]json.RawMessage, joinery.MaxImportRows+1)}, joinery.CodeTooLarge},
		"none":        {Chunk{}, joinery.CodeInvalid},
		"from beyond": {Chunk{From: 1, Entries: entries}, joinery.CodeConflict},
		"other kind":  {Chunk{BadRows: make([]joinery.RowResult, 1)}, joinery.CodeInvalid},
	} {
		c.chunk.Import = i.ID
		if _, _, err := f.Rows(ctx, f.acme, c.chunk); joinery.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}

	// The answer to a chunk is lost: the client asks where to go on.
	f.take(t, f.acme, Chunk{Import: i.ID, Entries: entries[:4]})
	_, stands, err := f.Rows(ctx, f.acme, Chunk{Import: i.ID, Entries: entries[:4]})
	wantCode(t, err, joinery.CodeConflict)
	if stands.Next != 4 {
		t.Errorf("stands at %d", stands.Next)
	}
	if s, err := f.Status(ctx, f.acme, i.ID); err != nil || s.Next != 4 || s.Created != 4 {
		t.Errorf("%+v, %v", s, err)
	}

	// Two clients send the same file at once: each chunk counts once.
	var wait sync.WaitGroup
	codes := make([]joinery.Code, 8)
	for k := range codes {
		wait.Go(func() {
			_, _, err := f.Rows(ctx, f.acme, Chunk{Import: i.ID, From: 4, Entries: entries[4:]})
			codes[k] = joinery.CodeOf(err)
		})
	}
	wait.Wait()
	won := 0
	for _, code := range codes {
		if code == "" {
			won++
		} else if code != joinery.CodeConflict {
			t.Errorf("code %q", code)
		}
	}
	if won != 1 {
		t.Errorf("%d chunks counted", won)
	}
	// A file may end with nothing more to send.
	_, done := f.take(t, f.acme, Chunk{Import: i.ID, From: 9, Last: true})
	if !done.Done || done.Created != 9 {
		t.Errorf("%+v", done)
	}
	entriesOf := 0
	list, err := f.db.AuditEntries(ctx, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Event == joinery.AuditDeviceImported {
			entriesOf++
			if e.Actor != f.acme.Name || e.Org != f.acme.Org || e.Detail["import"] != i.ID.String() {
				t.Errorf("%+v", e)
			}
		}
	}
	if entriesOf != 3 {
		t.Errorf("%d chunks in the audit log", entriesOf)
	}
}

func TestDryRun(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	entries := f.maker.run(t, firstDevEUI, 3)
	begun := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest})
	f.take(t, f.acme, Chunk{Import: begun.ID, Entries: entries[:1]})

	dry := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, DryRun: true})
	entries = append(entries, newSigner(t).run(t, firstDevEUI, 1)...)
	results, after := f.take(t, f.acme, Chunk{Import: dry.ID, Entries: entries[:2]})
	if results[0].Status != joinery.RowUnchanged || results[1].Status != joinery.RowCreated || results[1].Device != 0 || after.Next != 2 {
		t.Errorf("%+v, %+v", results, after)
	}
	_, _, err := f.Rows(ctx, f.acme, Chunk{Import: dry.ID, Entries: entries[:2]})
	wantCode(t, err, joinery.CodeConflict)
	results, after = f.take(t, f.acme, Chunk{Import: dry.ID, From: 2, Entries: entries[2:], Last: true})
	if results[1].Reason != manifest.ErrUnknownSigner.Error() || after.Created != 2 || after.Unchanged != 1 || after.Failed != 1 || !after.Done {
		t.Errorf("%+v, %+v", results, after)
	}
	_, err = f.db.LoadActivation(ctx, eui(elements), eui(firstDevEUI+1))
	wantCode(t, err, joinery.CodeUnknownDevice)
	if s, err := f.Status(ctx, f.acme, dry.ID); err != nil || !s.Done {
		t.Errorf("%+v, %v", s, err)
	}

	// Another version or another owner of what is there is no plan.
	other := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4, DryRun: true})
	if results, _ = f.take(t, f.acme, Chunk{Import: other.ID, Entries: entries[:1]}); results[0].Reason != reasonOtherMAC {
		t.Errorf("%+v", results[0])
	}

	// An hour later it is forgotten, and many dry runs do not pile up.
	f.now = func() time.Time { return time.Now().Add(dryRunLife + time.Minute) }
	_, err = f.Status(ctx, f.acme, dry.ID)
	wantCode(t, err, joinery.CodeNotFound)
	for range 3 * maxDryRuns {
		f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, DryRun: true})
	}
	if n := len(f.dry.runs); n > maxDryRuns {
		t.Errorf("%d dry runs kept", n)
	}

	// Nor do they push out another organisation's.
	foreign := f.begin(t, f.others, Spec{Kind: joinery.ImportManifest, DryRun: true})
	for range 3 * maxDryRuns {
		f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest, DryRun: true})
	}
	if _, err := f.Status(ctx, f.others, foreign.ID); err != nil {
		t.Errorf("another organisation's dry run: %v", err)
	}
}

// TestManyElements imports in full chunks and looks at the memory.
func TestManyElements(t *testing.T) {
	const chunks = 8
	f := newFixture(t)
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest})
	var stats runtime.MemStats
	var first, last uint64
	var spent time.Duration
	for k := range uint64(chunks) {
		from := k * joinery.MaxImportRows
		entries := f.maker.run(t, firstDevEUI+from, joinery.MaxImportRows)
		begun := time.Now()
		_, i = f.take(t, f.acme, Chunk{Import: i.ID, From: from, Entries: entries, Last: k == chunks-1})
		spent += time.Since(begun)
		runtime.GC()
		runtime.ReadMemStats(&stats)
		if last = stats.HeapAlloc; k == 1 {
			first = last
		}
	}
	if i.Created != chunks*joinery.MaxImportRows || !i.Done {
		t.Errorf("%+v", i)
	}
	if last > first+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes", first, last)
	}
	t.Logf("%.0f elements a second", float64(i.Created)/spent.Seconds())
}

func BenchmarkManifestRows(b *testing.B) {
	f := newFixture(b)
	entries := f.maker.run(b, firstDevEUI, joinery.MaxImportRows)
	for b.Loop() {
		i := f.begin(b, f.acme, Spec{Kind: joinery.ImportManifest, DryRun: true})
		f.take(b, f.acme, Chunk{Import: i.ID, Entries: entries})
	}
	b.ReportMetric(float64(b.N*len(entries))/b.Elapsed().Seconds(), "entries/s")
}

// signedPart is what is kept of an entry.
func signedPart(t testing.TB, raw []byte) []byte {
	t.Helper()
	part, err := manifest.SignedPart(raw)
	if err != nil {
		t.Fatal(err)
	}
	return part
}

// Whoever hands a manifest on can write into its entries beside what is signed. None
// of that is kept, and it decides nothing.
func TestUnsignedMembersAreNotKept(t *testing.T) {
	f := newFixture(t)
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest})
	entry := f.maker.run(t, firstDevEUI, 1)[0]
	planted := bytes.Replace(entry, []byte(`"header":{`), []byte(`"planted":"top","header":{"planted":"header",`), 1)
	if bytes.Equal(planted, entry) {
		t.Fatal("the entry has no header")
	}
	results, _ := f.take(t, f.acme, Chunk{Import: i.ID, Entries: []json.RawMessage{planted}, Last: true})
	if results[0].Status != joinery.RowCreated {
		t.Fatalf("%+v", results[0])
	}
	kept, _, err := f.db.ManifestEntry(t.Context(), results[0].Device)
	if err != nil || !bytes.Equal(kept, signedPart(t, entry)) || bytes.Contains(kept, []byte("planted")) || bytes.Contains(kept, []byte("header")) {
		t.Errorf("%s, %v", kept, err)
	}
}

// Whoever gives room for rows learns when these merely wait for the ones before them.
func TestRowsThatWaitSaySo(t *testing.T) {
	f := newFixture(t)
	i := f.begin(t, f.acme, Spec{Kind: joinery.ImportManifest})
	entries := f.maker.run(t, firstDevEUI, 2)
	checked := make(chan struct{})
	later := make(chan error, 1)
	go func() {
		_, _, err := f.Rows(t.Context(), f.acme, Chunk{Import: i.ID, From: 1, Entries: entries[1:], Last: true, Checked: func() { close(checked) }})
		later <- err
	}()
	select {
	case <-checked:
	case err := <-later:
		t.Fatalf("the second row was over before the first came: %v", err)
	}
	if _, _, err := f.Rows(t.Context(), f.acme, Chunk{Import: i.ID, Entries: entries[:1]}); err != nil {
		t.Error(err)
	}
	// Where the first came too late the second says where the import stands.
	if err := <-later; err != nil && joinery.CodeOf(err) != joinery.CodeConflict {
		t.Error(err)
	}
}
