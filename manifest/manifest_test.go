package manifest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"joinery/lorawan"
	"joinery/manifest"
)

// signer is a maker's signing key with its certificate.
type signer struct {
	key *ecdsa.PrivateKey
	der []byte
	id  manifest.SignerID
	*manifest.Signer
}

func newSigner(t testing.TB) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Log Signer"},
		NotBefore: time.Date(2019, 8, 15, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2020, 8, 15, 0, 0, 0, 0, time.UTC),
		SubjectKeyId: []byte("0123456789abcdefghij"),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	id, public, err := manifest.ParseSigner(der)
	if err != nil {
		t.Fatal(err)
	}
	if !public.Equal(key.Public()) {
		t.Fatal("ParseSigner gave another key")
	}
	pinned, err := manifest.NewSigner(der, manifest.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, der, id, pinned}
}

func (s signer) sign(in []byte) ([]byte, error) {
	digest := sha256.Sum256(in)
	r, v, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		return nil, err
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	v.FillBytes(out[32:])
	return out, nil
}

func (s signer) lookup(id manifest.SignerID) *manifest.Signer {
	if id == s.id {
		return s.Signer
	}
	return nil
}

func (s signer) protected() string {
	return b64(`{"typ":"JWT","alg":"ES256","kid":"` + s.id.KID + `","x5t#S256":"` + s.id.X5TS256 + `"}`)
}

// entry signs a payload given as JSON text.
func (s signer) entry(t testing.TB, protected, payload, header string) []byte {
	t.Helper()
	signature, err := s.sign([]byte(protected + "." + payload))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(`{"payload":"` + payload + `","protected":"` + protected + `",` + header +
		`"signature":"` + base64.RawURLEncoding.EncodeToString(signature) + `"}`)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

const uniqueID = "0123aabbccddeeff27"

// payloadJSON is a payload by hand, in the shape and order of real files, so
// that what is read is not what the writer of this package happens to write.
func payloadJSON(edit ...string) string {
	joinEUI := base64.RawURLEncoding.EncodeToString(append([]byte{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 0}, make([]byte, 64)...))
	s := `{"version":1,"model":"ATECC608A","partNumber":"ATECC608A-MAHT3",` +
		`"manufacturer":{"organizationName":"Example Silicon","organizationalUnitName":"Secure Products Group"},` +
		`"provisioner":{"organizationName":"Example Silicon","organizationalUnitName":"Secure Products Group"},` +
		`"distributor":{"organizationName":"Example Silicon","organizationalUnitName":"Example Direct"},` +
		`"groupId":"AAAA1111BBBB2222","provisioningTimestamp":"2020-01-02T03:04:05.678Z",` +
		`"uniqueId":"0123aabbccddeeff27",` +
		`"modelInfo":{"deviceRevision":"00006002","publicData":[` +
		`{"zone":"data","slot":9,"offset":0,"data":"` + joinEUI + `"},` +
		`{"zone":"data","slot":10,"offset":0,"data":"` + b64("0004A310001AA90A") + `"}]}}`
	for i := 0; i < len(edit); i += 2 {
		if !strings.Contains(s, edit[i]) {
			panic("test edits what is not there: " + edit[i])
		}
		s = strings.Replace(s, edit[i], edit[i+1], 1)
	}
	return s
}

func wantElement() manifest.Element {
	party := manifest.Party{Organisation: "Example Silicon", Unit: "Secure Products Group"}
	return manifest.Element{
		Version: 1, UniqueID: uniqueID,
		JoinEUI:       lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 0},
		DevEUI:        lorawan.EUI64{0x00, 0x04, 0xA3, 0x10, 0x00, 0x1A, 0xA9, 0x0A},
		ProvisionedAt: time.Date(2020, 1, 2, 3, 4, 5, 678e6, time.UTC),
		Model:         "ATECC608A", PartNumber: "ATECC608A-MAHT3", GroupID: "AAAA1111BBBB2222",
		DeviceRevision: "00006002", Manufacturer: party, Provisioner: party,
		Distributor: manifest.Party{Organisation: "Example Silicon", Unit: "Example Direct"},
	}
}

