package simtest_test

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"

	"joinery/internal/sim"
	"joinery/lorawan"
)

// damage is one way in which an answer can be wrong, and which checks see it.
type damage struct {
	name string
	do   func(m *message)
	want []string
}

func replaceValue(name, value string) func(*message) { return func(m *message) { m.set(name, value) } }

func rename(from, to string) func(*message) {
	return func(m *message) {
		value := m.get(from)
		m.remove(from)
		m.set(to, value)
	}
}

// reseal changes one member of an envelope.
func reseal(key, from, to string) func(*message) {
	return func(m *message) { m.set(key, strings.Replace(m.get(key), from, to, 1)) }
}

// flip changes the last digit of a member.
func flip(name string) func(*message) {
	return func(m *message) {
		v := []byte(m.get(name))
		i := len(v) - 1
		for v[i] == '"' || v[i] == '}' {
			i--
		}
		if v[i]++; v[i] != '1' {
			v[i] = '0'
		}
		m.set(name, string(v))
	}
}

// headDamage is wrong in every answer of every kind.
func headDamage() []damage {
	return []damage{
		{"HTTP 500", func(m *message) { m.status = 500 }, []string{sim.CheckHTTPStatus}},
		{"HTTP 201", func(m *message) { m.status = 201 }, []string{sim.CheckHTTPStatus}},
		{"text", func(m *message) { m.contentType = "text/plain" }, []string{sim.CheckContentType}},
		{"no type", func(m *message) { m.contentType = "" }, []string{sim.CheckContentType}},
		{"empty body", func(m *message) { m.raw = " " }, []string{sim.CheckJSON}},
		{"a word", func(m *message) { m.raw = "internal server error" }, []string{sim.CheckJSON}},
		{"an array", func(m *message) { m.raw = "[]" }, []string{sim.CheckJSON}},
		{"cut short", func(m *message) { m.raw = strings.TrimSuffix(m.body(), "}") }, []string{sim.CheckJSON}},
		{"something behind", func(m *message) { m.raw = m.body() + "{}" }, []string{sim.CheckJSON}},
		{"a member twice", func(m *message) { m.members = append(m.members, m.members[0]) }, []string{sim.CheckJSON}},
		{"Result twice", func(m *message) { m.members = append(m.members, member{"Result", `{"ResultCode":"Success"}`}) }, []string{sim.CheckJSON}},
		{"null member", replaceValue("SenderToken", "null"), []string{sim.CheckJSON}},
		{"unknown member", replaceValue("Hint", `"x"`), []string{sim.CheckJSON}},
		{"other case", rename("SenderID", "senderID"), []string{sim.CheckJSON}},
		{"VSExtension is no object", replaceValue("VSExtension", `[]`), []string{sim.CheckJSON}},
		{"bad UTF-8", replaceValue("Result", "{\"ResultCode\":\"Success\",\"Description\":\"\xff\"}"), []string{sim.CheckJSON}},
		{"Description null", replaceValue("Result", `{"ResultCode":"Success","Description":null}`), []string{sim.CheckJSON}},
		{"ProtocolVersion", replaceValue("ProtocolVersion", `"1.2"`), []string{sim.CheckVersion}},
		{"no ProtocolVersion", func(m *message) { m.remove("ProtocolVersion") }, []string{sim.CheckVersion}},
		{"other TransactionID", replaceValue("TransactionID", "4711"), []string{sim.CheckTransactionID}},
		{"no TransactionID", func(m *message) { m.remove("TransactionID") }, []string{sim.CheckTransactionID}},
		{"TransactionID as text", replaceValue("TransactionID", `"1"`), []string{sim.CheckJSON}},
		{"TransactionID too big", replaceValue("TransactionID", `4294967296`), []string{sim.CheckJSON}},
		{"TransactionID fraction", replaceValue("TransactionID", `1.0`), []string{sim.CheckJSON}},
		{"MessageType", replaceValue("MessageType", `"JoinReq"`), []string{sim.CheckMessageType}},
		{"ids not swapped", func(m *message) {
			sender := m.get("SenderID")
			m.set("SenderID", m.get("ReceiverID"))
			m.set("ReceiverID", sender)
		}, []string{sim.CheckSenderID, sim.CheckReceiverID}},
		{"SenderID", replaceValue("SenderID", `"70B3D57ED0000001"`), []string{sim.CheckSenderID}},
		{"ReceiverID", replaceValue("ReceiverID", `"000014"`), []string{sim.CheckReceiverID}},
		{"no ReceiverID", func(m *message) { m.remove("ReceiverID") }, []string{sim.CheckReceiverID}},
		{"SenderNSID", replaceValue("SenderNSID", `"EC656EFFFE000001"`), []string{sim.CheckNSID}},
		{"no Result", func(m *message) { m.remove("Result") }, []string{sim.CheckCodeKnown, sim.CheckResult, sim.CheckRefusalEmpty}},
		{"empty Result", replaceValue("Result", `{}`), []string{sim.CheckCodeKnown, sim.CheckResult, sim.CheckRefusalEmpty}},
		{"Result is text", replaceValue("Result", `"Success"`), []string{sim.CheckJSON}},
		{"code of no version", replaceValue("Result", `{"ResultCode":"Failed"}`), []string{sim.CheckCodeKnown, sim.CheckResult, sim.CheckRefusalEmpty}},
		{"refusal with keys", replaceValue("Result", `{"ResultCode":"Other"}`), []string{sim.CheckResult, sim.CheckRefusalEmpty}},
	}
}

