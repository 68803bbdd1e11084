package refusal

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"joinery"
	"joinery/lorawan"
)

// samples is at least one refusal of every reason, as they come from the field.
func samples() []joinery.Refusal {
	peer := joinery.Peer{ID: 1}
	bound := joinery.ActivationState{Device: joinery.Device{ID: 2, DevEUI: devEUI(1), Ownership: joinery.Ownership{Org: 3}}}
	sample := func(reason joinery.RefusalReason, change ...func(*joinery.Refusal)) joinery.Refusal {
		x := about(peer, bound, reason, 0)
		for _, c := range change {
			c(&x)
		}
		return x
	}
	nsid := lorawan.EUI64FromUint64(0x70B3D57ED0000042)
	problem := func(text string) func(*joinery.Refusal) {
		return func(x *joinery.Refusal) { x.Received.Problem = text }
	}
	receivedNSID := func(x *joinery.Refusal) { x.Received.NSID, x.Received.ProtocolVersion = lorawan.EUI64{1}, "1.1" }
	boundNSID := func(x *joinery.Refusal) { x.Received.NetID, x.Decided.NSID = home, nsid }
	netID := func(id lorawan.NetID) func(*joinery.Refusal) {
		return func(x *joinery.Refusal) { x.Received.NetID, x.Received.SenderID = id, id.String() }
	}
	count := func(n uint16) func(*joinery.Refusal) { return func(x *joinery.Refusal) { x.Received.Count = n } }
	next := func(n uint32) func(*joinery.Refusal) { return func(x *joinery.Refusal) { x.Decided.Next = n } }
	rejoin := func(frame string) func(*joinery.Refusal) {
		return func(x *joinery.Refusal) {
			x.Received.Message, x.Received.Frame, x.Received.MACVersion = "RejoinReq", frame, lorawan.MAC1_1
		}
	}
	fetch := func(x *joinery.Refusal) {
		x.Received.Message, x.Received.SenderID, x.Received.Frame = "AppSKeyReq", "as.other.example", ""
		x.Received.NetID = lorawan.NetID{}
	}
	provisioned := func(v lorawan.MACVersion, root joinery.RootKey) func(*joinery.Refusal) {
		return func(x *joinery.Refusal) { x.Decided.MACVersion, x.Decided.Root10 = v, root }
	}
	return []joinery.Refusal{
		{Reason: joinery.RefusedUnreadable, Received: joinery.Received{Problem: "the body is not one JSON object"}},
		sample(joinery.RefusedProtocolVersion),
		sample(joinery.RefusedMalformed, problem("MACVersion: want 1.0.0 to 1.1.0")),
		sample(joinery.RefusedSenderNetID),
		sample(joinery.RefusedSenderNetID, netID(lorawan.NetID{})),
		sample(joinery.RefusedSenderNSID, receivedNSID),
		sample(joinery.RefusedSenderASID, fetch),
		sample(joinery.RefusedSenderASID, fetch, func(x *joinery.Refusal) { x.Received.SenderID = "000013" }),
		sample(joinery.RefusedPeerRemoved),
		sample(joinery.RefusedFrame, problem("PHYPayload is not a join-request of 23 bytes")),
		sample(joinery.RefusedJoinEUI),
		sample(joinery.RefusedEUIMismatch, problem("DevEUI in PHYPayload differs from DevEUI in the message")),
		sample(joinery.RefusedCFList),
		sample(joinery.RefusedOptNeg, func(x *joinery.Refusal) { x.Received.OptNeg = true }),
		sample(joinery.RefusedOptNeg, provisioned(lorawan.MAC1_1, joinery.NwkKey), func(x *joinery.Refusal) { x.Received.MACVersion = lorawan.MAC1_1 }),
		sample(joinery.RefusedFenced),
		sample(joinery.RefusedUnknownDevice),
		sample(joinery.RefusedNotBound, func(x *joinery.Refusal) { x.Decided.Bound = false }),
		sample(joinery.RefusedOtherNetwork),
		sample(joinery.RefusedOtherNetwork, netID(lorawan.NetID{})),
		sample(joinery.RefusedNSIDMissing, boundNSID),
		sample(joinery.RefusedNSIDMissing, boundNSID, func(x *joinery.Refusal) { x.Received.ProtocolVersion = "1.1" }),
		sample(joinery.RefusedOtherNSID, boundNSID, receivedNSID),
		sample(joinery.RefusedSuspended),
		sample(joinery.RefusedMoved),
		sample(joinery.RefusedMACVersion, func(x *joinery.Refusal) { x.Received.MACVersion = lorawan.MAC1_1 }),
		sample(joinery.RefusedLapsed, func(x *joinery.Refusal) { x.Decided.ServiceEnd = "2027-11-22T14:03:11Z" }),
		sample(joinery.RefusedAttestation, func(x *joinery.Refusal) { x.Decided.AttestLevel, x.Decided.AttestWanted = "L0", "L2" }),
		sample(joinery.RefusedMIC),
		sample(joinery.RefusedMIC, provisioned(lorawan.MAC1_0_3, joinery.AppKey)),
		sample(joinery.RefusedMIC, provisioned(lorawan.MAC1_1, joinery.NwkKey)),
		sample(joinery.RefusedMIC, rejoin("rejoin-1")),
		sample(joinery.RefusedNoSession, rejoin("rejoin-0")),
		sample(joinery.RefusedRejoinNetID, rejoin("rejoin-2")),
		sample(joinery.RefusedDevNonceUsed, provisioned(lorawan.MAC1_0_3, joinery.AppKey), count(41_017)),
		sample(joinery.RefusedDevNonceUsed, provisioned(lorawan.MAC1_0_3, joinery.AppKey), count(1)),
		sample(joinery.RefusedDevNonceLow),
		sample(joinery.RefusedDevNonceLow, count(300), next(900)),
		sample(joinery.RefusedDevNonceLow, count(0), next(900)),
		sample(joinery.RefusedRJCountLow, rejoin("rejoin-1")),
		sample(joinery.RefusedDevNonceEnd),
		sample(joinery.RefusedRJCountEnd, rejoin("rejoin-0")),
		sample(joinery.RefusedJoinNonceEnd),
		sample(joinery.RefusedNSKEK),
		sample(joinery.RefusedNoAS),
		sample(joinery.RefusedNoAS, func(x *joinery.Refusal) { x.Decided.ASID = "" }),
		sample(joinery.RefusedASKEK),
		sample(joinery.RefusedSessionUnknown, fetch),
		sample(joinery.RefusedOtherAS, fetch),
		sample(joinery.RefusedOtherAS, fetch, func(x *joinery.Refusal) { x.Decided.ASID = "" }),
		sample(joinery.RefusedSessionEnded, fetch),
		sample(joinery.RefusedNoRoaming, func(x *joinery.Refusal) { x.Received.Message, x.Received.Frame = "HomeNSReq", "" }),
		sample(joinery.RefusedUnavailable),
		sample(joinery.RefusedInternal),
		sample("of-a-later-version"),
	}
}

