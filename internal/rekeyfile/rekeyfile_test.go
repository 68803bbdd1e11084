package rekeyfile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery/internal/rekeyfile"
	"joinery/lorawan"
)

// signer signs with a new key.
func signer(t *testing.T) func([]byte) (signature, public []byte, err error) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return func(content []byte) ([]byte, []byte, error) {
		sum := sha256.Sum256(content)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return nil, nil, err
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), public, nil
	}
}

func TestSigned(t *testing.T) {
	ticket := rekeyfile.Ticket{At: time.Unix(1, 0).UTC(), ExpiresAt: time.Unix(2, 0).UTC(), Devices: []rekeyfile.Order{
		{Order: "rky_1", JoinEUI: lorawan.EUI64{1}, DevEUI: lorawan.EUI64{2}, Profile: "S", NewJoinEUI: lorawan.EUI64{3}, Cookie: lorawan.Cookie{4}, JoinNonceFloor: 5},
	}}
	sign := signer(t)
	file, err := rekeyfile.Sign(rekeyfile.FormatTicket, ticket, sign)
	if err != nil {
		t.Fatal(err)
	}
	var got rekeyfile.Ticket
	key, err := rekeyfile.Open(file, rekeyfile.FormatTicket, nil, &got)
	if err != nil || len(got.Devices) != 1 || got.Devices[0].Rekey() != ticket.Devices[0].Rekey() || !got.ExpiresAt.Equal(ticket.ExpiresAt) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := rekeyfile.Open(file, rekeyfile.FormatTicket, key, &got); err != nil {
		t.Errorf("by the key that is trusted: %v", err)
	}
	_, other, _ := signer(t)(nil)
	if _, err := rekeyfile.Open(file, rekeyfile.FormatTicket, other, &got); !errors.Is(err, rekeyfile.ErrSignature) {
		t.Errorf("by another key: %v", err)
	}
	if _, err := rekeyfile.Open(file, rekeyfile.FormatReceipt, nil, &got); !errors.Is(err, rekeyfile.ErrFormat) {
		t.Errorf("as another format: %v", err)
	}
	// The same payload under another format's name does not pass for it.
	renamed := bytes.Replace(file, []byte(rekeyfile.FormatTicket), []byte(rekeyfile.FormatReceipt), 1)
	if _, err := rekeyfile.Open(renamed, rekeyfile.FormatReceipt, nil, &got); !errors.Is(err, rekeyfile.ErrSignature) {
		t.Errorf("renamed: %v", err)
	}
	changed, err := rekeyfile.Sign(rekeyfile.FormatTicket, rekeyfile.Ticket{}, func(content []byte) ([]byte, []byte, error) {
		return sign(append(content, ' '))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rekeyfile.Open(changed, rekeyfile.FormatTicket, nil, &got); !errors.Is(err, rekeyfile.ErrSignature) {
		t.Errorf("changed: %v", err)
	}
	unknown, err := rekeyfile.Sign(rekeyfile.FormatTicket, map[string]string{"at": "x", "other": "y"}, sign)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, []byte("{}"), []byte("x"), unknown} {
		if _, err := rekeyfile.Open(bad, rekeyfile.FormatTicket, nil, &got); !errors.Is(err, rekeyfile.ErrFormat) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestReadResults(t *testing.T) {
	r, err := rekeyfile.ReadResults([]byte(`{"format":"joinery-rekey-results/1","results":[{"order":"o","devEUI":"0000000000000001","rekeyed":true}]}`))
	if err != nil || len(r.Results) != 1 || !r.Results[0].Rekeyed {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, bad := range []string{"", `{"format":"other","results":[]}`, `{"format":"joinery-rekey-results/1","more":1}`} {
		if _, err := rekeyfile.ReadResults([]byte(bad)); !errors.Is(err, rekeyfile.ErrFormat) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A file has one part or several, with white space between them, and each is read by
// itself; what is no JSON, cut off or empty is refused behind what was whole.
func TestParts(t *testing.T) {
	read := func(text string) (parts []string, err error) {
		for p, wrong := range rekeyfile.Parts(strings.NewReader(text)) {
			if wrong != nil {
				return parts, wrong
			}
			parts = append(parts, string(p))
		}
		return parts, nil
	}
	for text, want := range map[string][]string{
		`{"a":1}`: {`{"a":1}`}, "{\"a\":1}\n": {`{"a":1}`}, "{\"a\":1}\n{ \"b\": 2 }\n\n{}": {`{"a":1}`, `{ "b": 2 }`, `{}`},
	} {
		if got, err := read(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, whole := range map[string]int{"": 0, " \n": 0, `{"a":1`: 0, "{}\n{\"a\"": 1, "{}\nx": 1} {
		if got, err := read(text); !errors.Is(err, rekeyfile.ErrFormat) || len(got) != whole {
			t.Errorf("%q: %d parts, %v", text, len(got), err)
		}
	}
}