// keyDamage is wrong in a JoinAns with one key of the network, named key.
func keyDamage(key string) []damage {
	inClear := `{"AESKey":"000102030405060708090A0B0C0D0E0F"}`
	opens := []string{sim.CheckNetworkKey, sim.CheckSessionKey}
	return []damage{
		{key + " missing", func(m *message) { m.remove(key) }, []string{sim.CheckKeySet}},
		{key + " in the clear", replaceValue(key, inClear), opens},
		{key + " with empty label", reseal(key, `ns-000013-v1`, ``), opens},
		{key + " under an unknown label", reseal(key, `ns-000013-v1`, `ns-000013-v2`), opens},
		{key + " under the AS's label", reseal(key, `ns-000013-v1`, `as-example-v1`), opens},
		{key + " damaged", flip(key), opens},
		{key + " short", replaceValue(key, `{"KEKLabel":"ns-000013-v1","AESKey":"0001"}`), opens},
		{key + " is AppSKey", func(m *message) { m.set(key, m.get("AppSKey")) }, opens},
		{key + " odd digits", reseal(key, `"AESKey":"`, `"AESKey":"0`), []string{sim.CheckJSON}},
		{key + " with 0x", reseal(key, `"AESKey":"`, `"AESKey":"0x`), []string{sim.CheckJSON}},
		{key + " with an escape", reseal(key, `"AESKey":"`, `"AESKey":"\u0030\u0030`), []string{sim.CheckJSON}},
		{key + " with a second label", reseal(key, `{`, `{"KEKLabel":"x",`), []string{sim.CheckJSON}},
		{key + " as text", replaceValue(key, `"00"`), []string{sim.CheckJSON}},
		{key + " with more", reseal(key, `{`, `{"Salt":"00",`), []string{sim.CheckJSON}},
	}
}

