package claim

import (
	"testing"
	"time"

	"joinery"
)

// wanting is what each organisation wants of devices that it claims.
type wanting map[joinery.OrgID]joinery.AttestPolicy

func (w wanting) PolicyOf(org joinery.OrgID) joinery.AttestPolicy { return w[org] }

// TestClaimsBelowALevel: the claimant's own policy holds a claim, warns of it in the
// log, or does neither; nobody's policy holds a release, a transfer, or a new owner
// who was given the device.
func TestClaimsBelowALevel(t *testing.T) {
	w := wanting{}
	f := newFixture(t, Options{Attested: w})
	ctx := t.Context()
	devices, tokens := f.devices(t, 2, nil)
	d := devices[0]
	wants := func(a joinery.AttestAction) joinery.AttestPolicy {
		return joinery.AttestPolicy{AttestRule: joinery.AttestRule{Level: joinery.AttestPossession, Activate: joinery.AttestRefuse}, Claim: a}
	}
	w[f.acme.Org], w[f.others.Org], w[f.maker.Org] = wants(joinery.AttestRefuse), wants(joinery.AttestRefuse), wants(joinery.AttestRefuse)
	_, err := f.Claim(ctx, f.acme, request(d, tokens[0]))
	wantCode(t, err, joinery.CodeAttestation)
	if f.state(t, d.ID).Device.Ownership.Claimed() {
		t.Fatal("claimed all the same")
	}
	// The wrong token is told first, so nobody learns a level who has none.
	_, err = f.Claim(ctx, f.acme, request(d, tokens[1]))
	wantCode(t, err, joinery.CodeForbidden)

	r := joinery.AttestResult{Owner: f.maker.Org, Attestation: joinery.Attestation{
		Device: d.ID, Level: joinery.AttestPossession, Kind: joinery.EvidencePossession, Verifier: "test", At: f.clock.now().UTC().Truncate(time.Millisecond),
		Until: f.clock.now().Add(time.Hour).UTC().Truncate(time.Millisecond), Digest: [32]byte{1},
	}}
	if _, err := f.db.PutAttestation(ctx, r, joinery.AuditEntry{At: r.At, Event: joinery.AuditDeviceAttested, Org: f.maker.Org, Device: d.ID, Detail: map[string]string{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Claim(ctx, f.acme, request(d, tokens[0])); err != nil {
		t.Fatal(err)
	}
	rule := joinery.AttestRule{Level: joinery.AttestToken, Activate: joinery.AttestRefuse}
	if err := f.db.SetAttestRule(ctx, d.ID, f.acme.Org, &rule, joinery.AuditEntry{At: r.At, Event: joinery.AuditDeviceAttestRule, Org: f.acme.Org, Device: d.ID}); err != nil {
		t.Fatal(err)
	}

	// It ended, and everybody may go.
	f.clock.add(2 * time.Hour)
	f.do(t, f.acme, Act{Kind: Offering, Device: d.ID, To: f.others.Org})
	f.do(t, f.others, Act{Kind: Accepting, Device: d.ID})
	s := f.state(t, d.ID)
	if s.Device.Ownership.Org != f.others.Org || s.Device.Attested.Rule != nil {
		t.Errorf("%+v: the former owner's rule stays", s.Device)
	}
	f.do(t, f.others, Act{Kind: Releasing, Device: d.ID})

	w[f.acme.Org] = wants(joinery.AttestWarn)
	if _, err := f.Claim(ctx, f.acme, request(devices[1], tokens[1])); err != nil {
		t.Fatal(err)
	}
	claims := f.audited(t, joinery.AuditDeviceClaimed)
	if last := claims[len(claims)-1]; last.Detail["attestation"] != "L0" || last.Detail["attestationWanted"] != "L1" {
		t.Errorf("%+v", last)
	}
	f.clean(t, tokens...)
}
