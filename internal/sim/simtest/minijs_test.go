package simtest_test

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"joinery/internal/sim/aesmode"
	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

// miniJS is the smallest Join Server that answers as it should: state in
// memory, one home network, no database and no custody. Its purpose is to be
// damaged: tamper may change any answer before it leaves.
type miniJS struct {
	t      testing.TB
	server *httptest.Server
	ca     *authority

	mu      sync.Mutex
	devices map[lorawan.EUI64]*miniDevice
	// home is the network that may join every device.
	home lorawan.NetID
	// nsKEK and asKEK wrap; nil sends keys in the clear.
	nsLabel, asLabel string
	nsKEK, asKEK     []byte
	// byID leaves AppSKey out of a JoinAns; omitID leaves SessionKeyID out.
	byID, omitID bool
	tamper       func(m *message)
}

type miniDevice struct {
	roots     simtest.Roots
	joinNonce lorawan.JoinNonce
	used      map[string]bool
	sessions  []simtest.Session
	appSKeys  map[string][16]byte
	// last is the request answered last and its answer: a repeat gets it again.
	lastRequest string
	lastAnswer  []member
}

// message is an answer on its way out.
type message struct {
	status      int
	contentType string
	members     []member
	// raw replaces the body, if not empty.
	raw string
	// closes ends the connection after the answer.
	closes bool
}

type member struct{ name, value string }

func (m *message) set(name, value string) {
	for i := range m.members {
		if m.members[i].name == name {
			m.members[i].value = value
			return
		}
	}
	m.members = append(m.members, member{name, value})
}

func (m *message) get(name string) string {
	for _, e := range m.members {
		if e.name == name {
			return e.value
		}
	}
	return ""
}

func (m *message) remove(name string) {
	kept := m.members[:0:0]
	for _, e := range m.members {
		if e.name != name {
			kept = append(kept, e)
		}
	}
	m.members = kept
}