func TestVerify(t *testing.T) {
	s := newSigner(t)
	header := `"header":{"uniqueId":"` + uniqueID + `"},`
	for name, raw := range map[string][]byte{
		"as in real files":         s.entry(t, s.protected(), b64(payloadJSON()), header),
		"no unprotected header":    s.entry(t, s.protected(), b64(payloadJSON()), ""),
		"first edition's spelling": s.entry(t, s.protected(), b64(payloadJSON(`"distributor"`, `"distributer"`)), header),
		"padded base64url":         s.entry(t, s.protected(), base64.URLEncoding.EncodeToString([]byte(payloadJSON())), header),
		"unknown members":          s.entry(t, s.protected(), b64(payloadJSON(`"version"`, `"new":[{"a":1}],"version"`)), `"extra":7,`+header),
	} {
		t.Run(name, func(t *testing.T) {
			got, id, err := manifest.Verify(raw, s.lookup)
			if err != nil {
				t.Fatal(err)
			}
			if id != s.id {
				t.Errorf("signer %v, want %v", id, s.id)
			}
			if diff := cmp.Diff(wantElement(), got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("version 3", func(t *testing.T) {
		got, _, err := manifest.Verify(s.entry(t, s.protected(), b64(payloadJSON(`"version":1`, `"version":3`)), header), s.lookup)
		if err != nil || got.Version != 3 {
			t.Errorf("version %d, %v", got.Version, err)
		}
	})
}

func TestVerifyRefusesPayload(t *testing.T) {
	s := newSigner(t)
	slot9 := `"slot":9,"offset":0,"data":"`
	slot10 := `{"zone":"data","slot":10,"offset":0,"data":"` + b64("0004A310001AA90A") + `"}`
	for name, c := range map[string]struct {
		payload string
		want    error
	}{
		"short form":            {b64(payloadJSON(`"version":1`, `"version":2`)), manifest.ErrShortForm},
		"short form, other":     {b64(payloadJSON(`"version":1`, `"version":2`, `"model":"ATECC608A"`, `"model":{}`)), manifest.ErrShortForm},
		"version 4":             {b64(payloadJSON(`"version":1`, `"version":4`)), manifest.ErrVersion},
		"version missing":       {b64(payloadJSON(`"version":1,`, ``)), manifest.ErrVersion},
		"version text":          {b64(payloadJSON(`"version":1`, `"version":"1"`)), manifest.ErrSyntax},
		"duplicate member":      {b64(payloadJSON(`"version":1`, `"version":1,"version":1`)), manifest.ErrSyntax},
		"duplicate deep":        {b64(payloadJSON(`"slot":9`, `"slot":9,"slot":9`)), manifest.ErrSyntax},
		"not base64url":         {"?" + b64(payloadJSON()), manifest.ErrSyntax},
		"not JSON":              {b64("no"), manifest.ErrSyntax},
		"array":                 {b64("[" + payloadJSON() + "]"), manifest.ErrSyntax},
		"both spellings":        {b64(payloadJSON(`"distributor"`, `"distributer":{},"distributor"`)), manifest.ErrSyntax},
		"upper-case serial":     {b64(payloadJSON(uniqueID, strings.ToUpper(uniqueID))), manifest.ErrUniqueID},
		"short serial":          {b64(payloadJSON(uniqueID, uniqueID[2:])), manifest.ErrUniqueID},
		"other serial":          {b64(payloadJSON(uniqueID, "0123aabbccddeeff28")), manifest.ErrUniqueID},
		"timestamp":             {b64(payloadJSON("2020-01-02T", "2020-13-02T")), manifest.ErrTimestamp},
		"no modelInfo":          {b64(payloadJSON(`"modelInfo"`, `"modelinfo"`)), manifest.ErrJoinEUI},
		"slot 9 missing":        {b64(payloadJSON(`"slot":9`, `"slot":8`)), manifest.ErrJoinEUI},
		"slot 9 of otp":         {b64(payloadJSON(`"zone":"data","slot":9`, `"zone":"otp","slot":9`)), manifest.ErrJoinEUI},
		"slot 9 at an offset":   {b64(payloadJSON(`"slot":9,"offset":0`, `"slot":9,"offset":4`)), manifest.ErrJoinEUI},
		"slot 9 too long":       {b64(payloadJSON(slot9, slot9+"AAAA")), manifest.ErrJoinEUI},
		"slot 9 padded badly":   {b64(payloadJSON(slot9, slot9+"=")), manifest.ErrJoinEUI},
		"slot 10 missing":       {b64(payloadJSON(`"slot":10`, `"slot":11`)), manifest.ErrDevEUI},
		"slot 10 twice":         {b64(payloadJSON(slot10, slot10+","+slot10)), manifest.ErrDevEUI},
		"slot 10 in lower case": {b64(payloadJSON(b64("0004A310001AA90A"), b64("0004a310001aa90a"))), manifest.ErrDevEUI},
		"slot 10 not hex":       {b64(payloadJSON(b64("0004A310001AA90A"), b64("0004A310001AA90Z"))), manifest.ErrDevEUI},
	} {
		t.Run(name, func(t *testing.T) {
			raw := s.entry(t, s.protected(), c.payload, `"header":{"uniqueId":"`+uniqueID+`"},`)
			if _, _, err := manifest.Verify(raw, s.lookup); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestVerifyRefusesEnvelope(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	ids := `"kid":"` + s.id.KID + `","x5t#S256":"` + s.id.X5TS256 + `"`
	payload := b64(payloadJSON())
	good := string(s.entry(t, s.protected(), payload, ""))
	signed := func(protected string) string { return string(s.entry(t, b64(protected), payload, "")) }
	signatureAt := strings.Index(good, `"signature":"`) + len(`"signature":"`)
	signature := good[signatureAt : len(good)-2]
	resigned := func(with string) string { return good[:signatureAt] + with + `"}` }
	raw, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		t.Fatal(err)
	}
	asn1, err := ecdsa.SignASN1(rand.Reader, s.key, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		raw  string
		want error
	}{
		"alg none":              {signed(`{"alg":"none",` + ids + `}`), manifest.ErrAlgorithm},
		"alg HS256":             {signed(`{"alg":"HS256",` + ids + `}`), manifest.ErrAlgorithm},
		"alg in lower case":     {signed(`{"alg":"es256",` + ids + `}`), manifest.ErrAlgorithm},
		"alg missing":           {signed(`{` + ids + `}`), manifest.ErrAlgorithm},
		"alg twice":             {signed(`{"alg":"ES256","alg":"ES256",` + ids + `}`), manifest.ErrSyntax},
		"crit":                  {signed(`{"alg":"ES256","crit":["b64"],"b64":false,` + ids + `}`), manifest.ErrSyntax},
		"key in the header":     {signed(`{"alg":"ES256","jwk":{},` + ids + `}`), manifest.ErrSyntax},
		"kid alone":             {signed(`{"alg":"ES256","kid":"` + s.id.KID + `"}`), manifest.ErrUnknownSigner},
		"x5t alone":             {signed(`{"alg":"ES256","x5t#S256":"` + s.id.X5TS256 + `"}`), manifest.ErrUnknownSigner},
		"kid of another":        {signed(`{"alg":"ES256","kid":"AAAA","x5t#S256":"` + s.id.X5TS256 + `"}`), manifest.ErrUnknownSigner},
		"certificate renewed":   {string(other.entry(t, other.protected(), payload, "")), manifest.ErrUnknownSigner},
		"names of another":      {string(other.entry(t, s.protected(), payload, "")), manifest.ErrSignature},
		"kid beside":            {string(s.entry(t, b64(`{"alg":"ES256"}`), payload, `"header":{`+ids+`},`)), manifest.ErrUnknownSigner},
		"payload changed":       {strings.Replace(good, payload, b64(payloadJSON("2020", "2021")), 1), manifest.ErrSignature},
		"signature cut":         {resigned(signature[:84]), manifest.ErrSignature},
		"signature longer":      {resigned(signature[:84] + "AAAA"), manifest.ErrSignature},
		"signature of zeros":    {resigned(strings.Repeat("A", 86)), manifest.ErrSignature},
		"signature in ASN.1":    {resigned(base64.RawURLEncoding.EncodeToString(asn1)), manifest.ErrSignature},
		"s and r swapped":       {resigned(base64.RawURLEncoding.EncodeToString(append(raw[32:64:64], raw[:32]...))), manifest.ErrSignature},
		"line end in signature": {resigned(signature[:40] + `\n` + signature[40:]), manifest.ErrSyntax},
		"payload twice":         {`{"payload":"` + payload + `",` + good[1:], manifest.ErrSyntax},
		"upper-case members":    {strings.Replace(good, `"payload"`, `"Payload"`, 1), manifest.ErrSignature},
		"null":                  {`null`, manifest.ErrSyntax},
		"empty object":          {`{}`, manifest.ErrSyntax},
		"string":                {`"x"`, manifest.ErrSyntax},
		"too large":             {`{"x":"` + strings.Repeat("x", manifest.MaxEntry) + `"}`, manifest.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := manifest.Verify([]byte(c.raw), s.lookup); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, _, err := manifest.Verify([]byte(good), s.lookup); err != nil {
		t.Errorf("the unchanged entry: %v", err)
	}
}

func elements(t testing.TB, n int) []manifest.Element {
	t.Helper()
	device := newSigner(t)
	list := make([]manifest.Element, n)
	for i := range list {
		e := wantElement()
		e.Version = 1 + 2*(i%2)
		e.DevEUI = lorawan.EUI64FromUint64(0x0004A310001A0000 + uint64(i))
		if i%3 == 0 {
			e.Keys = []manifest.DeviceKey{{Slot: "1", Public: &device.key.PublicKey, Chain: [][]byte{device.der}}}
		}
		list[i] = e
	}
	return list
}

func write(t testing.TB, s signer, list []manifest.Element) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := manifest.NewWriter(&file, s.id, s.sign)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func TestWriteRead(t *testing.T) {
	s := newSigner(t)
	for _, n := range []int{0, 1, 2, 100} {
		want := elements(t, n)
		file := write(t, s, want)
		if !json.Valid(file) {
			t.Fatalf("%d elements: not JSON", n)
		}
		var got []manifest.Element
		r := manifest.NewReader(bytes.NewReader(file))
		for {
			raw, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Index() != uint64(len(got)) {
				t.Fatalf("index %d, want %d", r.Index(), len(got))
			}
			e, _, err := manifest.Verify(raw, s.lookup)
			if err != nil {
				t.Fatalf("entry %d: %v", r.Index(), err)
			}
			got = append(got, e)
		}
		if len(got) != n {
			t.Fatalf("read %d of %d", len(got), n)
		}
		for i := range got {
			if diff := cmp.Diff(want[i], got[i]); diff != "" {
				t.Fatalf("element %d: %s", i, diff)
			}
		}
	}
}

// TestAgainstGoJose holds the writer and the verifier against an independent
// implementation, in both directions.
func TestAgainstGoJose(t *testing.T) {
	s := newSigner(t)
	var entries []json.RawMessage
	if err := json.Unmarshal(write(t, s, elements(t, 4)), &entries); err != nil {
		t.Fatal(err)
	}
	for i, raw := range entries {
		object, err := jose.ParseSignedJSON(string(raw), []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		if _, err := object.Verify(&s.key.PublicKey); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", s.id.KID).WithHeader("x5t#S256", s.id.X5TS256)
	theirs, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, options)
	if err != nil {
		t.Fatal(err)
	}
	object, err := theirs.Sign([]byte(payloadJSON()))
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := manifest.Verify([]byte(object.FullSerialize()), s.lookup)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantElement(), got); diff != "" {
		t.Error(diff)
	}
}

func TestWriterRefuses(t *testing.T) {
	s := newSigner(t)
	for name, c := range map[string]struct {
		edit func(*manifest.Element)
		want error
	}{
		"version 2": {func(e *manifest.Element) { e.Version = 2 }, manifest.ErrShortForm},
		"version 0": {func(e *manifest.Element) { e.Version = 0 }, manifest.ErrVersion},
		"serial":    {func(e *manifest.Element) { e.UniqueID = "1" }, manifest.ErrUniqueID},
		"no time":   {func(e *manifest.Element) { e.ProvisionedAt = time.Time{} }, manifest.ErrTimestamp},
		"no key":    {func(e *manifest.Element) { e.Keys = []manifest.DeviceKey{{Slot: "1"}} }, manifest.ErrPublicKey},
		"chain":     {func(e *manifest.Element) { e.Keys[0].Chain = [][]byte{newSigner(t).der} }, manifest.ErrPublicKey},
		"too large": {func(e *manifest.Element) { e.Model = strings.Repeat("x", manifest.MaxEntry) }, manifest.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			e := elements(t, 1)[0]
			c.edit(&e)
			w, err := manifest.NewWriter(io.Discard, s.id, s.sign)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Write(e); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err := w.Close(); !errors.Is(err, c.want) {
				t.Errorf("Close after an error: %v", err)
			}
		})
	}
	t.Run("signature of another length", func(t *testing.T) {
		w, err := manifest.NewWriter(io.Discard, s.id, func([]byte) ([]byte, error) { return make([]byte, 70), nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(wantElement()); !errors.Is(err, manifest.ErrSignature) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPublicKeys(t *testing.T) {
	s, device, other := newSigner(t), newSigner(t), newSigner(t)
	point, err := device.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	pad := func(b []byte) string { return base64.URLEncoding.EncodeToString(b) }
	x, y := pad(point[1:33]), pad(point[33:])
	jwk := func(kty, x, y string, der []byte) string {
		return `"publicKeySet":{"keys":[{"kid":"1","kty":"` + kty + `","crv":"P-256","x":"` + x + `","y":"` + y +
			`","x5c":["` + base64.StdEncoding.EncodeToString(der) + `"]}]},"version"`
	}
	for name, c := range map[string]struct {
		jwk  string
		want error
	}{
		"padded, as early files":  {jwk("EC", x, y, device.der), nil},
		"certificate of another":  {jwk("EC", x, y, other.der), manifest.ErrPublicKey},
		"certificate is rubbish":  {jwk("EC", x, y, []byte("rubbish")), manifest.ErrPublicKey},
		"RSA":                     {jwk("RSA", x, y, device.der), manifest.ErrPublicKey},
		"point off the curve":     {jwk("EC", x, x, device.der), manifest.ErrPublicKey},
		"x too short":             {jwk("EC", x[:40], y, device.der), manifest.ErrPublicKey},
		"a set that is no object": {`"publicKeySet":[],"version"`, manifest.ErrSyntax},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := manifest.Verify(s.entry(t, s.protected(), b64(payloadJSON(`"version"`, c.jwk)), ""), s.lookup)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want == nil && (len(got.Keys) != 1 || !got.Keys[0].Public.Equal(device.key.Public()) || !bytes.Equal(got.Keys[0].Chain[0], device.der)) {
				t.Errorf("got %+v", got.Keys)
			}
		})
	}
}

func TestParseSigner(t *testing.T) {
	certificate := func(curve elliptic.Curve, ski []byte) []byte {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), SubjectKeyId: ski}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for name, der := range map[string][]byte{
		"not a certificate":       []byte("no"),
		"P-384":                   certificate(elliptic.P384(), []byte{1}),
		"no SubjectKeyIdentifier": certificate(elliptic.P256(), nil),
	} {
		if _, _, err := manifest.ParseSigner(der); !errors.Is(err, manifest.ErrCertificate) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
