package exportfile_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"joinery/internal/exportfile"
	"joinery/internal/seal"
	"joinery/lorawan"
)

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		panic(err)
	}
	return k
})

var ecKey, signKey = newEC(), newEC()

func newEC() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// recipientOf gives the recipient that suits a wrapping, and his private key.
func recipientOf(t testing.TB, w exportfile.Wrapping) (exportfile.Recipient, *exportfile.PrivateKey) {
	t.Helper()
	var key any = rsaKey()
	if w.Alg == exportfile.AlgECDHES {
		key = ecKey
	}
	der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	private := must[*exportfile.PrivateKey](t)(exportfile.ParsePrivateKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	t.Cleanup(func() { _ = private.Close() })
	if w.Hash == "SHA-1" {
		return private.Recipient().WithSHA1(), private
	}
	return private.Recipient(), private
}

func header(t testing.TB, to exportfile.Recipient, w exportfile.Wrapping) exportfile.Header {
	t.Helper()
	return exportfile.Header{
		Format: exportfile.Format, ID: "exp_1", Server: "https://js.example", Org: "org_1", Recipient: to.Thumbprint(),
		Created: exportfile.FormatCreated(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)), Devices: 3, Wrapping: w,
		Signer: must[exportfile.Signer](t)(exportfile.NewSigner(&signKey.PublicKey)),
	}
}

func metadata(n byte, version lorawan.MACVersion, root10 string) exportfile.Metadata {
	return exportfile.Metadata{
		JoinEUI: lorawan.EUI64{1}, DevEUI: lorawan.EUI64{2, n}, MACVersion: version, Root10: root10, JoinNonce: 42,
		Nonces: []exportfile.Nonces{
			{JoinEUI: lorawan.EUI64{1}, UsedDevNonces: []lorawan.DevNonce{1, 5}, NextDevNonce: 8, NextRJCount1: 3},
			{JoinEUI: lorawan.EUI64{3}, NextDevNonce: 65536},
		},
	}
}

func sign(t testing.TB, h exportfile.Header, d *exportfile.Device) {
	t.Helper()
	digests := must[*exportfile.Digests](t)(exportfile.NewDigests(h))
	err := digests.Sign(d, func(hash [sha256.Size]byte) (raw [exportfile.SignatureLen]byte, err error) {
		der, err := signKey.Sign(rand.Reader, hash[:], crypto.SHA256)
		if err != nil {
			return raw, err
		}
		return exportfile.RawSignature(der)
	})
	if err != nil {
		t.Fatal(err)
	}
}

var nwk, app, second = []byte("the NwkKey of it"), []byte("the AppKey of it"), []byte("NwkKey of another")[:16]

// sample gives an export of three devices: one of 1.1, an element's of 1.0.x and one
// of a key list.
func sample(t testing.TB, w exportfile.Wrapping) (exportfile.Header, []exportfile.Device, *exportfile.PrivateKey) {
	t.Helper()
	to, private := recipientOf(t, w)
	h := header(t, to, w)
	wrapper := must[*exportfile.Wrapper](t)(exportfile.NewWrapper(to, w))
	defer wrapper.Wipe()
	var list []exportfile.Device
	for i, m := range []exportfile.Metadata{
		metadata(1, lorawan.MAC1_1, exportfile.NwkKey), metadata(2, lorawan.MAC1_0_3, exportfile.NwkKey), metadata(3, lorawan.MAC1_0_4, exportfile.AppKey),
	} {
		d := must[exportfile.Device](t)(wrapper.Wrap(m, [][]byte{nwk, second, nwk}[i], app))
		sign(t, h, &d)
		list = append(list, d)
	}
	return h, list, private
}

func write(t testing.TB, h exportfile.Header, list []exportfile.Device) []byte {
	t.Helper()
	var b bytes.Buffer
	w := must[*exportfile.Writer](t)(exportfile.NewWriter(&b, h))
	for _, d := range list {
		if err := w.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readAll reads, verifies and opens a file.
func readAll(file []byte, private *exportfile.PrivateKey, trusted string) (got []map[string]string, err error) {
	r, err := exportfile.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	v, err := exportfile.NewVerifier(r.Header(), trusted)
	if err != nil {
		return nil, err
	}
	err = private.Open(r.Header(), func(o *exportfile.Opener) error {
		for {
			d, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = v.Verify(d)
			}
			if err != nil {
				return err
			}
			err = o.Open(d, func(keys []exportfile.OpenedKey) error {
				m := map[string]string{}
				for _, k := range keys {
					m[k.Root] = string(k.Key)
				}
				got = append(got, m)
				return nil
			})
			if err != nil {
				return err
			}
		}
	})
	return got, err
}

func signer(h exportfile.Header) string { return h.Signer.Thumbprint() }

// Every wrapping gives its recipient, and him alone, the keys that the device uses.
func TestEveryWrapping(t *testing.T) {
	other := must[*exportfile.PrivateKey](t)(exportfile.ParsePrivateKey(must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: newEC()}))))
	for _, w := range exportfile.AllWrappings() {
		h, list, private := sample(t, w)
		file := write(t, h, list)
		got, err := readAll(file, private, signer(h))
		if err != nil {
			t.Errorf("%v: %v", w, err)
			continue
		}
		want := []map[string]string{{"NwkKey": string(nwk), "AppKey": string(app)}, {"NwkKey": string(second)}, {"AppKey": string(app)}}
		if !slices.EqualFunc(got, want, maps.Equal) {
			t.Errorf("%v: %v", w, got)
		}
		for _, key := range [][]byte{nwk, app} {
			if bytes.Contains(file, key) || bytes.Contains(file, []byte(base64.RawStdEncoding.EncodeToString(key)[:20])) {
				t.Errorf("%v: a key is readable in the file", w)
			}
		}
		if _, err := readAll(file, other, signer(h)); !errors.Is(err, exportfile.ErrOpen) {
			t.Errorf("%v: by another key: %v", w, err)
		}
	}
}

