package manifest_test

import (
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"joinery/lorawan"
	"joinery/manifest"
	"joinery/manifest/manifesttest"
)

const tngJoinEUI = 0x70B3D57ED0000000

// pin pins a maker's log signer with its root.
func pin(t testing.TB, m *manifesttest.Maker, edit ...func(*manifest.Rules)) manifest.Lookup {
	t.Helper()
	rules := manifest.Rules{Family: manifest.FamilyMicrochip, Roots: [][]byte{m.Root}, SerialSuffix: "27"}
	for _, e := range edit {
		e(&rules)
	}
	s, err := manifest.NewSigner(m.Log, rules)
	if err != nil {
		t.Fatal(err)
	}
	return func(id manifest.SignerID) *manifest.Signer {
		if id != s.ID() {
			return nil
		}
		return s
	}
}

// Every generation of real parts, with the oddities of real files.
func TestMicrochip(t *testing.T) {
	m := manifesttest.NewMaker(t)
	lookup := pin(t, m)
	onlyOne := pin(t, m, func(r *manifest.Rules) { r.JoinEUI = lorawan.EUI64FromUint64(tngJoinEUI) })
	second, third := manifesttest.NewPart(manifesttest.Second, tngJoinEUI, 1), manifesttest.NewPart(manifesttest.Third, tngJoinEUI, 2)
	noModelInfo := m.Payload(second)
	noModelInfo = noModelInfo[:strings.Index(noModelInfo, `,"modelInfo"`)] + "}"
	padded := m.Payload(second)
	for _, name := range []string{`"x":"`, `"y":"`} { // 43 characters want one more
		at := strings.Index(padded, name) + len(name) + 43
		padded = padded[:at] + "=" + padded[at:]
	}
	for name, c := range map[string]struct {
		entry  []byte
		part   manifesttest.Part
		lookup manifest.Lookup
	}{
		"second generation":              {m.Entry(second), second, lookup},
		"third, with its wrong string":   {m.Entry(third), third, lookup},
		"version 3":                      {m.Entry(third, `"version":1`, `"version":3`, "ATECC608A", "ATECC608C"), third, lookup},
		"spelling of the first edition":  {m.Entry(third, `"distributor"`, `"distributer"`), third, lookup},
		"no header beside the signature": {m.Sign(m.Payload(second), ""), second, lookup},
		"padded coordinates":             {m.Sign(padded, ""), second, lookup},
		"no modelInfo, one JoinEUI":      {m.Sign(noModelInfo, ""), second, onlyOne},
		"encrypted secret keys":          {m.Entry(third, `"modelInfo"`, `"encryptedSecretKeySet":{"keys":[{}]},"modelInfo"`), third, lookup},
	} {
		t.Run(name, func(t *testing.T) {
			e, _, err := manifest.Verify(c.entry, c.lookup)
			if err != nil {
				t.Fatal(err)
			}
			if e.DevEUI.Uint64() != c.part.DevEUI || e.JoinEUI.Uint64() != tngJoinEUI || e.UniqueID != c.part.UniqueID() || e.Warning != "" ||
				len(e.Keys) != 1 || e.Distributor.Unit != "Microchip Direct" {
				t.Errorf("%+v", e)
			}
			if n := len(c.entry); n < 2900 || n > 4000 {
				t.Errorf("%d bytes; real entries have 3.3 to 3.6 kB", n)
			}
		})
	}
}

