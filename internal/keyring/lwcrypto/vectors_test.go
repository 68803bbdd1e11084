package lwcrypto

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"joinery/internal/cmac"
	"joinery/lorawan"
)

// vector is one entry of testdata/vectors/lorawan.json; its README tells the
// form.
type vector struct {
	Name             string
	Op               string
	Inputs, Expected map[string]any
	ComputedPerSpec  map[string]any `json:"computed_per_spec"`
	Status           string
}

func vectors(t testing.TB) []vector { return vectorsOf(t, "lorawan.json") }

func vectorsOf(t testing.TB, file string) []vector {
	t.Helper()
	text, err := os.ReadFile("../../../testdata/vectors/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// operands reads hexadecimal fields of a vector.
type operands struct {
	t      testing.TB
	fields map[string]any
}

func (o operands) bytes(name string) []byte {
	o.t.Helper()
	switch v := o.fields[name].(type) {
	case string:
		return unhex(o.t, v)
	case float64: // RxDelay of some
		return []byte{byte(v)}
	}
	o.t.Fatalf("no operand %s", name)
	return nil
}

func (o operands) uint(name string) (v uint64) {
	for _, b := range o.bytes(name) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (o operands) eui(name string) lorawan.EUI64 { return lorawan.EUI64(o.bytes(name)) }

func (o operands) key(name string) software { return newSoftware(o.t, o.bytes(name)) }

func (o operands) session10() Session10 {
	return Session10{lorawan.JoinNonce(o.uint("JoinNonce")), lorawan.NetID(o.bytes("NetID")), uint16(o.uint(o.count()))}
}

func (o operands) session11() Session11 {
	return Session11{lorawan.JoinNonce(o.uint("JoinNonce")), o.eui("JoinEUI"), uint16(o.uint(o.count()))}
}

// count names the operand that takes the place of DevNonce.
func (o operands) count() string {
	if _, ok := o.fields["RJcount"]; ok {
		return "RJcount"
	}
	return "DevNonce"
}

func (o operands) accept() lorawan.JoinAccept {
	o.t.Helper()
	list, err := lorawan.ParseCFList(o.bytes("CFList_wire"))
	if err != nil {
		o.t.Fatal(err)
	}
	return lorawan.JoinAccept{
		JoinNonce: lorawan.JoinNonce(o.uint("JoinNonce")), NetID: lorawan.NetID(o.bytes("NetID")),
		DevAddr: lorawan.DevAddr(o.bytes("DevAddr")), DLSettings: lorawan.DLSettings(o.uint("DLSettings")),
		RxDelay: uint8(o.uint("RxDelay")), CFList: list,
	}
}

func encrypt(s software, b Block) []byte {
	if err := s.EncryptBlock(&b); err != nil {
		panic(err)
	}
	return b[:]
}

func (o operands) mic(s software, msg []byte) []byte {
	o.t.Helper()
	mac, err := new(cmac.CMAC).Sum(s, msg)
	if err != nil {
		o.t.Fatal(err)
	}
	m := MIC(mac)
	return m[:]
}

func (o operands) encryptAccept(s software, plain []byte) []byte {
	o.t.Helper()
	phy := bytes.Clone(plain)
	if err := EncryptAccept(s, phy); err != nil {
		o.t.Fatal(err)
	}
	return phy
}

// results are what an operation gave, by the name that the vector expects.
type results map[string][]byte

// run computes one vector with the functions under test.
func run(t testing.TB, v vector) results {
	o := operands{t, v.Inputs}
	switch v.Op {
	case "mic_join_request", "mic_rejoin_request":
		return results{"MIC": o.mic(o.key("Key"), o.bytes("Message_wire"))}
	case "build_join_request":
		f := lorawan.JoinRequest{JoinEUI: o.eui("JoinEUI"), DevEUI: o.eui("DevEUI"), DevNonce: lorawan.DevNonce(o.uint("DevNonce"))}
		f.MIC = lorawan.MIC(o.mic(o.key("Key"), f.AppendUnsigned(nil)))
		return results{"PHYPayload": f.Append(nil)}
	case "build_rejoin_request":
		msg := o.bytes("Message_wire")
		return results{"PHYPayload": append(msg, o.mic(o.key("Key"), msg)...)}
	case "mic_join_accept_1_0":
		msg, ok := v.Inputs["Message_wire"].(string)
		if !ok {
			msg = "20" + v.Inputs["Payload_wire"].(string)
		}
		return results{"MIC": o.mic(o.key("Key"), unhex(t, msg))}
	case "mic_join_accept_1_1":
		return runAcceptMIC11(o, v)
	case "encrypt_join_accept":
		return results{"Cipher_wire": o.encryptAccept(o.key("Key"), append([]byte{0x20}, o.bytes("Plain_wire")...))[1:]}
	case "encrypt_rejoin_accept":
		jsEncKey := encrypt(o.key("NwkKey"), JSEncKey(o.eui("DevEUI")))
		if !bytes.Equal(jsEncKey, o.bytes("JSEncKey")) {
			t.Errorf("%s: JSEncKey %x", v.Name, jsEncKey)
		}
		return results{"Cipher_wire": o.encryptAccept(newSoftware(t, jsEncKey), append([]byte{0x20}, o.bytes("Plain_wire")...))[1:]}
	case "build_join_accept_1_0":
		plain := o.accept().Append(nil)
		mic := o.mic(o.key("Key"), plain)
		return results{"MIC": mic, "PHYPayload": o.encryptAccept(o.key("Key"), append(plain, mic...))}
	case "build_join_accept_1_1_raw":
		plain := o.accept().Append(nil)
		mic := o.mic(o.key("JSIntKey"), AcceptMICInput(nil, o.bytes("JoinReqType")[0], o.eui("JoinEUI"), uint16(o.uint("DevNonceOrRJcount")), plain))
		return results{"MIC": mic, "PHYPayload": o.encryptAccept(o.key("EncKey"), append(plain, mic...))}
	case "derive_session_keys_1_0":
		return keys10(o, o.key("AppKey"))
	case "derive_session_keys_1_0_two_roots":
		s := o.session10()
		return results{"NwkSKey": encrypt(o.key("NwkSKeyRoot"), s.NwkSKey()), "AppSKey": encrypt(o.key("AppSKeyRoot"), s.AppSKey())}
	case "derive_session_keys_1_1":
		return keys11(o)
	case "aes_key_wrap":
		return runKeyWrap(o)
	case "join":
		return runJoin(o)
	case "rejoin":
		return runRejoin(o)
	}
	return nil
}

func runAcceptMIC11(o operands, v vector) results {
	jsIntKey := o.bytes("JSIntKey")
	if _, ok := v.Inputs["NwkKey"]; ok {
		if got := encrypt(o.key("NwkKey"), JSIntKey(o.eui("DevEUI"))); !bytes.Equal(got, jsIntKey) {
			o.t.Errorf("%s: JSIntKey %x", v.Name, got)
		}
	}
	msg := AcceptMICInput(nil, o.bytes("JoinReqType")[0], o.eui("JoinEUI"), uint16(o.uint("DevNonceOrRJcount")), o.bytes("Message_wire"))
	return results{"MIC": o.mic(newSoftware(o.t, jsIntKey), msg)}
}

func keys10(o operands, root software) results {
	s := o.session10()
	return results{"NwkSKey": encrypt(root, s.NwkSKey()), "AppSKey": encrypt(root, s.AppSKey())}
}

func keys11(o operands) results {
	s, nwk := o.session11(), o.key("NwkKey")
	return results{
		"FNwkSIntKey": encrypt(nwk, s.FNwkSIntKey()), "SNwkSIntKey": encrypt(nwk, s.SNwkSIntKey()),
		"NwkSEncKey": encrypt(nwk, s.NwkSEncKey()), "AppSKey": encrypt(o.key("AppKey"), s.AppSKey()),
	}
}

func runKeyWrap(o operands) results {
	plain := o.bytes("Plain")
	if len(plain) != BlockLen {
		return nil // keys of other lengths are package seal's; see TestLongKeyWrap
	}
	wrapped, err := WrapKey(nil, o.key("KEK").Block, (*[BlockLen]byte)(plain))
	if err != nil {
		o.t.Fatal(err)
	}
	var back [BlockLen]byte
	if err := UnwrapKey(&back, o.key("KEK").Block, wrapped); err != nil || !bytes.Equal(back[:], plain) {
		o.t.Errorf("does not unwrap: %v", err)
	}
	return results{"Wrapped": wrapped}
}

// runJoin builds request and accept of a whole join.
func runJoin(o operands) results {
	f := lorawan.JoinRequest{JoinEUI: o.eui("JoinEUI"), DevEUI: o.eui("DevEUI"), DevNonce: lorawan.DevNonce(o.uint("DevNonce"))}
	accept := o.accept()
	plain := accept.Append(nil)
	var r results
	var root software
	if accept.DLSettings.OptNeg() {
		root = o.key("NwkKey")
		r = keys11(o)
		r["JSIntKey"] = encrypt(root, JSIntKey(f.DevEUI))
		r["JSEncKey"] = encrypt(root, JSEncKey(f.DevEUI))
		plain = append(plain, o.mic(newSoftware(o.t, r["JSIntKey"]), AcceptMICInput(nil, 0xFF, f.JoinEUI, uint16(f.DevNonce), plain))...)
	} else {
		root = o.key("AppKey")
		r = keys10(o, root)
		plain = append(plain, o.mic(root, plain)...)
	}
	r["JoinAns_PHYPayload"] = o.encryptAccept(root, plain)
	f.MIC = lorawan.MIC(o.mic(root, f.AppendUnsigned(nil)))
	r["JoinReq_PHYPayload"] = f.Append(nil)
	for name, kek := range map[string]string{"NwkSKey": "KEK_NS", "FNwkSIntKey": "KEK_NS", "AppSKey": "KEK_AS"} {
		if key, ok := r[name]; ok {
			wrapped, err := WrapKey(nil, o.key(kek).Block, (*[BlockLen]byte)(key))
			if err != nil {
				o.t.Fatal(err)
			}
			r[name+"_wrapped"] = wrapped
		}
	}
	return r
}

func runRejoin(o operands) results {
	f := lorawan.RejoinRequest{
		Type: lorawan.RejoinType(o.uint("RejoinType")), NetID: lorawan.NetID(o.bytes("NetID")),
		DevEUI: o.eui("DevEUI"), RJCount: lorawan.RJCount(o.uint("RJcount")),
	}
	f.MIC = lorawan.MIC(o.mic(o.key("RequestMICKey"), f.AppendUnsigned(nil)))
	nwk := o.key("NwkKey")
	r := keys11(o)
	plain := o.accept().Append(nil)
	jsIntKey := newSoftware(o.t, encrypt(nwk, JSIntKey(f.DevEUI)))
	plain = append(plain, o.mic(jsIntKey, AcceptMICInput(nil, byte(f.Type), o.eui("JoinEUI"), uint16(f.RJCount), plain))...)
	r["JoinAccept_PHYPayload"] = o.encryptAccept(newSoftware(o.t, encrypt(nwk, JSEncKey(f.DevEUI))), plain)
	r["RejoinReq_PHYPayload"] = f.Append(nil)
	return r
}

// notOurs are operations of other packages.
var notOurs = map[string]string{
	"derive_root_wor_s_key":      "a key of relays",
	"encode_join_accept_payload": "package lorawan",
	"encode_cflist_type0":        "package lorawan",
	"aes_key_unwrap":             "TestUnwrapRefuses",
}

func TestVectors(t *testing.T) {
	checked := 0
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			got := run(t, v)
			if got == nil {
				if _, other := notOurs[v.Op]; !other && v.Op != "aes_key_wrap" {
					t.Errorf("nobody computes %s", v.Op)
				}
				return
			}
			expected := v.Expected
			if v.Status == "published-but-wrong" {
				expected = v.ComputedPerSpec
				checkDiffers(t, got, v.Expected)
			}
			for name, want := range expected {
				if have := hex.EncodeToString(got[name]); !strings.EqualFold(have, fmt.Sprint(want)) {
					t.Errorf("%s is %s, want %s", name, have, want)
				}
				checked++
			}
		})
	}
	if checked < 75 {
		t.Errorf("only %d values were compared", checked)
	}
}