// What we write others open: a JWE by go-jose, OAEP by the standard library, and a row
// of form seal as any key list is opened.
func TestOthersOpenIt(t *testing.T) {
	h, list, _ := sample(t, exportfile.JWEECDHES)
	parsed, err := jose.ParseEncryptedCompact(list[0].Keys[1].JWE, []jose.KeyAlgorithm{jose.ECDH_ES_A256KW}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		t.Fatal(err)
	}
	if parsed.Header.KeyID != h.Recipient || parsed.Header.ExtraHeaders["cty"] != "jwk+json" {
		t.Errorf("%+v", parsed.Header)
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(must[[]byte](t)(parsed.Decrypt(ecKey))); err != nil {
		t.Fatal(err)
	}
	if key, ok := k.Key.([]byte); !ok || !bytes.Equal(key, app) {
		t.Errorf("%v", k)
	}
	_, list, _ = sample(t, exportfile.RawOAEP256)
	if key, err := rsa.DecryptOAEP(sha256.New(), nil, rsaKey(), list[0].Keys[0].Wrapped, nil); err != nil || !bytes.Equal(key, nwk) {
		t.Errorf("%q, %v", key, err)
	}
	_, list, _ = sample(t, exportfile.SealOAEP256)
	opener := must[*seal.Opener](t)(seal.NewOpener(rsaKey(), *list[2].Seal))
	row := list[2].Row()
	if err := row.Check(); err != nil || row.JoinNonceFloor != 42 || !slices.Equal(row.UsedDevNonces, []lorawan.DevNonce{7}) {
		t.Errorf("%+v, %v", row, err)
	}
	err = opener.Open(row.Item(), row.MAC, func(keys [][]byte) error {
		if keys[0] != nil || !bytes.Equal(keys[1], app) {
			t.Errorf("%q", keys)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Any change of what was signed is found, wherever it was made.
func TestSignature(t *testing.T) {
	for _, w := range []exportfile.Wrapping{exportfile.RawOAEP256, exportfile.JWEOAEP256, exportfile.SealOAEP256} {
		h, list, private := sample(t, w)
		v := must[*exportfile.Verifier](t)(exportfile.NewVerifier(h, signer(h)))
		for name, change := range map[string]func(d *exportfile.Device){
			"DevEUI":          func(d *exportfile.Device) { d.DevEUI[0] ^= 1 },
			"JoinNonce":       func(d *exportfile.Device) { d.JoinNonce-- },
			"a DevNonce less": func(d *exportfile.Device) { d.Nonces[0].UsedDevNonces = d.Nonces[0].UsedDevNonces[1:] },
			"RJcount":         func(d *exportfile.Device) { d.Nonces[0].NextRJCount1 = 0 },
			"KCV":             func(d *exportfile.Device) { d.Keys[0].KCV = "000000" },
			"keys exchanged": func(d *exportfile.Device) {
				a, b := &d.Keys[0], &d.Keys[1]
				a.Wrapped, b.Wrapped, a.JWE, b.JWE = b.Wrapped, a.Wrapped, b.JWE, a.JWE
			},
			"another's blob": func(d *exportfile.Device) {
				d.Keys[0].Wrapped, d.Keys[0].JWE = list[1].Keys[0].Wrapped, list[1].Keys[0].JWE
			},
			"another's blob and hash": func(d *exportfile.Device) { d.Keys[0] = list[1].Keys[0] },
			"signature":               func(d *exportfile.Device) { d.Signature[3] ^= 1 },
			"no signature":            func(d *exportfile.Device) { d.Signature = nil },
		} {
			d := clone(t, h, list[0])
			change(&d)
			if err := v.Verify(d); !errors.Is(err, exportfile.ErrSignature) {
				t.Errorf("%s of %v: %v", name, w, err)
			}
		}
		// Without blobs it still proves what was exported, and opens for nobody.
		d := list[0].WithoutBlobs()
		if err := v.Verify(d); err != nil {
			t.Error(err)
		}
		err := private.Open(h, func(o *exportfile.Opener) error { return o.Open(d, func([]exportfile.OpenedKey) error { return nil }) })
		if !errors.Is(err, exportfile.ErrOpen) {
			t.Error(err)
		}
		other := h
		other.ID = "exp_2"
		v = must[*exportfile.Verifier](t)(exportfile.NewVerifier(other, signer(h)))
		if err := v.Verify(list[0]); !errors.Is(err, exportfile.ErrSignature) {
			t.Errorf("a device of another export: %v", err)
		}
		for _, trusted := range []string{"", other.Recipient} {
			if _, err := exportfile.NewVerifier(h, trusted); !errors.Is(err, exportfile.ErrSignature) {
				t.Errorf("trusting %q: %v", trusted, err)
			}
		}
	}
}

func clone(t testing.TB, h exportfile.Header, d exportfile.Device) exportfile.Device {
	t.Helper()
	return must[exportfile.Device](t)(exportfile.ParseDevice(must[[]byte](t)(exportfile.MarshalDevice(d)), h))
}

// A file may be cut into pages, put together, and written in other manners of JSON.
func TestPagesAndManners(t *testing.T) {
	h, list, private := sample(t, exportfile.RawOAEP256)
	pages := append(write(t, h, list[:1]), write(t, h, list[1:])...)
	got, err := readAll(pages, private, signer(h))
	if err != nil || len(got) != 3 {
		t.Errorf("%d, %v", len(got), err)
	}
	var again []byte
	for line := range bytes.Lines(write(t, h, list)) {
		var v map[string]any // which sorts members
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		again = append(append(again, must[[]byte](t)(json.Marshal(v))...), '\r', '\n', '\n')
	}
	if got, err = readAll(again, private, signer(h)); err != nil || len(got) != 3 {
		t.Errorf("%d, %v", len(got), err)
	}
}

// What is not well-formed is named, and repeated nowhere.
func TestMalformed(t *testing.T) {
	h, list, private := sample(t, exportfile.RawOAEP256)
	file := string(write(t, h, list))
	head, rest, _ := strings.Cut(file, "\n")
	for name, text := range map[string]string{
		"empty":           "",
		"no JSON":         "key,key",
		"another format":  strings.Replace(file, "joinery-export/1", "joinery-export/2", 1),
		"unknown member":  strings.Replace(file, `{"format"`, `{"more":1,"format"`, 1),
		"twice":           strings.Replace(file, `{"format"`, `{"org":"x","format"`, 1),
		"no wrapping":     strings.Replace(file, `"hash":"SHA-256"`, `"hash":"MD5"`, 1),
		"cut device":      head + "\n" + rest[:len(rest)/2],
		"no device":       head + "\n{}",
		"of another kind": head + "\n" + strings.Replace(rest, `"wrapped":`, `"jwe":`, 1),
		"a root too many": head + "\n" + strings.Replace(rest, `"macVersion":"1.1.0"`, `"macVersion":"1.0.3"`, 1),
		"nonces unsorted": head + "\n" + strings.Replace(rest, `[1,5]`, `[5,1]`, 1),
		"a counter":       head + "\n" + strings.Replace(rest, `65536`, `65537`, 1),
	} {
		_, err := readAll([]byte(text), private, signer(h))
		if !errors.Is(err, exportfile.ErrFormat) || strings.Contains(err.Error(), "65537") {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := head + "\n" + strings.Repeat(" ", 5<<20) + rest
	if _, err := readAll([]byte(long), private, signer(h)); err == nil || errors.Is(err, exportfile.ErrFormat) {
		t.Errorf("a line without end: %v", err)
	}
	w := must[*exportfile.Wrapper](t)(exportfile.NewWrapper(private.Recipient(), exportfile.RawOAEP256))
	if _, err := w.Wrap(list[0].Metadata, nwk, app[:15]); !errors.Is(err, exportfile.ErrFormat) || strings.Contains(err.Error(), string(app[:15])) {
		t.Error(err)
	}
	for _, v := range []any{private, w, &exportfile.Opener{}} {
		if text := fmt.Sprintf("%v %+v %s", v, v, v); strings.Contains(text, "D:") || len(text) > 200 {
			t.Errorf("%T is printed as %s", v, text)
		}
	}
}

// A file of many devices is read in little memory: the reader keeps one line.
func TestManyDevices(t *testing.T) {
	h, list, _ := sample(t, exportfile.RawOAEP256)
	line := append(must[[]byte](t)(exportfile.MarshalDevice(list[0])), '\n')
	const n = 20_000
	lines := io.MultiReader(bytes.NewReader(append(must[[]byte](t)(exportfile.MarshalHeader(h)), '\n')), io.LimitReader(&repeating{line: line}, int64(n*len(line))))
	r := must[*exportfile.Reader](t)(exportfile.NewReader(lines))
	count := 0
	for {
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	if count != n || r.Line() != n+1 {
		t.Errorf("%d devices in %d lines", count, r.Line())
	}
}

type repeating struct {
	line []byte
	at   int
}

func (r *repeating) Read(p []byte) (int, error) {
	n := copy(p, r.line[r.at:])
	r.at = (r.at + n) % len(r.line)
	return n, nil
}