func TestMicrochipRefuses(t *testing.T) {
	m, other := manifesttest.NewMaker(t), manifesttest.NewMaker(t)
	lookup := pin(t, m)
	part := manifesttest.NewPart(manifesttest.Third, tngJoinEUI, 7)
	part.Key = manifesttest.NewKey(t)
	with := func(change func(*manifesttest.Part)) manifesttest.Part {
		p := part
		change(&p)
		return p
	}
	cert := base64.StdEncoding.EncodeToString
	first := with(func(p *manifesttest.Part) { p.Generation = manifesttest.First })
	otherSerial := with(func(p *manifesttest.Part) { p.Serial[3]++ })
	actility := with(func(p *manifesttest.Part) { p.Serial[8] = 0x10 })
	notChip := with(func(p *manifesttest.Part) { p.Serial[0] = 0x4A })
	early := with(func(p *manifesttest.Part) { p.At = p.At.AddDate(-10, 0, 0) })
	swapped := with(func(p *manifesttest.Part) { p.Key = manifesttest.NewKey(t) })
	noSlot9 := m.Payload(part, `"slot":9`, `"slot":8`)
	for name, c := range map[string]struct {
		payload string
		want    error
	}{
		"first generation":          {m.Payload(first), manifest.ErrGeneration},
		"certificate of another":    {m.PayloadWith(part, m.Certificate(otherSerial)), manifest.ErrSubject},
		"another's key":             {m.PayloadWith(part, m.Certificate(swapped)), manifest.ErrPublicKey},
		"another maker's chain":     {other.Payload(part), manifest.ErrChain},
		"another maker's signer":    {m.PayloadWith(part, m.Certificate(part), cert(m.Signer), cert(other.Signer)), manifest.ErrChain},
		"the signer left out":       {m.PayloadWith(part, m.Certificate(part), `","`+cert(m.Signer), ""), manifest.ErrChain},
		"the root for the signer":   {m.PayloadWith(part, m.Certificate(part), cert(m.Signer), cert(m.Root)), manifest.ErrChain},
		"the signer is rubbish":     {m.PayloadWith(part, m.Certificate(part), cert(m.Signer), cert([]byte("rubbish"))), manifest.ErrChain},
		"no certificates":           {m.Payload(part, `"x5c":[`, `"x5c":[],"x6c":[`), manifest.ErrPublicKey},
		"x5c in base64url":          {m.PayloadWith(part, m.Certificate(part), cert(m.Signer), manifesttest.URL(m.Signer)), manifest.ErrPublicKey},
		"key in another slot":       {m.Payload(part, `"kid":"1"`, `"kid":"2"`), manifest.ErrPublicKey},
		"no key set":                {m.Payload(part, `"publicKeySet"`, `"publicKeyset"`), manifest.ErrPublicKey},
		"of another programme":      {m.Payload(actility), manifest.ErrUniqueID},
		"no chip of this maker":     {m.Payload(notChip), manifest.ErrUniqueID},
		"before its signer's time":  {m.Payload(early), manifest.ErrChain},
		"no slot 9":                 {noSlot9, manifest.ErrJoinEUI},
		"short form":                {m.Payload(part, `"version":1`, `"version":2`), manifest.ErrShortForm},
		"a CA's certificate":        {m.PayloadWith(with(func(p *manifesttest.Part) { p.Key = m.LogKey }), m.Log), manifest.ErrChain},
		"provisioned long after it": {m.PayloadWith(part, m.Certificate(part), part.At.Format("2006-01-02"), "2090-01-01"), manifest.ErrChain},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := manifest.Verify(m.Sign(c.payload, ""), lookup); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	e, _, err := manifest.Verify(m.Sign(m.Payload(first), ""), lookup)
	if err == nil || e.UniqueID != first.UniqueID() {
		t.Errorf("a refused entry that was signed does not say its serial number: %+v", e)
	}
	if _, _, err := manifest.Verify(other.Entry(part), lookup); !errors.Is(err, manifest.ErrUnknownSigner) {
		t.Errorf("a signer that nobody pinned: %v", err)
	}
	if _, _, err := manifest.Verify(m.Sign(m.Payload(part), part.UniqueID()), lookup); err != nil {
		t.Errorf("the unchanged entry: %v", err)
	}
}

// Chips that were provisioned when their log signer's certificate had run out
// count; a person is told.
func TestSignerRanOut(t *testing.T) {
	m := manifesttest.NewMaker(t)
	part := manifesttest.NewPart(manifesttest.Second, tngJoinEUI, 1)
	for at, want := range map[time.Time]bool{
		part.At: false, manifesttest.LogTo.Add(time.Hour): false, manifesttest.LogTo.AddDate(0, 1, 0): true, manifesttest.LogFrom.AddDate(0, -1, 0): true,
	} {
		part.At = at
		e, _, err := manifest.Verify(m.Entry(part), pin(t, m))
		if err != nil || (e.Warning != "") != want {
			t.Errorf("provisioned %s: %q, %v", at, e.Warning, err)
		}
	}
}

// The subjectAltName in other forms than the usual.
func TestAlternativeName(t *testing.T) {
	m := manifesttest.NewMaker(t)
	part := manifesttest.NewPart(manifesttest.Third, tngJoinEUI, 1)
	part.Key = manifesttest.NewKey(t)
	for text, good := range map[string]bool{
		"eui64_0004A310001A0001": true, "eui64-0004A310001A0001": true, "eui64 0004A310001A0001": false,
		"eui64_0004A310001A00": false, "eui64_": false, "EUI64_0004A310001A0001": false, "": false,
	} {
		e, _, err := manifest.Verify(m.Sign(m.PayloadWith(part, m.CertificateWith(part, manifesttest.AlternativeName(text, asn1.TagUTF8String))), ""), pin(t, m))
		if good && (err != nil || e.DevEUI.Uint64() != part.DevEUI) || !good && !errors.Is(err, manifest.ErrDevEUI) {
			t.Errorf("%q: %v, %v", text, e.DevEUI, err)
		}
	}
}

func TestRules(t *testing.T) {
	m := manifesttest.NewMaker(t)
	for name, r := range map[string]manifest.Rules{
		"no such family":        {Family: "other"},
		"no root":               {Family: manifest.FamilyMicrochip},
		"root is rubbish":       {Roots: [][]byte{[]byte("rubbish")}},
		"root is no CA":         {Roots: [][]byte{m.Log}},
		"suffix in upper case":  {SerialSuffix: "AB"},
		"suffix that is no hex": {SerialSuffix: "x"},
	} {
		if _, err := manifest.NewSigner(m.Log, r); !errors.Is(err, manifest.ErrRules) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Our own shape, with a root: slot 10 and the device certificate must agree.
func TestOwnFamilyWithRoot(t *testing.T) {
	m := manifesttest.NewMaker(t)
	lookup := pin(t, m, func(r *manifest.Rules) { *r = manifest.Rules{Roots: r.Roots} })
	part := manifesttest.NewPart(manifesttest.Third, tngJoinEUI, 1)
	slot10 := func(devEUI string) string {
		return `,{"zone":"data","slot":10,"offset":0,"data":"` + manifesttest.URL([]byte(devEUI)) + `"}]}}`
	}
	for devEUI, want := range map[string]error{"0004A310001A0001": nil, "0004A310001A0002": manifest.ErrSubject} {
		if _, _, err := manifest.Verify(m.Entry(part, `]}}`, slot10(devEUI)), lookup); !errors.Is(err, want) {
			t.Errorf("%s: %v", devEUI, err)
		}
	}
	if _, _, err := manifest.Verify(m.Entry(part), lookup); !errors.Is(err, manifest.ErrDevEUI) {
		t.Errorf("no slot 10: %v", err)
	}
}
