package fault

import (
	"bytes"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"joinery"
	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/seal"
	"joinery/internal/sim"
	"joinery/lorawan"
	"joinery/test/leak"
	"joinery/test/rig"
)

// automaticCustody has a server with a key file start the custody process by itself,
// and plants what that process opens.
func automaticCustody(t *testing.T, s *rig.Server, keys *leak.Secrets) {
	t.Helper()
	c, err := config.Read(s.Path("joinery.yaml"))
	ok(t, err)
	c.Export.Automatic = true
	c.Export.Custody = config.Custody{File: "keys/custody.age", PassphraseFile: "keys/custody.passphrase"}
	var text bytes.Buffer
	ok(t, config.Print(&text, c))
	ok(t, os.WriteFile(s.Path("joinery.yaml"), text.Bytes(), 0o600))

	passphrase, err := os.ReadFile(s.Path(c.Export.Custody.PassphraseFile))
	ok(t, err)
	identity, err := age.NewScryptIdentity(strings.TrimRight(string(passphrase), "\r\n"))
	ok(t, err)
	f, err := os.Open(s.Path(c.Export.Custody.File))
	ok(t, err)
	defer func() { _ = f.Close() }()
	plain, err := age.Decrypt(f, identity)
	ok(t, err)
	content, err := io.ReadAll(plain)
	ok(t, err)
	var custody struct {
		CustodyPrivate []byte `json:"custodyPrivate"`
	}
	ok(t, json.Unmarshal(content, &custody))
	parsed, err := x509.ParsePKCS8PrivateKey(custody.CustodyPrivate)
	ok(t, err)
	private, is := parsed.(*rsa.PrivateKey)
	if !is {
		t.Fatalf("the custody key is %T", parsed)
	}
	keys.Plant("custody key, exponent", private.D.Bytes())
	for i, prime := range private.Primes {
		keys.Plant(fmt.Sprintf("custody key, prime %d", i+1), prime.Bytes())
	}
}

// recipients are public keys to which root keys leave. Nobody has the private halves.
var recipients = sync.OnceValues(func() (made [2]*rsa.PublicKey, err error) {
	for i := range made {
		key, err := rsa.GenerateKey(rand.Reader, 3072)
		if err != nil {
			return made, err
		}
		made[i] = &key.PublicKey
	}
	return made, nil
})

// leaving is root keys that leave a server in every way that there is.
type leaving struct {
	*hunt
	// What both are answered is on record.
	operator, api *client.Client
	sha1          bool // the keys are in a token, which knows OAEP with SHA-1 only
	there         client.JoinServer
}

// leaves exports root keys in each form and has devices rekey, as their owner does it,
// and asks for what is refused.
func (h *hunt) leaves(apiKey string) *leaving {
	t := h.t
	t.Helper()
	c, err := h.f.server.Config()
	ok(t, err)
	first, err := h.f.api.Device(t.Context(), h.f.ids[h.f.unclaimed[0].DevEUI])
	ok(t, err)
	made, err := h.f.api.MakeAPIKey(t.Context(), client.NewAPIKey{
		Organisation: first.Owner, Name: "owner's", Scopes: []joinery.Right{joinery.RightDevicesRead, joinery.RightDevicesOwn, joinery.RightExportRequest},
	})
	ok(t, err)
	h.tokens.PlantText("the owner's API key", made.Text)
	x := &leaving{hunt: h, operator: h.client(apiKey), api: h.client(made.Text), sha1: c.Keys.Backend == config.BackendPKCS11}
	public, err := recipients()
	ok(t, err)
	laptop := x.recipient("laptop", "file", public[0])
	server := x.recipient("another server", "join-server", public[1])
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	onCurve := x.recipient("curve", "file", &curve.PublicKey)

	// All are asked for first, so that one custody process may do them.
	asked := []client.Export{x.ask(laptop, "raw"), x.ask(server, "seal"), x.ask(onCurve, "jwe")}
	if !x.sha1 {
		asked = append(asked, x.ask(laptop, "jwe"))
	}
	x.rekeys(public[1], laptop)
	for _, e := range asked {
		if e.Recipient == onCurve.ID && x.sha1 {
			x.failed(e, "P-256")
		} else {
			x.exported(e)
		}
	}
	return x
}

func (h *hunt) client(apiKey string) *client.Client {
	h.t.Helper()
	c, err := client.New(client.Options{Server: h.via, APIKey: apiKey})
	ok(h.t, err)
	h.t.Cleanup(c.Close)
	return c
}

// refused records what the server says to what it does not do.
func (x *leaving) refused(what string, err error) {
	x.t.Helper()
	if err == nil {
		x.t.Errorf("%s: it was done", what)
	}
	x.answers.add(fmt.Append(nil, err))
}