// bodyDamage is wrong in a JoinAns of either layout.
func bodyDamage() []damage {
	return []damage{
		{"no PHYPayload", func(m *message) { m.remove("PHYPayload") }, []string{sim.CheckPHYPayload, sim.CheckAccept}},
		{"PHYPayload damaged", flip("PHYPayload"), []string{sim.CheckAccept}},
		{"PHYPayload with CFList length", func(m *message) {
			m.set("PHYPayload", strings.TrimSuffix(m.get("PHYPayload"), `"`)+strings.Repeat("00", 16)+`"`)
		}, []string{sim.CheckPHYPayload, sim.CheckAccept}},
		{"PHYPayload is a join-request", replaceValue("PHYPayload", `"`+strings.Repeat("00", 17)+`"`), []string{sim.CheckPHYPayload, sim.CheckAccept}},
		{"PHYPayload is not hex", replaceValue("PHYPayload", `"zz"`), []string{sim.CheckJSON}},
		{"Lifetime negative", replaceValue("Lifetime", `-1`), []string{sim.CheckJSON}},
		{"Lifetime text", replaceValue("Lifetime", `"0"`), []string{sim.CheckJSON}},
		{"Lifetime fraction", replaceValue("Lifetime", `0.5`), []string{sim.CheckJSON}},
		{"neither AppSKey nor id", func(m *message) { m.remove("AppSKey"); m.remove("SessionKeyID") }, []string{sim.CheckAppSKeyGiven, sim.CheckAppSKeyWay}},
		{"AppSKey in the clear", replaceValue("AppSKey", `{"AESKey":"000102030405060708090A0B0C0D0E0F"}`), []string{sim.CheckAppSKeyWay, sim.CheckAppSKeyOpens, sim.CheckAppSKey}},
		{"AppSKey for the network", func(m *message) {
			key := m.get("NwkSKey")
			if key == "" {
				key = m.get("FNwkSIntKey")
			}
			m.set("AppSKey", key)
		}, []string{sim.CheckAppSKeyForAS, sim.CheckAppSKeyOpens, sim.CheckAppSKey}},
		{"AppSKey damaged", flip("AppSKey"), []string{sim.CheckAppSKeyOpens, sim.CheckAppSKey}},
		{"AppSKey under an unknown label", reseal("AppSKey", "as-example-v1", "as-example-v9"), []string{sim.CheckAppSKeyOpens, sim.CheckAppSKey}},
	}
}

// Every damage is seen, by the checks that should see it and by no others.
func TestEveryDamageIsSeen(t *testing.T) {
	for _, c := range []struct {
		version lorawan.MACVersion
		own     []damage
	}{
		{lorawan.MAC1_0_3, append(keyDamage("NwkSKey"),
			damage{"1.1 keys beside NwkSKey", func(m *message) { m.set("SNwkSIntKey", m.get("NwkSKey")) }, []string{sim.CheckKeySet}},
			damage{"1.1 keys instead of NwkSKey", rename("NwkSKey", "FNwkSIntKey"), []string{sim.CheckKeySet}},
			damage{"1.1 code to a 1.0 peer", func(m *message) { refuse(m, "FrameReplayed") }, []string{sim.CheckCodeKnown, sim.CheckResult}},
			damage{"NSID to a 1.0 peer", replaceValue("ReceiverNSID", `"EC656EFFFE000001"`), []string{sim.CheckNSID}},
		)},
		{lorawan.MAC1_1, append(append(append(keyDamage("FNwkSIntKey"), keyDamage("SNwkSIntKey")...), keyDamage("NwkSEncKey")...),
			damage{"NwkSKey beside the three", func(m *message) { m.set("NwkSKey", m.get("FNwkSIntKey")) }, []string{sim.CheckKeySet}},
			damage{"two keys swapped", func(m *message) {
				f := m.get("FNwkSIntKey")
				m.set("FNwkSIntKey", m.get("SNwkSIntKey"))
				m.set("SNwkSIntKey", f)
			}, []string{sim.CheckSessionKey}},
		)},
	} {
		n := newNetwork(t, c.version, sim.Protocol10, "")
		for _, d := range append(append(headDamage(), bodyDamage()...), c.own...) {
			t.Run(c.version.String()+" "+d.name, func(t *testing.T) {
				n.js.tamper = d.do
				r := n.join(t, sim.JoinOptions{AS: n.as})
				failsWith(t, r.Checks, d.want...)
				for _, check := range r.Checks {
					if strings.Contains(check.String(), hex.EncodeToString(n.js.nsKEK)) {
						t.Error("a check shows a KEK")
					}
				}
			})
		}
		n.js.tamper = nil
		held(t, n.join(t, sim.JoinOptions{AS: n.as}).Checks)
	}
}

