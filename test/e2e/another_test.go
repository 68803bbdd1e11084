package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"

	"joinery/client"
	"joinery/lorawan"
)

// recipient is a key pair on somebody's machine, of which the organisation knows the
// public half by the name safe; it gives the file with the private one.
func (p person) recipient(file func(string) string) (private string) {
	p.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	ok(p.t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ok(p.t, err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	ok(p.t, err)
	private = file("private.pem")
	ok(p.t, os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	ok(p.t, os.WriteFile(file("public.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
	p.does("export", "recipient", "add", "safe", file("public.pem"))
	return private
}

// exportsWithAnother has one admin ask for the root keys of a device and another one
// decide: what is rejected or withdrawn gives nothing, and what is approved opens as the
// keys that the element came with. Then the rule is made stricter, and weaker.
func exportsWithAnother(ann, ben person, name string, file func(string) string) {
	t := ann.t
	t.Helper()
	private := ann.recipient(file)
	ask := func() (e client.Export) {
		t.Helper()
		e = answerOf[client.Export](ann, "export", "request", name, "--to", "safe")
		if e.WaitsFor != "approval" || !e.NeedsApproval {
			t.Fatalf("%+v", e)
		}
		return e
	}
	stands := func(e client.Export, want string) {
		t.Helper()
		if e = answerOf[client.Export](ben, "export", "show", e.ID.String()); e.State != want || e.Wrapped != 0 {
			t.Errorf("%+v, want %s", e, want)
		}
	}
	rejected, withdrawn := ask(), ask()
	ben.does("export", "reject", rejected.ID.String(), "--note", "we do not know this key")
	stands(rejected, "rejected")
	ann.does("export", "withdraw", withdrawn.ID.String())
	stands(withdrawn, "withdrawn")

	e := ask()
	approve := []string{"export", "approve", e.ID.String(), "--thumbprint", e.Thumbprint, "--digest", e.Digest}
	ann.fails("you asked for it yourself", approve...)
	ben.fails("not what", append(approve, "--digest", strings.Repeat("0", 64))...)
	ben.does(approve...)
	_, err := ann.server.Run(t.Context(), "", "joinery", "export", "run", "--config", ann.server.Path("joinery.yaml"))
	ok(t, err)
	ann.does("export", "download", e.ID.String(), "--out", file("export.jsonl"))
	_, err = ann.server.Run(t.Context(), "", "joinctl", "export", "open", file("export.jsonl"), "--key", private, "--server-key", signerOf(ann),
		"--format", "json", "--out", file("exported.jsonl"))
	ok(t, err)
	opensAs(t, file("exported.jsonl"), ann.elementKey(name, nil))
	for _, no := range []client.Export{rejected, withdrawn} {
		ann.fails("it cannot be downloaded", "export", "download", no.ID.String(), "--out", file("none.jsonl"))
	}

	ann.does("export", "policy", "always")
	ann.does("export", "policy", "never")
	ann.fails("another", "export", "policy", "never", "--approve")
	if p := answerOf[client.ExportPolicy](ben, "export", "policy", "never", "--approve"); p.Approval != "always" || p.Next != "never" || p.NextFrom.IsZero() {
		t.Errorf("%+v", p)
	}
}

// signerOf is the key that signs exports, as the server publishes it.
func signerOf(p person) string {
	p.t.Helper()
	return answerOf[[]client.ExportSigner](p, "export", "signers")[0].Thumbprint
}

// goesToRecipient has the new root keys of a device go to the holder of a key, who
// opens them; then the order is cancelled before anybody told the device.
func goesToRecipient(ann, ben person, name string, file func(string) string) {
	t := ann.t
	t.Helper()
	const joinEUI = "EC656EFFFE000003"
	order := answerOf[[]client.RekeyOrder](ann, "rekey", "arm", name, "--join-eui", joinEUI, "--recipient", "safe", "--yes")[0]
	ben.does("rekey", "approve", name, "--join-eui", joinEUI, "--thumbprint", order.Thumbprint)
	ann.does("rekey", "handover", name, "--recipient", "safe", "--out", file("safe.json"))
	_, err := ann.server.Run(t.Context(), "", "joinctl", "rekey", "open", file("safe.json"), "--key", file("private.pem"), "--statement-key", file("a.statement.pub"),
		"--format", "json", "--out", file("opened.jsonl"))
	ok(t, err)
	opensAs(t, file("opened.jsonl"), ann.elementKey(name, &lorawan.Rekey{JoinEUI: order.NewJoinEUI, Cookie: order.Cookie}))
	if said := ann.does("device", "show", name); !strings.Contains(said, order.Thumbprint) {
		t.Errorf("it does not say to whom root keys were disclosed:\n%s", said)
	}
	ann.does("rekey", "cancel", name)
}

// elementKey is the NwkKey of an element of profile S, in hexadecimal digits: the one
// that it came with or, with r, the one to which that instruction leads.
func (s *scene) elementKey(name string, r *lorawan.Rekey) (text string) {
	s.t.Helper()
	for _, row := range siliconOf(s.t, s.server) {
		if row.DevEUI.String() != name {
			continue
		}
		row.open(s.t, func(nwkKey, _, rekeyKey []byte) {
			if r != nil {
				nwkKey = derived(s.t, rekeyKey, 0x21, *r)
			}
			text = fmt.Sprintf("%X", nwkKey)
		})
	}
	if text == "" {
		s.t.Fatalf("no element %s", name)
	}
	return text
}

// opensAs wants a file of opened keys to have this one, and no other.
func opensAs(t *testing.T, path, key string) {
	t.Helper()
	text, err := os.ReadFile(path)
	ok(t, err)
	if !bytes.Contains(text, []byte(`"key":"`+key+`"`)) || bytes.Count(text, []byte(`"key":`)) != 1 {
		t.Errorf("%s has not the one key that it should have", path)
	}
}

// batchOf is an order to rekey several devices that one admin gives and another
// approves.
type batchOf struct {
	ann, ben   person
	arm        []string // the command that orders it
	thumbprint string   // of the key to which the new root keys go
}

// ordered orders it and gives its id.
func (b batchOf) ordered() string {
	b.ann.does(b.arm...)
	return answerOf[[]client.RekeyBatch](b.ben, "rekey", "batch", "list")[0].ID.String()
}

// notWanted has one rejected and one withdrawn: nothing comes of either for a device.
func (b batchOf) notWanted(name string) {
	t := b.ann.t
	t.Helper()
	before := answerOf[client.Rekeying](b.ann, "rekey", "status", name).Orders
	b.ben.does("rekey", "batch", "reject", b.ordered(), "--note", "not yet")
	b.ann.does("rekey", "batch", "withdraw", b.ordered())
	list := answerOf[[]client.RekeyBatch](b.ben, "rekey", "batch", "list")
	if len(list) != 2 || list[0].State != "withdrawn" || list[1].State != "rejected" || list[1].Note != "not yet" || list[0].Armed+list[1].Armed != 0 {
		t.Fatalf("%+v", list)
	}
	if after := answerOf[client.Rekeying](b.ann, "rekey", "status", name).Orders; len(after) != len(before) {
		t.Fatalf("%+v", after)
	}
}

// armed has it ordered, approved and armed for so many devices, and gives its id.
func (b batchOf) armed(devices int) (id string) {
	t := b.ann.t
	t.Helper()
	id = b.ordered()
	shown := answerOf[client.RekeyBatch](b.ben, "rekey", "batch", "show", id)
	if shown.State != "requested" || shown.Thumbprint != b.thumbprint || shown.Devices != int64(devices) {
		t.Fatalf("%+v", shown)
	}
	approve := []string{"rekey", "batch", "approve", id, "--join-eui", shown.NewJoinEUI.String(), "--thumbprint", shown.Thumbprint, "--digest", shown.Digest}
	b.ann.fails("you asked for it yourself", approve...)
	b.ben.does(approve...)
	if done := answerOf[client.RekeyBatch](b.ann, "rekey", "batch", "show", id, "--wait", "1m"); done.State != "done" || done.Armed != int64(devices) {
		t.Fatalf("%+v", done)
	}
	for _, i := range answerOf[[]client.RekeyBatchItem](b.ann, "rekey", "batch", "show", id, "--devices") {
		if i.Order == 0 {
			t.Fatalf("%+v", i)
		}
	}
	return id
}
