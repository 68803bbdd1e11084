package keyringtest

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/lorawan"
)

// vector is one whole join or rejoin of testdata/vectors/lorawan.json.
type vector struct {
	Name, Op         string
	Inputs, Expected map[string]any
}

// vectorFile finds the vectors from any package of the module.
func vectorFile(tb testing.TB) []byte {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "testdata", "vectors", "lorawan.json"))
		if err == nil {
			return text
		}
		if filepath.Dir(dir) == dir {
			tb.Fatal("testdata/vectors/lorawan.json is not above the test's directory")
		}
		dir = filepath.Dir(dir)
	}
}

func (v vector) bytes(tb testing.TB, fields map[string]any, name string) []byte {
	tb.Helper()
	switch x := fields[name].(type) {
	case string:
		b, err := hex.DecodeString(x)
		if err != nil {
			tb.Fatalf("%s: %s: %v", v.Name, name, err)
		}
		return b
	case float64:
		return []byte{byte(x)}
	}
	tb.Fatalf("%s: no %s", v.Name, name)
	return nil
}

func (v vector) in(tb testing.TB, name string) []byte  { return v.bytes(tb, v.Inputs, name) }
func (v vector) out(tb testing.TB, name string) []byte { return v.bytes(tb, v.Expected, name) }

func (v vector) uint(tb testing.TB, name string) uint64 {
	n, err := strconv.ParseUint(hex.EncodeToString(v.in(tb, name)), 16, 64)
	if err != nil {
		tb.Fatalf("%s: %s: %v", v.Name, name, err)
	}
	return n
}

// testVectors runs whole joins and rejoins: the vectors' root keys come in as a
// key list, their KEKs as peers', and every byte of the answer is compared.
func testVectors(t *testing.T, f Fixture) {
	var list []vector
	if err := json.Unmarshal(vectorFile(t), &list); err != nil {
		t.Fatal(err)
	}
	joins, rejoins := 0, 0
	for _, v := range list {
		switch v.Op {
		case "join":
			joins++
			t.Run(v.Name, func(t *testing.T) { testJoinVector(t, f, v) })
		case "rejoin":
			rejoins++
			t.Run(v.Name, func(t *testing.T) { testRejoinVector(t, f, v) })
		}
	}
	if joins < 2 || rejoins < 2 {
		t.Errorf("%d joins and %d rejoins among the vectors", joins, rejoins)
	}
}

// device gives the vector's device; one without NwkKey is a 1.0.x device.
func (v vector) device(tb testing.TB) Device {
	tb.Helper()
	d := Device{JoinEUI: lorawan.EUI64(v.in(tb, "JoinEUI")), DevEUI: lorawan.EUI64(v.in(tb, "DevEUI")), Root10: [16]byte(v.in(tb, "AppKey"))}
	if _, ok := v.Inputs["NwkKey"]; ok {
		d.App = d.Root10
		d.Nwk = [16]byte(v.in(tb, "NwkKey"))
		d.Root10 = d.Nwk
	}
	return d
}

func (v vector) activation(tb testing.TB, ks joinery.KeySet, d Device) joinery.Activation {
	tb.Helper()
	list, err := lorawan.ParseCFList(v.in(tb, "CFList_wire"))
	if err != nil {
		tb.Fatal(err)
	}
	settings := lorawan.DLSettings(v.uint(tb, "DLSettings"))
	return joinery.Activation{
		KeySet: ks.ID, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OptNeg: settings.OptNeg(), Root: ks.Root10,
		JoinNonce: lorawan.JoinNonce(v.uint(tb, "JoinNonce")), NetID: lorawan.NetID(v.in(tb, "NetID")),
		DevAddr: lorawan.DevAddr(v.in(tb, "DevAddr")), DLSettings: settings, RxDelay: uint8(v.uint(tb, "RxDelay")),
		CFList: list, Policy: joinery.AppSKeyWrapped,
	}
}