func refuse(m *message, code string) {
	for _, name := range []string{"PHYPayload", "NwkSKey", "FNwkSIntKey", "SNwkSIntKey", "NwkSEncKey", "AppSKey", "SessionKeyID"} {
		m.remove(name)
	}
	m.set("Result", `{"ResultCode":`+quote(code)+`}`)
}

// In 1.1 the NSID comes back, and the codes of 1.0 that it renamed do not.
func TestDamage11(t *testing.T) {
	n := newNetwork(t, lorawan.MAC1_0_4, sim.Protocol11, "tts")
	for _, d := range []damage{
		{"no ReceiverNSID", func(m *message) { m.remove("ReceiverNSID") }, []string{sim.CheckNSID}},
		{"other ReceiverNSID", replaceValue("ReceiverNSID", `"EC656EFFFE000002"`), []string{sim.CheckNSID}},
		{"SenderNSID", replaceValue("SenderNSID", `"EC656EFFFE000001"`), []string{sim.CheckNSID}},
		{"1.0 code", func(m *message) { refuse(m, "MalformedRequest") }, []string{sim.CheckCodeKnown, sim.CheckResult}},
		{"1.0 version", replaceValue("ProtocolVersion", `"1.0"`), []string{sim.CheckVersion}},
	} {
		t.Run(d.name, func(t *testing.T) {
			n.js.tamper = d.do
			failsWith(t, n.join(t, sim.JoinOptions{AS: n.as}).Checks, d.want...)
		})
	}
}

// A Join Server that gets the rules of LoRaWAN wrong, with answers that are
// well-formed.
func TestWrongRulesAreSeen(t *testing.T) {
	for _, c := range []struct {
		name    string
		version lorawan.MACVersion
		do      func(js *miniJS, d *miniDevice)
		want    []string
	}{
		{"JoinNonce repeats, 1.0.x", lorawan.MAC1_0_3, func(_ *miniJS, d *miniDevice) { d.joinNonce-- }, []string{sim.CheckAccept}},
		{"JoinNonce falls, 1.0.x", lorawan.MAC1_0_3, func(_ *miniJS, d *miniDevice) { d.joinNonce -= 2 }, []string{sim.CheckJoinNonce}},
		{"JoinNonce repeats, 1.1", lorawan.MAC1_1, func(_ *miniJS, d *miniDevice) { d.joinNonce-- }, []string{sim.CheckAccept}},
		{"JoinNonce falls, 1.1", lorawan.MAC1_1, func(_ *miniJS, d *miniDevice) { d.joinNonce -= 2 }, []string{sim.CheckAccept}},
		{"AppSKey from another root", lorawan.MAC1_1, func(_ *miniJS, d *miniDevice) { d.roots.AppKey[0] ^= 1 }, []string{sim.CheckAppSKey}},
		{"one KEK for both", lorawan.MAC1_0_4, func(js *miniJS, _ *miniDevice) { js.asLabel, js.asKEK = js.nsLabel, js.nsKEK },
			[]string{sim.CheckAppSKeyForAS, sim.CheckAppSKeyOpens, sim.CheckAppSKey}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, c.version, sim.Protocol10, "")
			for range 2 {
				held(t, n.join(t, sim.JoinOptions{AS: n.as}).Checks)
			}
			c.do(n.js, n.js.devices[devEUI])
			failsWith(t, n.join(t, sim.JoinOptions{AS: n.as}).Checks, c.want...)
		})
	}
}