func (m *message) body() string {
	if m.raw != "" {
		return m.raw
	}
	parts := make([]string, len(m.members))
	for i, e := range m.members {
		parts[i] = fmt.Sprintf("%q:%s", e.name, e.value)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func newMiniJS(t testing.TB) *miniJS {
	t.Helper()
	js := &miniJS{
		t: t, ca: newAuthority(t, "test CA"), devices: map[lorawan.EUI64]*miniDevice{}, home: lorawan.NetID{0, 0, 0x13},
		nsLabel: "ns-000013-v1", asLabel: "as-example-v1", nsKEK: randomBytes(16), asKEK: randomBytes(32),
	}
	js.server = httptest.NewUnstartedServer(js)
	js.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	js.server.TLS = &tls.Config{
		Certificates: []tls.Certificate{js.ca.leaf(t, "join server")},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: js.ca.pool(), MinVersion: tls.VersionTLS12,
	}
	js.server.StartTLS()
	t.Cleanup(js.server.Close)
	return js
}

// clientTLS is a client's side of mutual TLS.
func (js *miniJS) clientTLS() *tls.Config {
	return &tls.Config{RootCAs: js.ca.pool(), Certificates: []tls.Certificate{js.ca.leaf(js.t, "client")}, MinVersion: tls.VersionTLS12}
}

func (js *miniJS) add(devEUI lorawan.EUI64, roots simtest.Roots) {
	js.mu.Lock()
	defer js.mu.Unlock()
	js.devices[devEUI] = &miniDevice{roots: roots, used: map[string]bool{}, appSKeys: map[string][16]byte{}}
}

// setTamper changes what is done to answers while clients are at work.
func (js *miniJS) setTamper(do func(*message)) {
	js.mu.Lock()
	defer js.mu.Unlock()
	js.tamper = do
}

func (js *miniJS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct {
		ProtocolVersion, MessageType, SenderID, ReceiverID, SenderNSID string
		MACVersion, PHYPayload, DevEUI, DevAddr, DLSettings, CFList    string
		SessionKeyID                                                   string
		TransactionID                                                  uint32
		RxDelay                                                        uint8
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &q) != nil {
		http.Error(w, "{}", http.StatusBadRequest)
		return
	}
	js.mu.Lock()
	defer js.mu.Unlock()
	m := &message{status: http.StatusOK, contentType: "application/json"}
	m.set("ProtocolVersion", quote(q.ProtocolVersion))
	m.set("TransactionID", fmt.Sprint(q.TransactionID))
	m.set("MessageType", quote(strings.TrimSuffix(q.MessageType, "Req")+"Ans"))
	m.set("SenderID", quote(q.ReceiverID))
	m.set("ReceiverID", quote(q.SenderID))
	if q.SenderNSID != "" {
		m.set("ReceiverNSID", quote(q.SenderNSID))
	}
	devEUI := lorawan.EUI64(unhex(q.DevEUI))
	d := js.devices[devEUI]
	var code string
	switch q.MessageType {
	case "AppSKeyReq":
		m.set("DevEUI", quote(q.DevEUI))
		m.set("SessionKeyID", quote(q.SessionKeyID))
		code = js.appSKey(m, d, unhex(q.SessionKeyID))
	case "HomeNSReq":
		m.set("HNetID", quote(js.home.String()))
		code = "Success"
	default:
		accept := lorawan.JoinAccept{
			NetID: lorawan.NetID(unhex(q.SenderID)), DevAddr: lorawan.DevAddr(unhex(q.DevAddr)),
			DLSettings: lorawan.DLSettings(unhex(q.DLSettings)[0]), RxDelay: q.RxDelay,
		}
		if q.CFList != "" {
			accept.CFList, _ = lorawan.ParseCFList(unhex(q.CFList))
		}
		code = js.activate(m, d, q.ProtocolVersion, q.MessageType, unhex(q.PHYPayload), accept)
	}
	m.set("Result", `{"ResultCode":`+quote(code)+`}`)
	if js.tamper != nil {
		js.tamper(m)
	}
	w.Header().Set("Content-Type", m.contentType)
	if m.closes {
		w.Header().Set("Connection", "close")
	}
	w.WriteHeader(m.status)
	_, _ = io.WriteString(w, m.body())
}

// activate answers a JoinReq or RejoinReq and gives the result code.
func (js *miniJS) activate(m *message, d *miniDevice, protocol, messageType string, phy []byte, a lorawan.JoinAccept) string {
	if d == nil || a.NetID != js.home {
		return "UnknownDevEUI"
	}
	s, good := d.verify(messageType, phy)
	if !good {
		return "MICFailed"
	}
	s.Accept = a
	request := fmt.Sprintf("%x %+v", phy, a)
	if d.lastRequest == request {
		m.members = append(m.members, d.lastAnswer...)
		return "Success"
	}
	nonce := fmt.Sprint(s.Type, s.Count)
	if s.Type == 0 || s.Type == 2 {
		nonce = fmt.Sprint("RJcount0", s.Count, len(d.sessions))
	}
	if d.used[nonce] {
		if protocol == "1.1" {
			return "FrameReplayed"
		}
		return "JoinReqFailed"
	}
	d.used[nonce] = true
	d.joinNonce++
	s.Accept.JoinNonce = d.joinNonce
	before := len(m.members)
	js.answer(m, d, s)
	d.sessions = append(d.sessions, s)
	d.lastRequest, d.lastAnswer = request, append([]member(nil), m.members[before:]...)
	return "Success"
}

// verify checks a frame's MIC and gives what it activates.
func (d *miniDevice) verify(messageType string, phy []byte) (simtest.Session, bool) {
	unsigned := phy[:len(phy)-4]
	if messageType == "JoinReq" {
		f, err := lorawan.ParseJoinRequest(phy)
		return simtest.Session{Type: 0xFF, JoinEUI: f.JoinEUI, DevEUI: f.DevEUI, Count: uint16(f.DevNonce)},
			err == nil && simtest.CMAC4(d.roots.NwkKey, unsigned) == f.MIC
	}
	f, err := lorawan.ParseRejoinRequest(phy)
	if err != nil || len(d.sessions) == 0 {
		return simtest.Session{}, false
	}
	last := d.sessions[len(d.sessions)-1]
	s := simtest.Session{Type: byte(f.Type), JoinEUI: last.JoinEUI, DevEUI: f.DevEUI, Count: uint16(f.RJCount)}
	if f.Type == lorawan.Rejoin1 {
		jsIntKey, _ := d.roots.JSKeys(f.DevEUI)
		return s, simtest.CMAC4(jsIntKey, unsigned) == f.MIC
	}
	for _, session := range d.sessions {
		if simtest.CMAC4(d.roots.SessionKeys(session).SNwkSIntKey, unsigned) == f.MIC {
			return s, true
		}
	}
	return s, false
}

func (js *miniJS) answer(m *message, d *miniDevice, s simtest.Session) {
	keys := d.roots.SessionKeys(s)
	m.set("PHYPayload", quoteHex(d.roots.AcceptFrame(s)))
	m.set("Lifetime", "0")
	if s.Accept.DLSettings.OptNeg() {
		m.set("FNwkSIntKey", js.envelope(js.nsLabel, js.nsKEK, keys.FNwkSIntKey))
		m.set("SNwkSIntKey", js.envelope(js.nsLabel, js.nsKEK, keys.SNwkSIntKey))
		m.set("NwkSEncKey", js.envelope(js.nsLabel, js.nsKEK, keys.NwkSEncKey))
	} else {
		m.set("NwkSKey", js.envelope(js.nsLabel, js.nsKEK, keys.FNwkSIntKey))
	}
	if !js.byID {
		m.set("AppSKey", js.envelope(js.asLabel, js.asKEK, keys.AppSKey))
	}
	id := randomBytes(16)
	d.appSKeys[string(id)] = keys.AppSKey
	if !js.omitID {
		m.set("SessionKeyID", quoteHex(id))
	}
}

func (js *miniJS) appSKey(m *message, d *miniDevice, id []byte) string {
	if d == nil {
		return "UnknownDevEUI"
	}
	key, known := d.appSKeys[string(id)]
	if !known {
		return "Other"
	}
	m.set("AppSKey", js.envelope(js.asLabel, js.asKEK, key))
	return "Success"
}

func (js *miniJS) envelope(label string, kek []byte, key [16]byte) string {
	if kek == nil {
		return `{"AESKey":` + quoteHex(key[:]) + `}`
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		panic(err) // a test's own KEK
	}
	wrapped, err := aesmode.Wrap(nil, block, key[:])
	if err != nil {
		panic(err)
	}
	return `{"KEKLabel":` + quote(label) + `,"AESKey":` + quoteHex(wrapped) + `}`
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string is JSON
	}
	return string(b)
}

func quoteHex(b []byte) string { return quote(hex.EncodeToString(b)) }

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X"))
	if err != nil {
		panic(err) // the simulator sent it
	}
	return b
}
