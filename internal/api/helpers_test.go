package api_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
)

// broken is a service that fails in ways that no service should.
type broken struct{ panicWith, fail string }

func (b broken) do() error {
	if b.panicWith != "" {
		panic(b.panicWith)
	}
	return errors.New(b.fail)
}

func (b broken) Devices(context.Context, joinery.Caller, joinery.DeviceQuery) (joinery.DevicePage, error) {
	return joinery.DevicePage{}, b.do()
}

func (b broken) Device(context.Context, joinery.Caller, joinery.DeviceID) (joinery.ActivationState, error) {
	return joinery.ActivationState{}, b.do()
}

func (b broken) ManifestEntry(context.Context, joinery.Caller, joinery.DeviceID) ([]byte, string, error) {
	return nil, "", b.do()
}

func (b broken) Suspend(context.Context, joinery.Caller, joinery.DeviceID, bool) error { return b.do() }

func (b broken) Delete(context.Context, joinery.Caller, joinery.DeviceID) error { return b.do() }

func randomKey(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// importDevice imports one 1.0.4 device with a random key, and reads it back.
func (f *fixture) importDevice(t testing.TB, c *client.Client, joinEUI, devEUI lorawan.EUI64) client.Device {
	t.Helper()
	h, row := f.sealedRow(t, client.SealedKeyRow{
		Line: 2, JoinEUI: joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_4, Root10: "AppKey",
	}, randomKey(16))
	sum := sha256.Sum256(randomKey(32))
	i, err := c.BeginImport(t.Context(), client.NewImport{Kind: "key-list", SHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.ImportRows(t.Context(), i.ID, client.ImportRows{Last: true, Seal: &h, Keys: []client.SealedKeyRow{row}})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Results) != 1 || p.Results[0].Status != "created" || !p.Import.Done || p.Import.Created != 1 {
		t.Fatalf("import %+v", p)
	}
	d, err := c.Device(t.Context(), p.Results[0].Device)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// failing is a service that refuses everything with one code.
type failing struct {
	broken
	code joinery.Code
}

func (f failing) Devices(context.Context, joinery.Caller, joinery.DeviceQuery) (joinery.DevicePage, error) {
	return joinery.DevicePage{}, joinery.WrapError(f.code, errors.New("for the log alone"), "said to people")
}