// A KEK that ChirpStack cannot use is as good as none.
func TestChirpStackNeedsShortKEKs(t *testing.T) {
	js := newMiniJS(t)
	js.nsKEK = randomBytes(32)
	ns := newNS(t, js, sim.Protocol10, "chirpstack", js.home)
	r, err := ns.Join(context.Background(), newDevice(t, js, devEUI, lorawan.MAC1_0_4), sim.JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	failsWith(t, r.Checks, sim.CheckNetworkKey, sim.CheckSessionKey)
}

// A SessionKeyID that was there before, and a repeat that is answered anew.
func TestSessionKeyIDs(t *testing.T) {
	n := newNetwork(t, lorawan.MAC1_0_4, sim.Protocol10, "")
	n.js.tamper = replaceValue("SessionKeyID", `"0102"`)
	first := n.join(t, sim.JoinOptions{})
	held(t, first.Checks)
	failsWith(t, n.join(t, sim.JoinOptions{}).Checks, sim.CheckSessionKeyID)
	n.js.tamper = nil
	n.js.devices[devEUI].lastRequest = ""
	n.js.devices[devEUI].used = map[string]bool{}
	again, err := n.ns.Repeat(context.Background(), first)
	if err != nil {
		t.Fatal(err)
	}
	failsWith(t, again.Checks, sim.CheckSameAnswer)
}

func TestAppSKeyDamageIsSeen(t *testing.T) {
	n := newNetwork(t, lorawan.MAC1_1, sim.Protocol10, "")
	joined := n.join(t, sim.JoinOptions{})
	fetch := func(t *testing.T, o sim.FetchOptions) *sim.Fetched {
		t.Helper()
		o.JoinEUI, o.DevEUI, o.Device = joinEUI, devEUI, n.dev
		if o.SessionKeyID == nil {
			o.SessionKeyID = joined.SessionKeyID
		}
		f, err := n.as.FetchAppSKey(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	held(t, fetch(t, sim.FetchOptions{}).Checks)
	refused := fetch(t, sim.FetchOptions{SessionKeyID: []byte{1}, Expect: "Other"})
	held(t, refused.Checks)
	own := []damage{
		{"DevEUI", replaceValue("DevEUI", `"0004A310001FF9DB"`), []string{sim.CheckDevEUI}},
		{"no DevEUI", func(m *message) { m.remove("DevEUI") }, []string{sim.CheckDevEUI}},
		{"SessionKeyID", replaceValue("SessionKeyID", `"00"`), []string{sim.CheckSessionKeyEcho}},
		{"no SessionKeyID", func(m *message) { m.remove("SessionKeyID") }, []string{sim.CheckSessionKeyEcho}},
		{"no AppSKey", func(m *message) { m.remove("AppSKey") }, []string{sim.CheckAppSKeyOpens}},
		{"damaged", flip("AppSKey"), []string{sim.CheckAppSKeyOpens, sim.CheckAppSKey}},
		{"in the clear", replaceValue("AppSKey", `{"AESKey":"000102030405060708090A0B0C0D0E0F"}`), []string{sim.CheckAppSKeyOpens, sim.CheckAppSKey}},
		{"under another label", reseal("AppSKey", "as-example-v1", "ns-000013-v1"), []string{sim.CheckAppSKeyOpens, sim.CheckAppSKey}},
	}
	for _, d := range append(headDamage(), own...) {
		t.Run(d.name, func(t *testing.T) {
			n.js.tamper = d.do
			failsWith(t, fetch(t, sim.FetchOptions{}).Checks, d.want...)
		})
	}
	n.js.tamper = nil
	// The key of another session is another key.
	if r := n.join(t, sim.JoinOptions{}); !r.OK() {
		t.Fatal(r.Err())
	}
	failsWith(t, fetch(t, sim.FetchOptions{}).Checks, sim.CheckAppSKey)
}