func testJoinVector(t *testing.T, f Fixture, v vector) {
	ctx := context.Background()
	d := v.device(t)
	ks := f.SealedKeySet(t, d)
	frame := v.out(t, "JoinReq_PHYPayload")
	if err := f.Keyring.VerifyJoin(ctx, ks, frame); err != nil {
		t.Error(err)
	}
	a := v.activation(t, ks, d)
	a.Type, a.Count = joinery.JoinTypeJoin, uint16(v.uint(t, "DevNonce"))
	p := peers{nsKey: v.in(t, "KEK_NS"), asKey: v.in(t, "KEK_AS")}
	p.ns, p.as = f.KEK(t, p.nsKey, joinery.KEKForNS, "ns-1"), f.KEK(t, p.asKey, joinery.KEKForAS, "as-1")
	answer, _ := f.accept(t, d, p, keyring.AcceptRequest{KeySet: ks, Frame: frame, Activation: a, NSKEK: p.ns, ASKEK: p.as})
	if !bytes.Equal(answer.PHYPayload, v.out(t, "JoinAns_PHYPayload")) {
		t.Errorf("accept %X", answer.PHYPayload)
	}
	for name, e := range map[string]keyring.Envelope{"NwkSKey": answer.NwkSKey, "FNwkSIntKey": answer.FNwkSIntKey, "AppSKey": answer.AppSKey} {
		if _, ok := v.Expected[name+"_wrapped"]; ok && !bytes.Equal(e.AESKey, v.out(t, name+"_wrapped")) {
			t.Errorf("%s %X", name, e.AESKey)
		}
	}
	checkKeys(t, v, p, answer)
}

// sessions are the activations from which the vectors' rejoin-requests speak, by
// the SNwkSIntKey that the vectors name. What derives it is not in the file: the
// first is that of e2e-join-1.1, the second a session of JoinNonce 3 after a
// rejoin-request with RJcount 0.
var sessions = map[string]lorawan.JoinNonce{
	"c0a25c9819b793329d22f4d623230059": 1,
	"99f91db202937465c7bb395d3d8d4269": 3,
}

func testRejoinVector(t *testing.T, f Fixture, v vector) {
	ctx := context.Background()
	d := v.device(t)
	ks := f.SealedKeySet(t, d)
	frame := v.out(t, "RejoinReq_PHYPayload")
	a := v.activation(t, ks, d)
	a.Type, a.Count = joinery.JoinType(v.uint(t, "RejoinType")), uint16(v.uint(t, "RJcount"))
	nonce, ok := sessions[hex.EncodeToString(v.in(t, "RequestMICKey"))]
	if !ok {
		t.Fatal("a session that this test does not know")
	}
	session := a
	session.Type, session.Count, session.JoinNonce = joinery.JoinTypeJoin, 0, nonce
	if i, err := f.Keyring.VerifyRejoin(ctx, ks, frame, []joinery.Activation{session}); err != nil || i != 0 {
		t.Error(i, err)
	}
	p := f.peers(t)
	answer, _ := f.accept(t, d, p, keyring.AcceptRequest{KeySet: ks, Frame: frame, Activation: a, Session: &session, NSKEK: p.ns, ASKEK: p.as})
	if !bytes.Equal(answer.PHYPayload, v.out(t, "JoinAccept_PHYPayload")) {
		t.Errorf("accept %X", answer.PHYPayload)
	}
	checkKeys(t, v, p, answer)
}

// checkKeys compares every session key that the vector names.
func checkKeys(t *testing.T, v vector, p peers, answer keyring.Answer) {
	t.Helper()
	for name, c := range map[string]struct {
		e   keyring.Envelope
		kek []byte
	}{
		"NwkSKey": {answer.NwkSKey, p.nsKey}, "FNwkSIntKey": {answer.FNwkSIntKey, p.nsKey},
		"SNwkSIntKey": {answer.SNwkSIntKey, p.nsKey}, "NwkSEncKey": {answer.NwkSEncKey, p.nsKey},
		"AppSKey": {answer.AppSKey, p.asKey},
	} {
		if _, ok := v.Expected[name]; !ok {
			continue
		}
		key, err := Unwrap(c.kek, c.e.AESKey)
		if err != nil || !bytes.Equal(key[:], v.out(t, name)) {
			t.Errorf("%s is not the vector's: %v", name, err)
		}
	}
}
