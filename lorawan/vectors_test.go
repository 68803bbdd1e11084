package lorawan

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
)

// vector is one entry of testdata/vectors/lorawan.json; its README tells what
// the members mean.
type vector struct {
	Name            string         `json:"name"`
	Source          string         `json:"source"`
	Op              string         `json:"op"`
	Inputs          map[string]any `json:"inputs"`
	Expected        map[string]any `json:"expected"`
	ComputedPerSpec map[string]any `json:"computed_per_spec"`
	Published       bool           `json:"published"`
	Status          string         `json:"status"`
}

func loadVectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors/lorawan.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

func fromHex(t testing.TB, m map[string]any, name string) []byte {
	t.Helper()
	text, ok := m[name].(string)
	b, err := hex.DecodeString(text)
	if !ok || err != nil {
		t.Fatalf("%s is not hexadecimal", name)
	}
	return b
}

func uintFromHex(t testing.TB, m map[string]any, name string) uint64 {
	t.Helper()
	text, _ := m[name].(string)
	v, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		t.Fatalf("%s is not hexadecimal", name)
	}
	return v
}

func euiOf(t testing.TB, m map[string]any, name string) EUI64 {
	t.Helper()
	return EUI64(fromHex(t, m, name))
}

// acceptOf makes the accept that the inputs of a vector describe.
func acceptOf(t testing.TB, in map[string]any) JoinAccept {
	t.Helper()
	rxDelay, isNumber := in["RxDelay"].(float64)
	if !isNumber {
		rxDelay = float64(uintFromHex(t, in, "RxDelay"))
	}
	cfList, err := ParseCFList(fromHex(t, in, "CFList_wire"))
	if err != nil {
		t.Fatal(err)
	}
	return JoinAccept{
		JoinNonce:  JoinNonce(uintFromHex(t, in, "JoinNonce")),
		NetID:      NetID(fromHex(t, in, "NetID")),
		DevAddr:    DevAddr(fromHex(t, in, "DevAddr")),
		DLSettings: DLSettings(uintFromHex(t, in, "DLSettings")),
		RxDelay:    uint8(rxDelay),
		CFList:     cfList,
	}
}

// vectorChecks are the operations in which a layout of this package takes part.
var vectorChecks = map[string]func(*testing.T, vector){
	"build_join_request":         func(t *testing.T, v vector) { checkJoinRequest(t, v, "PHYPayload") },
	"join":                       checkJoin,
	"rejoin":                     checkRejoin,
	"build_rejoin_request":       checkBuildRejoin,
	"mic_rejoin_request":         checkRejoinMIC,
	"mic_join_request":           checkJoinMIC,
	"encode_join_accept_payload": checkAcceptPayload,
	"mic_join_accept_1_0":        checkAcceptMIC,
	"mic_join_accept_1_1":        checkAcceptMIC,
	"encode_cflist_type0":        checkCFList,
	"build_join_accept_1_0":      func(t *testing.T, v vector) { checkAccept(t, v, "PHYPayload", fromHex(t, v.Inputs, "Key")) },
	"build_join_accept_1_1_raw":  func(t *testing.T, v vector) { checkAccept(t, v, "PHYPayload", fromHex(t, v.Inputs, "EncKey")) },
}

func TestVectors(t *testing.T) {
	ran := map[string]int{}
	for _, v := range loadVectors(t) {
		check, ok := vectorChecks[v.Op]
		if !ok {
			continue // cryptography without a layout of ours: run by lwcrypto and sim
		}
		ran[v.Op]++
		t.Run(v.Name, func(t *testing.T) { check(t, v) })
	}
	for op := range vectorChecks {
		if ran[op] == 0 {
			t.Errorf("the file has no vector for %s", op)
		}
	}
}

func TestVectorFile(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range loadVectors(t) {
		if v.Name == "" || seen[v.Name] || v.Source == "" || v.Op == "" || len(v.Inputs) == 0 || len(v.Expected) == 0 {
			t.Errorf("vector %q is incomplete or has a name that is taken", v.Name)
		}
		seen[v.Name] = true
		wrong := v.Status == "published-but-wrong"
		if (v.Status != "" && !wrong) || wrong != (v.ComputedPerSpec != nil) || (wrong && !v.Published) {
			t.Errorf("%s: status %q does not fit the rest", v.Name, v.Status)
		}
	}
}