// What people read, word by word.
func TestExplanations(t *testing.T) {
	var got strings.Builder
	seen := map[joinery.RefusalReason]bool{}
	for _, x := range samples() {
		seen[x.Reason] = true
		c := joinery.RefusalCount{Refusal: x, Count: 1}
		owner, operator := explain(c, toOwner), explain(c, toOperator)
		fmt.Fprintf(&got, "%s\n  owner:    %s\n  operator: %s\n", x.Reason, owner.What, operator.What)
		if owner.Remedy == "" || owner.Remedy != operator.Remedy {
			t.Errorf("%s: remedies %q, %q", x.Reason, owner.Remedy, operator.Remedy)
		}
		if strings.Contains(owner.What, "%!") || strings.Contains(owner.What, "..") {
			t.Errorf("%s: %s", x.Reason, owner.What)
		}
	}
	for _, reason := range joinery.RefusalReasons {
		if !seen[reason] {
			t.Errorf("no sample of %s", reason)
		}
	}
	const golden = "testdata/explanations.txt"
	if *update {
		ok(t, os.MkdirAll("testdata", 0o750))
		ok(t, os.WriteFile(golden, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(golden)
	ok(t, err)
	if got.String() != string(want) {
		t.Errorf("got\n%s", got.String())
	}
	const promised = "Network 000013 tried to join your device; you allowed 000042 only."
	if !strings.Contains(got.String(), promised) {
		t.Errorf("nobody is told %q", promised)
	}
}

func TestSummary(t *testing.T) {
	bound := joinery.ActivationState{
		Device:  joinery.Device{JoinEUI: joinEUI, DevEUI: devEUI(1)},
		Binding: &joinery.Binding{NetID: home, ASID: "as.example.com", Policy: joinery.AppSKeyByID},
	}
	joined, suspended, unbound, reset := bound, bound, bound, bound
	joined.Device.MACVersion = lorawan.MAC1_0_4
	joined.KeySet.Root10 = joinery.NwkKey
	element, listed := bound, bound
	element.Device.MACVersion, element.Device.LastJoinAt, element.KeySet.Root10 = lorawan.MAC1_1, noon, joinery.NwkKey
	listed.Device.MACVersion, listed.Device.LastJoinAt, listed.KeySet.Root10 = lorawan.MAC1_1, noon, joinery.AppKey
	joined.Device.LastJoinAt = noon
	suspended.Device.Suspended = true
	suspended.Binding = &joinery.Binding{NetID: home, NSID: lorawan.EUI64{1}, Policy: joinery.AppSKeyWrapped}
	unbound.Binding = nil
	reset.KeySet.Nonces.ResetAt = noon
	for _, tt := range []struct {
		name     string
		state    joinery.ActivationState
		refusals int
		voice    voice
		want     []string
	}{
		{"joins", joined, 0, toOwner, []string{"Your device may join through network 000042 only; AppSKey is fetched by as.example.com.", "Since its last join nobody asked for it."}},
		{"never heard of", bound, 0, toOperator, []string{"The device may join through network 000042 only", "nobody ever asked for it: no join-request of JoinEUI 70B3D57ED0000001 and DevEUI 0004A30B00000001 arrived here."}},
		{"refused", bound, 3, toOwner, []string{"through network 000042 only"}},
		{"suspended", suspended, 1, toOwner, []string{"network 000042, Network Server 0100000000000000 only; AppSKey travels wrapped for nobody", "It is suspended"}},
		{"unbound", unbound, 1, toOwner, []string{"Your device is bound to no network"}},
		{"an element with 1.1", element, 1, toOwner, []string{"", "takes the AppSKey of LoRaWAN 1.1 for derived"}},
		{"no element", listed, 1, toOwner, []string{""}},
		{"reset", reset, 1, toOwner, []string{"", "A reset of its DevNonces is open"}},
	} {
		got := summary(tt.state, tt.refusals, tt.voice)
		if len(got) != len(tt.want) {
			t.Errorf("%s: %q", tt.name, got)
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: %q does not say %q", tt.name, got[i], want)
			}
		}
	}
}

func TestSettled(t *testing.T) {
	x := about(joinery.Peer{ID: 1}, joinery.ActivationState{}, joinery.RefusedOtherNetwork, 0)
	now := joinery.ActivationState{Binding: &joinery.Binding{NetID: foreign}}
	later := noon.Add(1)
	for _, tt := range []struct {
		reason joinery.RefusalReason
		now    func(*joinery.ActivationState)
		want   string
	}{
		{joinery.RefusedOtherNetwork, func(*joinery.ActivationState) {}, "allows it now"},
		{joinery.RefusedOtherNetwork, func(s *joinery.ActivationState) { s.Binding = &joinery.Binding{NetID: home} }, ""},
		{joinery.RefusedNotBound, func(s *joinery.ActivationState) { s.Binding = nil }, ""},
		{joinery.RefusedOtherNSID, func(s *joinery.ActivationState) { s.Binding = &joinery.Binding{NetID: foreign, NSID: lorawan.EUI64{9}} }, ""},
		{joinery.RefusedSuspended, func(*joinery.ActivationState) {}, "resumed"},
		{joinery.RefusedSuspended, func(s *joinery.ActivationState) { s.Device.Suspended = true }, ""},
		{joinery.RefusedLapsed, func(*joinery.ActivationState) {}, ""},
		{joinery.RefusedLapsed, func(s *joinery.ActivationState) { s.Device.Service.RefuseAt = later }, "extended"},
		{joinery.RefusedAttestation, func(*joinery.ActivationState) {}, ""},
		{joinery.RefusedAttestation, func(s *joinery.ActivationState) { s.Device.Attested.At = later }, "attested"},
		{joinery.RefusedDevNonceLow, func(s *joinery.ActivationState) { s.KeySet.Nonces.ResetAt = later }, "reset"},
		{joinery.RefusedMIC, func(*joinery.ActivationState) {}, ""},
		{joinery.RefusedMIC, func(s *joinery.ActivationState) { s.Device.LastJoinAt = later }, "join was accepted"},
		{joinery.RefusedOtherAS, func(s *joinery.ActivationState) { s.Device.LastJoinAt = later }, ""},
	} {
		s := now
		tt.now(&s)
		c := joinery.RefusalCount{Refusal: x}
		c.Reason = tt.reason
		if got := settled(c, s); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.reason, got, tt.want)
		}
	}
}
