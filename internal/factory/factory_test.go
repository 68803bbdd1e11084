package factory_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/evidence"
	"joinery/internal/factory"
	"joinery/internal/keyring"
	"joinery/internal/keyring/soft"
	"joinery/internal/seal"
	"joinery/internal/sim/bootloader"
	"joinery/internal/sim/chip"
	"joinery/internal/sim/silicon"
	"joinery/lorawan"
	"joinery/manifest"
)

// factoryWithMaster opens a new factory with one master key, "m".
func factoryWithMaster(t *testing.T) *keyring.Factory {
	t.Helper()
	dir := t.TempDir()
	unlock := soft.Unlock{IdentityFile: filepath.Join(dir, "identity")}
	file := filepath.Join(dir, "factory.age")
	if err := errors.Join(
		soft.CreateIdentity(unlock.IdentityFile),
		soft.InitFactory(soft.FactoryOptions{KeyFile: file, Unlock: unlock, CommonName: "test"}),
	); err != nil {
		t.Fatal(err)
	}
	if _, err := soft.NewMaster(file, unlock, "m"); err != nil {
		t.Fatal(err)
	}
	f, err := soft.OpenFactory(t.Context(), soft.Options{KeyFile: file, Unlock: unlock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// recipient makes the simulator's key pair and gives its public half as the
// factory reads it.
func recipient(t *testing.T) (*silicon.Recipient, seal.PublicKey) {
	t.Helper()
	dir := t.TempDir()
	to, err := silicon.CreateRecipient(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, silicon.RecipientPubFile))
	if err != nil {
		t.Fatal(err)
	}
	public, err := seal.ParsePublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return to, public
}

func order(to seal.PublicKey) factory.Order {
	return factory.Order{
		Master: "m", Generation: 7, Count: 3, Recipient: to,
		JoinEUI: lorawan.EUI64FromUint64(0x70B3D57ED0000000),
		DevEUI:  lorawan.EUI64FromUint64(0x0004A310001F00FE), // the last byte overflows
		Maker:   "ACME", Part: "P1", Group: "G1",
		At: time.Now().UTC().Truncate(time.Millisecond),
	}
}

// The manifest and the silicon file name the same elements in the same order,
// verify and open with the code of those who read them, and hold no key in the
// clear.
func TestMake(t *testing.T) {
	keys := factoryWithMaster(t)
	to, public := recipient(t)
	o := order(public)
	var signed, sealed bytes.Buffer
	var progress []uint64
	if err := factory.Make(t.Context(), keys, o, &signed, &sealed, func(n uint64) { progress = append(progress, n) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(progress, []uint64{1, 2, 3}) {
		t.Errorf("progress: %v", progress)
	}

	signer, err := manifest.NewSigner(keys.Certificate(), manifest.Rules{Roots: [][]byte{keys.Root()}})
	if err != nil {
		t.Fatal(err)
	}
	lookup := func(manifest.SignerID) *manifest.Signer { return signer }
	entries := manifest.NewReader(&signed)
	rows, err := silicon.NewReader(&sealed, to)
	if err != nil {
		t.Fatal(err)
	}
	var before *ecdsa.PublicKey // no two elements have one key
	for i := range o.Count {
		raw, err := entries.Next()
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := manifest.Verify(raw, lookup)
		if err != nil {
			t.Fatal(err)
		}
		want := lorawan.EUI64FromUint64(o.DevEUI.Uint64() + i)
		if e.JoinEUI != o.JoinEUI || e.DevEUI != want || !e.ProvisionedAt.Equal(o.At) ||
			e.Manufacturer.Organisation != "ACME" || e.PartNumber != "P1" || e.GroupID != "G1" {
			t.Errorf("element %d in the manifest: %+v", i, e)
		}
		row, err := rows.Next()
		if err != nil {
			t.Fatal(err)
		}
		if row.DevEUI != e.DevEUI || row.JoinEUI != e.JoinEUI || row.UniqueID != e.UniqueID {
			t.Errorf("element %d in the silicon file: %v %v %s, in the manifest %s", i, row.JoinEUI, row.DevEUI, row.UniqueID, e.UniqueID)
		}
		silicon, err := rows.Element(row)
		if err != nil {
			t.Fatalf("element %d does not open: %v", i, err)
		}
		// Who has the element can sign for the key of the manifest.
		digest := sha256.Sum256([]byte("challenge"))
		signature, err := silicon.Sign(digest)
		if err != nil {
			t.Fatal(err)
		}
		key, err := manifest.DeviceKeyOf(raw)
		if err != nil || len(e.Keys) != 1 || !e.Keys[0].Public.Equal(key) || len(e.Keys[0].Chain) != 2 {
			t.Fatalf("element %d: device key %v, %v", i, e.Keys, err)
		}
		if !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
			t.Errorf("element %d signs with another key", i)
		}
		if e.Warning != "" || len(row.DeviceKey) != 40 || before != nil && key.Equal(before) {
			t.Errorf("element %d: a warning (%s), a key of %d bytes wrapped, or that of another element", i, e.Warning, len(row.DeviceKey))
		}
		before = key
		if len(row.NwkKey) != 24 || len(row.AppKey) != 24 || bytes.Equal(row.NwkKey, row.AppKey) {
			t.Errorf("element %d: want two different keys of 24 bytes wrapped", i)
		}
	}
	if _, err := entries.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last entry: %v", err)
	}
	if _, err := rows.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last row: %v", err)
	}
	t.Run("secure boot", func(t *testing.T) { makeSecureBoot(t, keys, to, public) })
}

// makeSecureBoot is about elements that verify firmware: the manifest names the key of slot 11, which the element
// uses after a verified boot alone; nobody changes what the factory sealed.
func makeSecureBoot(t *testing.T, keys *keyring.Factory, to *silicon.Recipient, public seal.PublicKey) {
	release, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := order(public)
	o.Count, o.ReleaseKey = 2, &release.PublicKey
	var signed, sealed bytes.Buffer
	if err := factory.Make(t.Context(), keys, o, &signed, &sealed, func(uint64) {}); err != nil {
		t.Fatal(err)
	}
	entries := manifest.NewReader(&signed)
	rows, err := silicon.NewReader(&sealed, to)
	if err != nil {
		t.Fatal(err)
	}
	var before *ecdsa.PublicKey
	for range o.Count {
		raw, err := entries.Next()
		if err != nil {
			t.Fatal(err)
		}
		row, err := rows.Next()
		if err != nil {
			t.Fatal(err)
		}
		m, io, err := rows.BootImage(row)
		if err != nil {
			t.Fatal(err)
		}
		element, err := bootloader.NewElement(chip.New(m, chip.Options{}), io)
		if err != nil {
			t.Fatal(err)
		}
		inChip, err := element.BootKey()
		if err != nil {
			t.Fatal(err)
		}
		named, err := manifest.KeyInSlotOf(raw, strconv.Itoa(factory.BootKeySlot))
		if err != nil || !inChip.Equal(named) || before != nil && before.Equal(named) {
			t.Errorf("the manifest names %v, the chip has %v: %v", named, inChip, err)
		}
		before = named
		if _, err := element.Evidence(evidence.About{}); !errors.Is(err, chip.Refused) {
			t.Errorf("signed before a boot: %v", err)
		}
		boot := *row.SecureBoot
		for name, change := range map[string]func(*silicon.Boot){
			"release key": func(b *silicon.Boot) { b.ReleaseKey = bytes.Clone(b.ReleaseKey); b.ReleaseKey[0] ^= 1 },
			"keys":        func(b *silicon.Boot) { b.BootKey, b.IOKey = b.IOKey, b.BootKey },
		} {
			other := boot
			change(&other)
			bad := row
			bad.SecureBoot = &other
			if _, err := rows.Image(bad); !errors.Is(err, silicon.ErrRow) {
				t.Errorf("another %s: %v", name, err)
			}
		}
		row.SecureBoot = nil
		if _, err := rows.Image(row); !errors.Is(err, silicon.ErrRow) {
			t.Errorf("without secure boot: %v", err)
		}
	}
	o.Rekey = joinery.RekeyS
	if err := o.Check(); err == nil {
		t.Error("elements that are no chips verify firmware")
	}
}

// A run stops when it is told to, and when a file cannot be written.
func TestMakeStops(t *testing.T) {
	keys := factoryWithMaster(t)
	_, public := recipient(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := factory.Make(ctx, keys, order(public), io.Discard, io.Discard, func(uint64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
	full := errors.New("no space left")
	if err := factory.Make(t.Context(), keys, order(public), brokenWriter{full}, io.Discard, func(uint64) {}); !errors.Is(err, full) {
		t.Errorf("manifest cannot be written: %v", err)
	}
	if err := factory.Make(t.Context(), keys, order(public), io.Discard, brokenWriter{full}, func(uint64) {}); !errors.Is(err, full) {
		t.Errorf("silicon cannot be written: %v", err)
	}
	o := order(public)
	o.Master = "other"
	if err := factory.Make(t.Context(), keys, o, io.Discard, io.Discard, func(uint64) {}); !errors.Is(err, keyring.ErrUnknownMaster) {
		t.Errorf("unknown master key: %v", err)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestOrderCheck(t *testing.T) {
	_, public := recipient(t)
	for _, tc := range []struct {
		name   string
		change func(*factory.Order)
		want   string
	}{
		{"no master", func(o *factory.Order) { o.Master = "" }, "master"},
		{"no JoinEUI", func(o *factory.Order) { o.JoinEUI = lorawan.EUI64{} }, "JoinEUI"},
		{"no DevEUI", func(o *factory.Order) { o.DevEUI = lorawan.EUI64{} }, "DevEUI"},
		{"none", func(o *factory.Order) { o.Count = 0 }, "at least one"},
		{"over the end", func(o *factory.Order) { o.Count = math.MaxUint64 }, "over the end"},
		{"no recipient", func(o *factory.Order) { o.Recipient = seal.PublicKey{} }, "recipient"},
	} {
		o := order(public)
		if err := o.Check(); err != nil {
			t.Fatal(err)
		}
		tc.change(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want %q in: %v", tc.name, tc.want, err)
		}
	}
	last := order(public)
	last.DevEUI, last.Count = lorawan.EUI64FromUint64(math.MaxUint64), 1
	if err := last.Check(); err != nil {
		t.Errorf("the last DevEUI of all: %v", err)
	}
}

// The silicon file is what its format says, line by line.
func TestSiliconFormat(t *testing.T) {
	keys := factoryWithMaster(t)
	_, public := recipient(t)
	var sealed bytes.Buffer
	if err := factory.Make(t.Context(), keys, order(public), io.Discard, &sealed, func(uint64) {}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(sealed.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines, want a head and 3 rows", len(lines))
	}
	members := func(line string) (names []string) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		for name := range m {
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	if got := members(lines[0]); !slices.Equal(got, []string{"format", "seal"}) {
		t.Errorf("head has %v", got)
	}
	if got := members(lines[1]); !slices.Equal(got, []string{"appKey", "certificates", "devEUI", "deviceKey", "joinEUI", "mac", "nwkKey", "uniqueId"}) {
		t.Errorf("row has %v", got)
	}
}

// Elements that rekey have what they derive with, and those who read their
// silicon file know it is theirs.
func TestMakeRekeying(t *testing.T) {
	keys := factoryWithMaster(t)
	to, public := recipient(t)
	for _, profile := range []joinery.RekeyProfile{joinery.RekeyS, joinery.RekeyM} {
		o := order(public)
		o.Rekey, o.Count = profile, 1
		var signed, sealed bytes.Buffer
		if err := factory.Make(t.Context(), keys, o, &signed, &sealed, func(uint64) {}); err != nil {
			t.Fatal(err)
		}
		var entries []struct{ Payload string }
		var said struct{ RekeyProfile string }
		if err := json.Unmarshal(signed.Bytes(), &entries); err != nil {
			t.Fatal(err)
		}
		payload, err := base64.RawURLEncoding.DecodeString(entries[0].Payload)
		if err != nil || json.Unmarshal(payload, &said) != nil || said.RekeyProfile != profile.String() {
			t.Errorf("the manifest says %q, %v", said.RekeyProfile, err)
		}
		rows, err := silicon.NewReader(&sealed, to)
		if err != nil {
			t.Fatal(err)
		}
		row, err := rows.Next()
		if err != nil {
			t.Fatal(err)
		}
		e, err := rows.Element(row)
		if err != nil || !e.Rekeys() || e.NeedsAuthMAC() != (profile == joinery.RekeyM) {
			t.Errorf("profile %s: %v, %v", profile, e, err)
		}
		changed := row
		changed.Certificates = changed.Certificates[:1]
		if _, err := rows.Element(changed); !errors.Is(err, silicon.ErrRow) {
			t.Errorf("profile %s: a certificate is missing: %v", profile, err)
		}
		row.RekeyKey = row.NwkKey
		if _, err := rows.Element(row); !errors.Is(err, silicon.ErrRow) {
			t.Errorf("profile %s: another key in its place: %v", profile, err)
		}
	}
}