func checkJoinRequest(t *testing.T, v vector, frame string) {
	wire := fromHex(t, v.Expected, frame)
	f, err := ParseJoinRequest(wire)
	if err != nil {
		t.Fatal(err)
	}
	want := JoinRequest{
		JoinEUI:  euiOf(t, v.Inputs, "JoinEUI"),
		DevEUI:   euiOf(t, v.Inputs, "DevEUI"),
		DevNonce: DevNonce(uintFromHex(t, v.Inputs, "DevNonce")),
		MIC:      f.MIC,
	}
	if f != want || !bytes.Equal(want.Append(nil), wire) {
		t.Errorf("parsed %+v, want %+v; written % x", f, want, want.Append(nil))
	}
}

// checkJoin reads the request, and the answer as a device does: AES encryption
// undoes what the server did (TS001-1.0.4 §6.2.6).
func checkJoin(t *testing.T, v vector) {
	checkJoinRequest(t, v, "JoinReq_PHYPayload")
	root := "AppKey"
	if v.Inputs["NwkKey"] != nil {
		root = "NwkKey"
	}
	checkAccept(t, v, "JoinAns_PHYPayload", fromHex(t, v.Inputs, root))
}

func checkRejoin(t *testing.T, v vector) {
	wire := fromHex(t, v.Expected, "RejoinReq_PHYPayload")
	f, err := ParseRejoinRequest(wire)
	if err != nil {
		t.Fatal(err)
	}
	want := RejoinRequest{
		Type:    RejoinType(uintFromHex(t, v.Inputs, "RejoinType")),
		NetID:   NetID(fromHex(t, v.Inputs, "NetID")),
		DevEUI:  euiOf(t, v.Inputs, "DevEUI"),
		RJCount: RJCount(uintFromHex(t, v.Inputs, "RJcount")),
		MIC:     f.MIC,
	}
	if f != want || !bytes.Equal(want.Append(nil), wire) {
		t.Errorf("parsed %+v, want %+v; written % x", f, want, want.Append(nil))
	}
	// JSEncKey = aes128(NwkKey, 05 ‖ DevEUI ‖ 0…) (TS001-1.1 §6.1.1.3).
	block := appendEUI([]byte{0x05}, want.DevEUI)
	checkAccept(t, v, "JoinAccept_PHYPayload", encryptBlock(t, fromHex(t, v.Inputs, "NwkKey"), block))
}

func checkBuildRejoin(t *testing.T, v vector) {
	wire := fromHex(t, v.Expected, "PHYPayload")
	f, err := ParseRejoinRequest(wire)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.AppendUnsigned(nil); !bytes.Equal(got, fromHex(t, v.Inputs, "Message_wire")) || !bytes.Equal(f.Append(nil), wire) {
		t.Errorf("%+v: the MIC covers % x", f, got)
	}
}

func checkRejoinMIC(t *testing.T, v vector) {
	message := fromHex(t, v.Inputs, "Message_wire")
	f, err := ParseRejoinRequest(append(bytes.Clone(message), fromHex(t, v.Expected, "MIC")...))
	if err != nil || !bytes.Equal(f.AppendUnsigned(nil), message) {
		t.Errorf("%+v, %v", f, err)
	}
}

// checkJoinMIC: one source signs bytes that are no join-request; the parser must
// say so.
func checkJoinMIC(t *testing.T, v vector) {
	message := fromHex(t, v.Inputs, "Message_wire")
	f, err := ParseJoinRequest(append(bytes.Clone(message), fromHex(t, v.Expected, "MIC")...))
	if message[0] != MHDRJoinRequest {
		if err == nil {
			t.Error("accepted a frame that is no join-request")
		}
		return
	}
	if err != nil || !bytes.Equal(f.AppendUnsigned(nil), message) {
		t.Errorf("%+v, %v", f, err)
	}
}

func checkAcceptPayload(t *testing.T, v vector) {
	want := acceptOf(t, v.Inputs)
	wire := append([]byte{MHDRJoinAccept}, fromHex(t, v.Expected, "Payload_wire")...)
	f, err := ParseJoinAccept(wire)
	if err != nil || f != want || !bytes.Equal(want.Append(nil), wire) {
		t.Errorf("parsed %+v, %v, want %+v; written % x", f, err, want, want.Append(nil))
	}
}

// checkAcceptMIC: what the MIC covers is what Append writes, wherever the source
// signs an accept.
func checkAcceptMIC(t *testing.T, v vector) {
	var message []byte
	if v.Inputs["Payload_wire"] != nil {
		message = append([]byte{MHDRJoinAccept}, fromHex(t, v.Inputs, "Payload_wire")...)
	} else {
		message = fromHex(t, v.Inputs, "Message_wire")
	}
	f, err := ParseJoinAccept(message)
	if message[0] != MHDRJoinAccept {
		if err == nil {
			t.Error("accepted a frame that is no join-accept")
		}
		return
	}
	if err != nil || !bytes.Equal(f.Append(nil), message) {
		t.Errorf("%+v, %v", f, err)
	}
}

