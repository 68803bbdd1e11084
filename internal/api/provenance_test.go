package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"joinery"
	"joinery/auditlog"
	"joinery/client"
	"joinery/internal/exportfile"
	"joinery/lorawan"
	"joinery/manifest/manifesttest"
)

// trader is an organisation with a client of its own.
type trader struct {
	*client.Client
	org joinery.OrgID
}

func (f *fixture) trader(t *testing.T, name string) trader {
	t.Helper()
	made, err := f.operator.AddOrganisation(t.Context(), client.NewOrganisation{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	key, err := f.operator.MakeAPIKey(t.Context(), client.NewAPIKey{Name: name + " script", Organisation: made.ID, Scopes: scriptRights})
	if err != nil {
		t.Fatal(err)
	}
	return trader{f.as(t, key.Text), made.ID}
}

// anybodysKey is the log's key as everybody reads it, without a credential.
func (f *fixture) anybodysKey(t *testing.T) auditlog.Key {
	t.Helper()
	resp, err := http.Get(f.url + "/log/key")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	key, err := auditlog.ParseKey(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sequenced takes what was committed into the feed, which the log follows.
func (f *fixture) sequenced(ctx context.Context) error {
	_, err := f.db.Sequence(ctx, false)
	return err
}

// shows is the file that a seller gives to a buyer: how things stand is stated in
// the log before.
func (f *fixture) shows(t *testing.T, seller *client.Client, id joinery.DeviceID) (b auditlog.Bundle) {
	t.Helper()
	if err := seller.StateProvenance(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.db.BeginFeed(t.Context()), f.sequenced(t.Context()), f.publish(t.Context())); err != nil {
		t.Fatal(err)
	}
	page, err := seller.Provenance(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	return bundleOf(t, page)
}

// bundleOf is a page as the file that joinctl makes of it.
func bundleOf(t *testing.T, page client.CustodyPage) (b auditlog.Bundle) {
	t.Helper()
	text, err := json.Marshal(page)
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.Format = auditlog.BundleFormat
	return b
}

// exports has root keys of devices exported, up to the file.
func (f *fixture) exports(t *testing.T, owner *client.Client, kind string, to exportfile.Recipient, key string, ids ...joinery.DeviceID) (joinery.ExportID, client.ExportFilePage) {
	t.Helper()
	r, err := owner.AddRecipient(t.Context(), client.NewRecipient{Name: "to " + kind, Kind: kind, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	var refs []client.DeviceRef
	for _, id := range ids {
		refs = append(refs, client.DeviceRef{Device: id})
	}
	e, err := owner.RequestExport(t.Context(), client.NewExport{Recipient: r.ID, Devices: refs})
	if err != nil {
		t.Fatal(err)
	}
	f.wrap(t, e.ID, to)
	page, err := owner.ExportFile(t.Context(), e.ID, client.ExportFileQuery{})
	if err != nil {
		t.Fatal(err)
	}
	return e.ID, page
}

// TestChangesHands: maker, distributor, owner, next owner. Each buyer has nothing but
// the seller's file and the log's public key, and sees before he accepts who had the
// device and whether its root keys were ever disclosed; nobody can leave that out.
func TestChangesHands(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	chip := manifesttest.NewMaker(t)
	maker := trader{f.pinMaker(t, chip), f.orgA}
	sum := sha256.Sum256([]byte("manifest"))
	i, err := maker.BeginImport(ctx, client.NewImport{Kind: "manifest", SHA256: hex.EncodeToString(sum[:]), MACVersion: lorawan.MAC1_0_4})
	if err != nil {
		t.Fatal(err)
	}
	p, err := maker.ImportRows(ctx, i.ID, client.ImportRows{Last: true, Entries: chips(chip, 2)})
	if err != nil || p.Import.Created != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	exported, kept := p.Results[0].Device, p.Results[1].Device
	trust := auditlog.Trust{Key: f.anybodysKey(t)}

	var export joinery.ExportID
	var asked joinery.OrgID
	seller := maker
	for epoch, buyer := range []trader{f.trader(t, "Distributor"), f.trader(t, "Owner"), f.trader(t, "Next owner")} {
		if epoch == 2 { // the owner has root keys of one exported, to a file, before he sells
			to := recipientKey(t)
			export, _ = f.exports(t, seller.Client, "file", to, string(to.MarshalJWK()), exported)
			asked = seller.org
		}
		for _, id := range []joinery.DeviceID{exported, kept} {
			if _, err := seller.OfferTransfer(ctx, id, client.NewTransfer{Recipient: buyer.org}); err != nil {
				t.Fatal(err)
			}
			b := f.shows(t, seller.Client, id)
			r := auditlog.Verify(b, trust)
			disclosed := epoch == 2 && id == exported
			if !r.OK() || r.Began == nil || r.Began.Manifest == "" || len(r.Links) != epoch || r.Stated == nil || r.Stated.Epoch != uint32(epoch) {
				t.Fatalf("before hand %d: %+v", epoch+1, r)
			}
			if r.Stated.Disclosed != disclosed || r.Stated.Outside || (len(r.Disclosures) == 1) != disclosed {
				t.Fatalf("what the buyer of hand %d is told of the keys: %+v", epoch+1, r)
			}
			if disclosed {
				f.leavesOut(t, b, trust)
			}
			if _, err := buyer.AcceptTransfer(ctx, id, client.Acceptance{}); err != nil {
				t.Fatal(err)
			}
		}
		seller = buyer
	}
	// He bought it all the same. It stays known, and no file from before hides it.
	d, err := seller.Device(ctx, exported)
	if err != nil || d.Exposed != "disclosed" || !d.Disclosed {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = seller.Device(ctx, kept); err != nil || d.Exposed != "none" {
		t.Errorf("%+v, %v", d, err)
	}
	r := auditlog.Verify(f.shows(t, seller.Client, exported), trust)
	if !r.OK() || !r.Stated.Disclosed || len(r.Disclosures) != 1 || !r.Links[2].Disclosed || r.Links[1].Disclosed {
		t.Errorf("%+v", r)
	}
	// And he has it proved who asked for the export, and that it was for this device.
	page, err := seller.Custody(ctx, exported, client.CustodyQuery{})
	if err != nil {
		t.Fatal(err)
	}
	r = auditlog.Verify(bundleOf(t, page), trust)
	if !r.OK() || len(r.Notes) > 0 || r.Began == nil || r.Began.By == "" || len(r.Orders) != 1 {
		t.Fatalf("%+v", r)
	}
	o := r.Orders[0]
	if o.Reference != export.String() || !o.Member || o.Devices != 1 || o.Org != asked.String() || o.Key != r.Disclosures[0].Recipient || len(o.Steps) != 2 ||
		o.Steps[0].What != "requested" || !strings.HasPrefix(o.Steps[0].By, "key key_") || o.Steps[1].What != "ready" {
		t.Errorf("%+v", o)
	}
	if page, err = seller.Custody(ctx, kept, client.CustodyQuery{}); err != nil || len(page.Sets) != 0 || len(auditlog.Verify(bundleOf(t, page), trust).Orders) != 0 {
		t.Errorf("of the one that was not exported: %+v, %v", page.Sets, err)
	}
}

// leavesOut shows that a seller who takes the disclosure out of his file is found out.
func (f *fixture) leavesOut(t *testing.T, b auditlog.Bundle, trust auditlog.Trust) {
	t.Helper()
	says := func(event string) func(auditlog.Entry) bool {
		return func(e auditlog.Entry) bool { return strings.Contains(string(e.Payload), event) }
	}
	without := b
	without.Entries = slices.DeleteFunc(slices.Clone(b.Entries), says(auditlog.EventExposed))
	if r := auditlog.Verify(without, trust); r.OK() || len(without.Entries) == len(b.Entries) {
		t.Errorf("a disclosure that is left out is not found: %+v", r)
	}
	without.Entries = slices.DeleteFunc(without.Entries, says(auditlog.EventStated))
	if r := auditlog.Verify(without, trust); r.Stated != nil || len(r.Notes) == 0 {
		t.Errorf("without the statement nothing says that it is missing: %+v", r)
	}
}

// TestExposureTravels: what another Joinery knew of disclosures comes with the devices
// that it exported, and nobody on the way takes it out.
func TestExposureTravels(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	if _, err := f.operator.AssignJoinEUIRange(ctx, client.NewJoinEUIRange{EUIRange: euiRange(t, "70B3D57ED0000000", "70B3D57ED00000FF"), Organisation: f.orgA}); err != nil {
		t.Fatal(err)
	}
	owner := f.as(t, f.keyA)
	d := f.importDevice(t, owner, eui(t, "70B3D57ED0000000"), eui(t, "0004A310001AA90A"))
	if d.Exposed != "outside" || d.Disclosed || d.Told != nil {
		t.Errorf("a device of a key list: %+v", d)
	}
	trust := auditlog.Trust{Key: f.anybodysKey(t)}
	if r := auditlog.Verify(f.shows(t, owner, d.ID), trust); !r.OK() || !r.Stated.Outside || r.Stated.Disclosed {
		t.Errorf("%+v", r)
	}
	laptop := recipientKey(t)
	first, _ := f.exports(t, owner, "file", laptop, string(laptop.MarshalJWK()), d.ID)
	transport, err := owner.TransportKey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	server, err := exportfile.ParseRecipient([]byte(transport.PEM))
	if err != nil {
		t.Fatal(err)
	}
	second, page := f.exports(t, owner, "join-server", server, transport.PEM, d.ID)
	if err := owner.DeleteDevice(ctx, d.ID); err != nil {
		t.Fatal(err)
	}

	gives := func(line string) client.RowResult {
		t.Helper()
		sum := sha256.Sum256(randomKey(32))
		i, err := owner.BeginImport(ctx, client.NewImport{Kind: "key-list", SHA256: hex.EncodeToString(sum[:])})
		if err != nil {
			t.Fatal(err)
		}
		p, err := owner.ImportRows(ctx, i.ID, client.ImportRows{Last: true, ExportHeader: page.Header, Exported: []string{line}})
		if err != nil {
			t.Fatal(err)
		}
		return p.Results[0]
	}
	h, err := exportfile.ParseHeader([]byte(page.Header))
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(*exportfile.Device){
		"the disclosures taken out": func(d *exportfile.Device) { d.Exposure.Times, d.Exposure.Disclosed = nil, false },
		"nothing said any more":     func(d *exportfile.Device) { d.Exposure = nil },
		"former keys made of them":  func(d *exportfile.Device) { d.Exposure.Times[0].Former = true },
		"from nowhere else":         func(d *exportfile.Device) { d.Exposure.Outside = false },
	} {
		changed, err := exportfile.ParseDevice([]byte(page.Items[0]), h)
		if err != nil {
			t.Fatal(err)
		}
		do(&changed)
		line, err := exportfile.MarshalDevice(changed)
		if err != nil {
			t.Fatal(err)
		}
		if r := gives(string(line)); r.Status != "failed" || !strings.Contains(r.Reason, "signed") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	r := gives(page.Items[0])
	if r.Status != "created" {
		t.Fatalf("%+v", r)
	}
	d, err = owner.Device(ctx, r.Device)
	if err != nil || d.Exposed != "disclosed" || d.Told == nil || d.Told.Server != h.Server || d.Told.Signer != h.Signer.Thumbprint() || !d.Told.Outside {
		t.Fatalf("%+v, %v", d, err)
	}
	known, err := owner.Disclosures(ctx, r.Device)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, x := range known {
		if x.ToldBy == h.Server {
			told = append(told, x.Reference+" "+x.Kind)
		}
	}
	slices.Sort(told)
	want := []string{first.String() + " file", second.String() + " join-server"}
	slices.Sort(want)
	if !slices.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
	shown := auditlog.Verify(f.shows(t, owner, r.Device), trust)
	if !shown.OK() || !shown.Stated.Disclosed || len(shown.Told) != 1 || shown.Told[0].Server != h.Server || len(shown.Disclosures) != 2 || shown.Disclosures[0].ToldBy != h.Server {
		t.Errorf("%+v", shown)
	}
}