// checkDiffers asserts that none of the wrong values comes out: a rejoin-request
// is answered with keys of the 1.1 layout (JoinEUI), never the 1.0 one (NetID).
func checkDiffers(t *testing.T, got results, wrong map[string]any) {
	t.Helper()
	if len(wrong) == 0 {
		t.Error("no wrong values are given")
	}
	for name, value := range wrong {
		if strings.EqualFold(hex.EncodeToString(got[name]), fmt.Sprint(value)) {
			t.Errorf("%s is the value that is published and wrong", name)
		}
	}
}

func TestUnwrapRefuses(t *testing.T) {
	found := false
	for _, v := range vectors(t) {
		if v.Op != "aes_key_unwrap" {
			continue
		}
		found = true
		o := operands{t, v.Inputs}
		key := [BlockLen]byte{1}
		if err := UnwrapKey(&key, o.key("KEK").Block, o.bytes("Wrapped")); err == nil {
			t.Errorf("%s: opened", v.Name)
		}
		if key != ([BlockLen]byte{}) {
			t.Errorf("%s: something of the key was left behind", v.Name)
		}
		if err := UnwrapKey(&key, o.key("KEK").Block, o.bytes("Wrapped")[1:]); err == nil {
			t.Errorf("%s: opened 23 bytes", v.Name)
		}
	}
	if !found {
		t.Error("no such vector")
	}
}