// checkAccept opens an accept as the device does and compares its fields.
func checkAccept(t *testing.T, v vector, frame string, encKey []byte) {
	wire := fromHex(t, v.Expected, frame)
	if len(wire) != JoinAcceptLen && len(wire) != JoinAcceptCFListLen {
		t.Fatalf("accept has %d bytes", len(wire))
	}
	plain := []byte{wire[0]}
	for b := wire[1:]; len(b) > 0; b = b[aes.BlockSize:] {
		plain = append(plain, encryptBlock(t, encKey, b[:aes.BlockSize])...)
	}
	f, err := ParseJoinAccept(plain[:len(plain)-MICLen])
	if want := acceptOf(t, v.Inputs); err != nil || f != want {
		t.Errorf("opened %+v, %v; want %+v", f, err, want)
	}
	if f.DLSettings.OptNeg() != strings.Contains(v.Name, "1.1") && v.Op != "rejoin" {
		t.Errorf("OptNeg is %t", f.DLSettings.OptNeg())
	}
}

func checkCFList(t *testing.T, v vector) {
	wire := fromHex(t, v.Expected, "CFList_wire")
	c, err := ParseCFList(wire)
	if err != nil || !bytes.Equal(c.Append(nil), wire) {
		t.Fatalf("%+v, %v", c, err)
	}
	// The list is opaque to a Join Server; that the vector means what it says:
	// five frequencies in units of 100 Hz, 3 bytes each, then type 0.
	frequencies, ok := v.Inputs["FrequenciesHz"].([]any)
	if !ok || len(frequencies) != 5 {
		t.Fatal("want five frequencies")
	}
	for i, hz := range frequencies {
		b := append(bytes.Clone(wire[3*i:3*i+3]), 0)
		if got := float64(binary.LittleEndian.Uint32(b)) * 100; got != hz {
			t.Errorf("frequency %d is %v Hz, want %v", i, got, hz)
		}
	}
	if wire[15] != 0 {
		t.Errorf("type is %d", wire[15])
	}
}

func encryptBlock(t testing.TB, key, block []byte) []byte {
	t.Helper()
	c, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, aes.BlockSize)
	copy(out, block)
	c.Encrypt(out, out)
	return out
}

// TestPublishedButWrong shows from first principles what the one wrong vector
// is: the published keys come from the 1.0 block layout (NetID), the computed
// ones from the 1.1 layout (JoinEUI), and the two differ in every key. Whoever
// derives keys must give the second (TS001-1.1 §6.1.1.3).
func TestPublishedButWrong(t *testing.T) {
	found := 0
	for _, v := range loadVectors(t) {
		if v.Status != "published-but-wrong" {
			continue
		}
		found++
		joinNonce := uintFromHex(t, v.Inputs, "JoinNonce")
		count := uint16(uintFromHex(t, v.Inputs, "DevNonce"))
		head := []byte{0, byte(joinNonce), byte(joinNonce >> 8), byte(joinNonce >> 16)}
		layout1_0 := binary.LittleEndian.AppendUint16(append(bytes.Clone(head), 0x03, 0x02, 0x01), count)
		layout1_1 := binary.LittleEndian.AppendUint16(appendEUI(bytes.Clone(head), euiOf(t, v.Inputs, "JoinEUI")), count)
		for name, derivation := range map[string]struct {
			typ  byte
			root string
		}{
			"FNwkSIntKey": {0x01, "NwkKey"}, "AppSKey": {0x02, "AppKey"},
			"SNwkSIntKey": {0x03, "NwkKey"}, "NwkSEncKey": {0x04, "NwkKey"},
		} {
			root := fromHex(t, v.Inputs, derivation.root)
			published, right := fromHex(t, v.Expected, name), fromHex(t, v.ComputedPerSpec, name)
			layout1_0[0], layout1_1[0] = derivation.typ, derivation.typ
			if got := encryptBlock(t, root, layout1_1); !bytes.Equal(got, right) || bytes.Equal(got, published) {
				t.Errorf("%s by the 1.1 layout is % x", name, got)
			}
			// One root for all in the 1.0 layout, which is wrong for AppSKey, too.
			if got := encryptBlock(t, fromHex(t, v.Inputs, "NwkKey"), layout1_0); !bytes.Equal(got, published) {
				t.Errorf("%s by the 1.0 layout is % x", name, got)
			}
		}
	}
	if found != 1 {
		t.Errorf("the file has %d wrong vectors, want 1", found)
	}
}
