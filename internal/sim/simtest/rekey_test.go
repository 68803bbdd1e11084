package simtest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery/internal/rekeyfile"
	"joinery/internal/sim/command"
	"joinery/internal/sim/lab"
	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

// A ticket is replayed onto elements of both profiles, twice, and what they have
// then outlives the invocation. One without a rekeying key is told of.
func TestElementRekey(t *testing.T) {
	b := newBench(t)
	b.elements[0].RekeyKey, b.elements[1].RekeyKey = randomBytes(16), randomBytes(32)
	writeFile(t, b.path("sim/elements.silicon"), simtest.Silicon(t, b.path("sim/recipient.pub"), b.elements))
	serial, err := hex.DecodeString(b.elements[1].UniqueID)
	if err != nil {
		t.Fatal(err)
	}
	mac := sha256.Sum256(slices.Concat(b.elements[1].RekeyKey, []byte{0x1C, 4, 0, 0, serial[8], serial[0], serial[1]}))
	there := lorawan.EUI64{0xEC, 0x65, 0x6E, 0xFF, 0xFE, 0, 0, 1}
	ticket := rekeyfile.Ticket{At: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
	for i, e := range b.elements {
		ticket.Devices = append(ticket.Devices, rekeyfile.Order{
			Order: "rky_" + e.UniqueID, JoinEUI: e.JoinEUI, DevEUI: e.DevEUI, Profile: "S", NewJoinEUI: there, Cookie: lorawan.Cookie{1, 2, byte(i)},
		})
	}
	ticket.Devices[1].Profile, ticket.Devices[1].AuthMAC = "M", mac[:]

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, b.path("server.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	write := func(name string, ticket rekeyfile.Ticket) {
		t.Helper()
		text, err := rekeyfile.Sign(rekeyfile.FormatTicket, ticket, func(content []byte) ([]byte, []byte, error) {
			sum := sha256.Sum256(content)
			r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
			if err != nil {
				return nil, nil, err
			}
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), public, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, b.path(name), text)
	}
	write("ticket.json", ticket)
	for range 2 {
		_, err := b.run("element", "rekey", b.path("ticket.json"), "--key", b.path("server.pub"), "--results", b.path("results.json"))
		if !errors.Is(err, command.ErrFailed) {
			t.Fatalf("one element cannot: %v", err)
		}
		text, err := os.ReadFile(b.path("results.json"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := rekeyfile.ReadResults(text)
		if err != nil || len(r.Results) != 3 || !r.Results[0].Rekeyed || !r.Results[1].Rekeyed || r.Results[2].Rekeyed || r.Results[2].Error == "" {
			t.Fatalf("got %+v, %v", r, err)
		}
	}
	// One that was written before, and of whose order nobody made use: the element went
	// another way since, and has the keys that it had.
	former := ticket
	former.Devices = slices.Clone(ticket.Devices[:1])
	former.Devices[0].Cookie = lorawan.Cookie{9}
	write("former.json", former)
	out, err := b.run("element", "rekey", b.path("former.json"))
	if !errors.Is(err, command.ErrFailed) || !strings.Contains(out, "rekeyed otherwise") {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := lab.Open(b.path("sim/sim.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []lorawan.EUI64{there, there, joinEUI} {
		d, err := l.Device(lab.Selector{DevEUI: b.elements[i].DevEUI}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(d.State().Rekeyed); d.JoinEUI() != want || want == there && n != 1 {
			t.Errorf("element %d asks for %v, derived %d times", i, d.JoinEUI(), n)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	b.bad([]string{"element", "rekey", b.path("ticket.json"), "--key", b.path("pki/ca.crt")}, "not a public key")
	ticket.ExpiresAt = time.Now().Add(-time.Second)
	write("old.json", ticket)
	b.bad([]string{"element", "rekey", b.path("old.json")}, "ran out")
	b.bad([]string{"element", "rekey", b.path("results.json")}, "not a file of that format")
}
