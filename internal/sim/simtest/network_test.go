package simtest_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"

	"joinery/internal/sim"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

var (
	joinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 0}
	devEUI  = lorawan.EUI64{0, 4, 0xA3, 0x10, 0, 0x1F, 0xF9, 0xDA}
	nsid    = lorawan.EUI64{0xEC, 0x65, 0x6E, 0xFF, 0xFE, 0, 0, 1}
)

const asID = `as "one".example.com`

// network is a Join Server with a device, a network and an application.
type network struct {
	js  *miniJS
	ns  *sim.NS
	as  *sim.AS
	dev *device.Device
}

func newNetwork(t testing.TB, version lorawan.MACVersion, protocol, dialectName string) *network {
	t.Helper()
	js := newMiniJS(t)
	return &network{js: js, ns: newNS(t, js, protocol, dialectName, js.home), as: newAS(t, js, protocol), dev: newDevice(t, js, devEUI, version)}
}

func newNS(t testing.TB, js *miniJS, protocol, dialectName string, netID lorawan.NetID) *sim.NS {
	t.Helper()
	d, err := sim.ParseDialect(dialectName)
	if err != nil {
		t.Fatal(err)
	}
	link := sim.NewLink(js.server.URL, js.clientTLS(), 0)
	t.Cleanup(link.Close)
	ns, err := sim.NewNS(sim.NSConfig{
		Name: "ns", NetID: netID, NSID: nsid, KEKs: map[string][]byte{js.nsLabel: js.nsKEK}, Link: link, Protocol: protocol, Dialect: d,
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func newAS(t testing.TB, js *miniJS, protocol string) *sim.AS {
	t.Helper()
	link := sim.NewLink(js.server.URL, js.clientTLS(), 0)
	t.Cleanup(link.Close)
	as, err := sim.NewAS(sim.ASConfig{Name: "as", ASID: asID, KEKs: map[string][]byte{js.asLabel: js.asKEK}, Link: link, Protocol: protocol})
	if err != nil {
		t.Fatal(err)
	}
	return as
}

func newDevice(t testing.TB, js *miniJS, eui lorawan.EUI64, version lorawan.MACVersion) *device.Device {
	t.Helper()
	var roots simtest.Roots
	rand.Read(roots.NwkKey[:])
	rand.Read(roots.AppKey[:])
	js.add(eui, roots)
	e, err := element.Provision(joinEUI, eui, roots.NwkKey[:], roots.AppKey[:])
	if err != nil {
		t.Fatal(err)
	}
	d, err := device.New(e, version, device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func cfList(t testing.TB) lorawan.CFList {
	t.Helper()
	list, err := lorawan.ParseCFList(unhex("184f84e85684b85e84886684586e8400"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// held fails the test for each check that does not hold, and gives the names of
// those that were made.
func held(t testing.TB, c sim.Checks) []string {
	t.Helper()
	if len(c) == 0 {
		t.Error("nothing was checked")
	}
	if err := c.Err(); err != nil {
		t.Error(err)
	}
	var names []string
	for _, check := range c {
		names = append(names, check.Name)
	}
	return names
}

func (n *network) join(t testing.TB, o sim.JoinOptions) *sim.Result {
	t.Helper()
	r, err := n.ns.Join(context.Background(), n.dev, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Every version of device, on every version of network, over both protocol
// versions, in every dialect: all that there is to check is checked and holds.
func TestJoinsHold(t *testing.T) {
	made := map[string]bool{}
	for _, dialect := range append([]string{""}, sim.DialectNames()...) {
		for _, protocol := range []string{sim.Protocol10, sim.Protocol11} {
			if protocol == sim.Protocol11 && (dialect == "chirpstack" || dialect == "brocaar") {
				continue
			}
			for version := lorawan.MAC1_0_0; version <= lorawan.MAC1_1; version++ {
				n := newNetwork(t, version, protocol, dialect)
				for _, o := range []sim.JoinOptions{
					{},
					{Network: lorawan.MAC1_0_3, RxDelay: 5, DLSettings: 0x13},
					{CFList: cfList(t), RxDelay: 15, DevAddr: lorawan.DevAddr{1, 2, 3, 4}},
				} {
					o.AS = n.as
					r := n.join(t, o)
					for _, name := range held(t, r.Checks) {
						made[name] = true
					}
					optNeg := version.NegotiatesOptions() && o.Network == 0
					if !r.Taken || r.Accepted.OptNeg != optNeg || r.AppSKey != sim.AppSKeyWrapped || r.NetworkKEK != n.js.nsLabel || r.AppSKeyKEK != n.js.asLabel {
						t.Errorf("%s %s %v: %+v", dialect, protocol, version, r.Accepted)
					}
				}
				n.checkFetch(t, made)
				n.checkRejoins(t, version, made)
			}
		}
	}
	for _, name := range []string{
		sim.CheckHTTPStatus, sim.CheckContentType, sim.CheckJSON, sim.CheckVersion, sim.CheckTransactionID, sim.CheckMessageType,
		sim.CheckSenderID, sim.CheckReceiverID, sim.CheckNSID, sim.CheckCodeKnown, sim.CheckResult, sim.CheckPHYPayload,
		sim.CheckNetworkKey, sim.CheckAppSKeyGiven, sim.CheckAppSKeyWay, sim.CheckAppSKeyForAS, sim.CheckSessionKeyID,
		sim.CheckRejoinMIC, sim.CheckAccept, sim.CheckAcceptType, sim.CheckAcceptFields, sim.CheckJoinNonce, sim.CheckSessionKey,
		sim.CheckAppSKeyOpens, sim.CheckAppSKey, sim.CheckDevEUI, sim.CheckSessionKeyEcho,
	} {
		if !made[name] {
			t.Errorf("never checked: %s", name)
		}
	}
}

func (n *network) checkFetch(t *testing.T, made map[string]bool) {
	t.Helper()
	n.js.byID = true
	r := n.join(t, sim.JoinOptions{AppSKey: sim.AppSKeyByID})
	held(t, r.Checks)
	n.js.byID = false
	f, err := n.as.FetchAppSKey(context.Background(), sim.FetchOptions{JoinEUI: joinEUI, DevEUI: devEUI, SessionKeyID: r.SessionKeyID, Device: n.dev})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range held(t, f.Checks) {
		made[name] = true
	}
}

func (n *network) checkRejoins(t *testing.T, version lorawan.MACVersion, made map[string]bool) {
	t.Helper()
	if !version.Rejoins() {
		if _, err := n.ns.Rejoin(context.Background(), n.dev, lorawan.Rejoin1, sim.JoinOptions{}); !errors.Is(err, device.ErrNoRejoin) {
			t.Errorf("%v rejoins: %v", version, err)
		}
		return
	}
	for _, rejoinType := range []lorawan.RejoinType{lorawan.Rejoin0, lorawan.Rejoin2, lorawan.Rejoin1, lorawan.Rejoin0} {
		for _, lose := range []bool{true, false} {
			r, err := n.ns.Rejoin(context.Background(), n.dev, rejoinType, sim.JoinOptions{AS: n.as, CFList: cfList(t), Lose: lose})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range held(t, r.Checks) {
				made[name] = true
			}
			if r.Taken == lose {
				t.Errorf("type %d: lost %t, taken %t", rejoinType, lose, r.Taken)
			}
		}
	}
}

// Keys in the clear hold only where they were allowed.
func TestClearKeys(t *testing.T) {
	n := newNetwork(t, lorawan.MAC1_1, sim.Protocol10, "chirpstack")
	n.js.nsKEK, n.js.asKEK, n.js.omitID = nil, nil, true
	r := n.join(t, sim.JoinOptions{ClearKeys: true, AppSKey: sim.AppSKeyClear, AS: n.as})
	held(t, r.Checks)
	if r.AppSKey != sim.AppSKeyClear || r.NetworkKEK != "" || r.SessionKeyID != nil {
		t.Errorf("got AppSKey %q, network KEK %q", r.AppSKey, r.NetworkKEK)
	}
	failsWith(t, n.join(t, sim.JoinOptions{AppSKey: sim.AppSKeyClear, AS: n.as}).Checks, sim.CheckNetworkKey)
	failsWith(t, n.join(t, sim.JoinOptions{ClearKeys: true, AS: n.as}).Checks, sim.CheckAppSKeyWay, sim.CheckAppSKeyOpens)
}

// failsWith wants exactly these checks to have failed.
func failsWith(t testing.TB, c sim.Checks, names ...string) {
	t.Helper()
	var failed []string
	for _, check := range c.Failed() {
		if !slices.Contains(failed, check.Name) {
			failed = append(failed, check.Name)
		}
	}
	slices.Sort(failed)
	slices.Sort(names)
	if !slices.Equal(failed, names) {
		t.Errorf("failed checks:\n got %q\nwant %q\n(%v)", failed, names, c.Failed())
	}
	if c.OK() || !errors.Is(c.Err(), sim.ErrChecks) {
		t.Error("the whole is taken for good")
	}
}

func TestRefusalsHold(t *testing.T) {
	for _, protocol := range []string{sim.Protocol10, sim.Protocol11} {
		n := newNetwork(t, lorawan.MAC1_0_4, protocol, "")
		first := n.join(t, sim.JoinOptions{})
		held(t, first.Checks)

		again, err := n.ns.Repeat(context.Background(), first)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(held(t, again.Checks), sim.CheckSameAnswer) || again.TransactionID == first.TransactionID {
			t.Error("repeat was not compared, or not sent anew")
		}
		// The same frame with another DevAddr is a replay.
		replay := n.join(t, sim.JoinOptions{Frame: first.Sent.PHYPayload, Expect: sim.ReplayCode(protocol)})
		if !slices.Contains(held(t, replay.Checks), sim.CheckRefusalEmpty) || replay.Taken {
			t.Error("replay was taken, or its refusal not looked through")
		}
		frame, err := n.dev.JoinRequest()
		if err != nil {
			t.Fatal(err)
		}
		frame[len(frame)-1] ^= 1
		held(t, n.join(t, sim.JoinOptions{Frame: frame, Expect: sim.ResultMICFailed}).Checks)

		other := newNS(t, n.js, protocol, "", lorawan.NetID{0, 0, 0x42})
		r, err := other.Join(context.Background(), n.dev, sim.JoinOptions{Expect: sim.ResultUnknownDevEUI})
		if err != nil {
			t.Fatal(err)
		}
		held(t, r.Checks)
		failsWith(t, n.join(t, sim.JoinOptions{Expect: sim.ResultMICFailed}).Checks, sim.CheckResult)
	}
}

// A network that holds the session sees a rejoin-request that is not the
// device's, or not fresh; one that does not hold it leaves that to the Join
// Server.
func TestNetworkVerifiesRejoins(t *testing.T) {
	n := newNetwork(t, lorawan.MAC1_1, sim.Protocol10, "")
	held(t, n.join(t, sim.JoinOptions{}).Checks)
	rejoin := func(ns *sim.NS, o sim.JoinOptions) sim.Checks {
		t.Helper()
		r, err := ns.Rejoin(context.Background(), n.dev, lorawan.Rejoin0, o)
		if err != nil {
			t.Fatal(err)
		}
		return r.Checks
	}
	frame, err := n.dev.RejoinRequest(lorawan.Rejoin0)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(held(t, rejoin(n.ns, sim.JoinOptions{Frame: frame, Lose: true})), sim.CheckRejoinMIC) {
		t.Error("the rejoin-request was not verified")
	}
	failsWith(t, rejoin(n.ns, sim.JoinOptions{Frame: frame, Lose: true}), sim.CheckRejoinMIC)
	damaged := slices.Clone(frame)
	damaged[len(damaged)-1] ^= 1
	failsWith(t, rejoin(n.ns, sim.JoinOptions{Frame: damaged}), sim.CheckRejoinMIC, sim.CheckResult)
	held(t, rejoin(n.ns, sim.JoinOptions{Frame: damaged, Expect: sim.ResultMICFailed}))
	forgetful := newNS(t, n.js, sim.Protocol10, "", n.js.home)
	if slices.Contains(held(t, rejoin(forgetful, sim.JoinOptions{})), sim.CheckRejoinMIC) {
		t.Error("a network verified with a key that it does not have")
	}
}

func TestHomeNS(t *testing.T) {
	n := newNetwork(t, lorawan.MAC1_0_4, sim.Protocol11, "tts")
	ask := func(o sim.HomeNSOptions) *sim.HomeNS {
		o.JoinEUI, o.DevEUI = joinEUI, devEUI
		h, err := n.ns.AskHomeNS(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	held(t, ask(sim.HomeNSOptions{HNetID: n.js.home}).Checks)
	failsWith(t, ask(sim.HomeNSOptions{HNetID: lorawan.NetID{1}}).Checks, sim.CheckHomeNetwork)
	n.js.tamper = func(m *message) { m.set("Result", `{"ResultCode":"NoRoamingAgreement"}`) }
	failsWith(t, ask(sim.HomeNSOptions{Expect: "NoRoamingAgreement"}).Checks, sim.CheckHomeNetwork)
	n.js.tamper = func(m *message) { m.set("Result", `{"ResultCode":"NoRoamingAgreement"}`); m.remove("HNetID") }
	held(t, ask(sim.HomeNSOptions{Expect: "NoRoamingAgreement"}).Checks)
}

// Without a certificate, with one of another CA, towards another server: no
// exchange takes place.
func TestMutualTLS(t *testing.T) {
	n := newNetwork(t, lorawan.MAC1_0_4, "", "")
	none := n.js.clientTLS()
	none.Certificates = nil
	foreign := n.js.clientTLS()
	foreign.Certificates[0] = newAuthority(t, "another CA").leaf(t, "client")
	distrust := n.js.clientTLS()
	distrust.RootCAs = newAuthority(t, "another CA").pool()
	for name, conf := range map[string]*tls.Config{"no certificate": none, "foreign certificate": foreign, "another server": distrust} {
		link := sim.NewLink(n.js.server.URL, conf, 0)
		ns, err := sim.NewNS(sim.NSConfig{NetID: n.js.home, Link: link})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ns.Join(context.Background(), n.dev, sim.JoinOptions{}); err == nil || !strings.Contains(err.Error(), "join server") {
			t.Errorf("%s: got %v", name, err)
		}
		link.Close()
	}
}

func TestConfigRefusals(t *testing.T) {
	tts, _ := sim.ParseDialect("tts")
	chirpstack, _ := sim.ParseDialect("chirpstack")
	for name, c := range map[string]sim.NSConfig{
		"protocol":             {Protocol: "1.2"},
		"ChirpStack over 1.1":  {Protocol: "1.1", Dialect: chirpstack},
		"TTS 1.1 without NSID": {Protocol: "1.1", Dialect: tts},
		"KEK length":           {KEKs: map[string][]byte{"a": make([]byte, 17)}},
		"KEK label":            {KEKs: map[string][]byte{"": make([]byte, 16)}},
	} {
		if _, err := sim.NewNS(c); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
	for name, c := range map[string]sim.ASConfig{
		"no AS-ID": {}, "AS-ID": {ASID: "\xff"}, "protocol": {ASID: "a", Protocol: "2"},
		"KEK length": {ASID: "a", KEKs: map[string][]byte{"a": make([]byte, 1)}},
	} {
		if _, err := sim.NewAS(c); err == nil {
			t.Errorf("AS, %s: want an error", name)
		}
	}
	if _, err := sim.ParseDialect("klingon"); err == nil {
		t.Error("an unknown dialect was taken")
	}
}