func (x *leaving) recipient(name, kind string, public any) client.Recipient {
	t := x.t
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	ok(t, err)
	in := client.NewRecipient{Name: name, Kind: kind, Key: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
	if _, is := public.(*rsa.PublicKey); is {
		in.SHA1 = x.sha1
	}
	r, err := x.api.AddRecipient(t.Context(), in)
	ok(t, err)
	return r
}

// ask asks for the keys of all devices.
func (x *leaving) ask(to client.Recipient, form string) client.Export {
	x.t.Helper()
	e, err := x.api.RequestExport(x.t.Context(), client.NewExport{Recipient: to.ID, Form: form, Select: &client.ExportSelection{}})
	ok(x.t, err)
	return e
}

// ended waits until the custody process is done with an export.
func (x *leaving) ended(e client.Export) client.Export {
	t := x.t
	t.Helper()
	eventually(t, "the export ends", func() bool {
		now, err := x.api.Export(t.Context(), e.ID)
		ok(t, err)
		e = now
		return e.State == "ready" || e.State == "failed"
	})
	return e
}

// exported wants an export to have been made, and downloads it.
func (x *leaving) exported(e client.Export) {
	t := x.t
	t.Helper()
	if e = x.ended(e); e.State != "ready" || int(e.Wrapped) != len(x.f.ids) {
		t.Fatalf("%+v", e)
	}
	lines := 0
	for after := ""; ; {
		page, err := x.api.ExportFile(t.Context(), e.ID, client.ExportFileQuery{After: after})
		ok(t, err)
		lines += len(page.Items)
		if after = page.Next; after == "" {
			break
		}
	}
	if lines != len(x.f.ids) {
		t.Errorf("%d lines for %d devices: %+v", lines, len(x.f.ids), e)
	}
	_, err := x.api.AcknowledgeExport(t.Context(), e.ID)
	ok(t, err)
	_, err = x.api.ExportFile(t.Context(), e.ID, client.ExportFileQuery{})
	x.refused("a second download", err)
}

func (x *leaving) failed(e client.Export, why string) {
	x.t.Helper()
	if e = x.ended(e); e.State != "failed" || !strings.Contains(e.Note, why) {
		x.t.Errorf("%+v", e)
	}
}

// away is where devices go that are rekeyed.
var away = lorawan.EUI64{0xEC, 0x65, 0x6E, 0xFF, 0xFE, 0, 0, 1}

// rekeys has one element rekey to another Join Server, with its next rekeying key, and
// discloses the new root keys of a second one.
func (x *leaving) rekeys(there *rsa.PublicKey, to client.Recipient) {
	t := x.t
	ctx := t.Context()
	t.Helper()
	alg := seal.AlgRSAOAEP256
	if x.sha1 {
		alg = seal.AlgRSAOAEP
	}
	transport, err := seal.NewPublicKeyFor(there, alg)
	ok(t, err)
	x.there, err = x.operator.PinJoinServer(ctx, client.NewJoinServer{Name: "there", TransportKey: transport.MarshalDER()})
	ok(t, err)
	moves, discloses, imported := x.f.ids[x.f.unclaimed[0].DevEUI], x.f.ids[x.f.unclaimed[1].DevEUI], x.f.ids[x.f.members[0].DevEUI()]
	_, err = x.api.MakeHandover(ctx, client.NewHandover{To: x.there.ID, Devices: []joinery.DeviceID{moves}})
	x.refused("a hand-over without an order", err)
	_, err = x.api.ArmRekey(ctx, imported, client.NewRekeyOrder{NewJoinEUI: away, To: x.there.ID})
	x.refused("an imported device", err)

	o, err := x.api.ArmRekey(ctx, moves, client.NewRekeyOrder{NewJoinEUI: away, To: x.there.ID, RekeyKey: true})
	ok(t, err)
	x.plantRekeyed(x.f.unclaimed[0].DevEUI, o)
	_, err = x.api.MakeRekeyTicket(ctx, client.NewRekeyTicket{Devices: []joinery.DeviceID{moves}})
	ok(t, err)
	for _, lose := range []bool{true, false} {
		x.handsOver()
		r, err := x.f.ns.Join(ctx, x.element.Device, sim.JoinOptions{Rekey: true, Lose: lose})
		ok(t, err)
		ok(t, r.Err())
		x.answers.add(r.Reply.Body)
	}
	if x.element.JoinEUI() != away {
		t.Errorf("the element asks for %s", x.element.JoinEUI())
	}

	o, err = x.api.ArmRekey(ctx, discloses, client.NewRekeyOrder{NewJoinEUI: away, Recipient: to.ID})
	ok(t, err)
	x.plantRekeyed(x.f.unclaimed[1].DevEUI, o)
	_, err = x.api.MakeHandover(ctx, client.NewHandover{Recipient: to.ID, Devices: []joinery.DeviceID{discloses}})
	ok(t, err)
	_, err = x.api.MakeHandover(ctx, client.NewHandover{To: x.there.ID, Devices: []joinery.DeviceID{discloses}})
	x.refused("to another than the order names", err)
}

// handsOver seals the new keys of the element that moves to the other Join Server, as
// often as it is asked to.
func (x *leaving) handsOver() {
	x.t.Helper()
	moves := x.f.ids[x.f.unclaimed[0].DevEUI]
	f, err := x.api.MakeHandover(x.t.Context(), client.NewHandover{To: x.there.ID, Devices: []joinery.DeviceID{moves}})
	ok(x.t, err)
	if len(f.File) < 500 {
		x.t.Errorf("a hand-over of %d bytes", len(f.File))
	}
	x.answers.add(f.File)
}

// plantRekeyed derives what an element of profile S has once it obeys, as
// docs/handover.md has it, from the rekeying key with which it came.
func (h *hunt) plantRekeyed(devEUI lorawan.EUI64, o client.RekeyOrder) {
	h.t.Helper()
	encrypt := func(key, block []byte) []byte {
		c, err := aes.NewCipher(key)
		ok(h.t, err)
		c.Encrypt(block, block)
		return block
	}
	in := binary.BigEndian.AppendUint32([]byte{3, 1}, 1) // generation
	rekeying := encrypt(h.master[:], slices.Concat(in, []byte{0, 0}, devEUI[:]))
	h.keys.PlantKey("rekeying key of "+devEUI.String(), rekeying)
	for purpose, what := range map[byte]string{0x21: "new NwkKey of ", 0x22: "new AppKey of ", 0x23: "next rekeying key of "} {
		block := slices.Concat([]byte{purpose}, o.Cookie[:], littleEndian(o.NewJoinEUI[:]))
		h.keys.PlantKey(what+devEUI.String(), encrypt(rekeying, block))
	}
}
