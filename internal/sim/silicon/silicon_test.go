package silicon_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/sim/element"
	"joinery/internal/sim/silicon"
	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

// recipient makes a key pair in a directory that does not exist yet.
func recipient(t *testing.T) (dir string, r *silicon.Recipient) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "deep", "dir")
	if _, err := silicon.CreateRecipient(dir); err != nil {
		t.Fatal(err)
	}
	r, err := silicon.LoadRecipient(filepath.Join(dir, silicon.RecipientKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	return dir, r
}

func elements(n int) []simtest.Element {
	list := make([]simtest.Element, n)
	for i := range list {
		list[i] = simtest.Element{UniqueID: fmt.Sprint("u", i), JoinEUI: lorawan.EUI64{1}, DevEUI: lorawan.EUI64{2, 7: byte(i)}}
		rand.Read(list[i].Roots.NwkKey[:])
		rand.Read(list[i].Roots.AppKey[:])
	}
	return list
}

func TestRecipientFiles(t *testing.T) {
	dir, r := recipient(t)
	for name, mode := range map[string]os.FileMode{silicon.RecipientKeyFile: 0o600, silicon.RecipientPubFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if _, err := silicon.CreateRecipient(dir); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("second time: got %v", err)
	}
	if err := os.Remove(filepath.Join(dir, silicon.RecipientKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := silicon.CreateRecipient(dir); err == nil {
		t.Error("a public key was replaced")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d"} {
		if got := fmt.Sprintf(verb, r); got != "recipient "+r.KID() {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func TestReader(t *testing.T) {
	dir, r := recipient(t)
	made := elements(3)
	file := simtest.Silicon(t, filepath.Join(dir, silicon.RecipientPubFile), made)
	s, err := silicon.NewReader(bytes.NewReader(file), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range made {
		row, err := s.Next()
		if err != nil || row.UniqueID != want.UniqueID || row.JoinEUI != want.JoinEUI || row.DevEUI != want.DevEUI {
			t.Fatalf("got %+v, %v", row, err)
		}
		e, err := s.Element(row)
		if err != nil {
			t.Fatal(err)
		}
		message := []byte("message")
		if err := e.VerifyCMAC(element.NwkKey, nil, message, simtest.CMAC4(want.Roots.NwkKey, message)); err != nil {
			t.Errorf("NwkKey of %v: %v", e, err)
		}
		if err := e.VerifyCMAC(element.AppKey, nil, message, simtest.CMAC4(want.Roots.AppKey, message)); err != nil {
			t.Errorf("AppKey of %v: %v", e, err)
		}
	}
	if _, err := s.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: got %v, want io.EOF", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	dir, r := recipient(t)
	pub := filepath.Join(dir, silicon.RecipientPubFile)
	file := string(simtest.Silicon(t, pub, elements(1)))
	head, row, _ := strings.Cut(file, "\n")
	otherDir, _ := recipient(t)
	other := string(simtest.Silicon(t, filepath.Join(otherDir, silicon.RecipientPubFile), elements(1)))
	otherKey, _, _ := strings.Cut(string(simtest.Silicon(t, pub, elements(0))), "\n")
	const notSealed = "not as it was sealed"
	for name, c := range map[string]struct{ file, want string }{
		"empty":             {"", "empty"},
		"not JSON":          {"hello\n" + row, "line 1"},
		"other recipient":   {other, "sealed to another recipient key"},
		"other format":      {strings.Replace(file, "joinery-silicon/2", "joinery-silicon/1", 1), "want formats"},
		"other algorithm":   {strings.Replace(file, "RSA-OAEP-256", "RSA1_5", 1), "want formats"},
		"file key damaged":  {strings.Replace(file, `"key":"`, `"key":"AAAA`, 1), "damaged"},
		"file key of other": {otherKey + "\n" + row, notSealed},
		"duplicate member":  {strings.Replace(head, `{"format"`, `{"format":"x","format"`, 1) + "\n" + row, "line 1"},
		"row not JSON":      {head + "\n{\n", "line 2"},
		"row with more":     {head + "\n" + strings.Replace(row, "{", `{"x":1,`, 1), "line 2"},
		"row's DevEUI":      {head + "\n" + strings.Replace(row, `"devEUI":"02`, `"devEUI":"2`, 1), "line 2"},
		"no keys":           {head + "\n" + `{"uniqueId":"x","joinEUI":"0100000000000000","devEUI":"0200000000000000"}`, notSealed},
		"key cut":           {head + "\n" + `{"uniqueId":"x","joinEUI":"0100000000000000","devEUI":"0200000000000000","nwkKey":"AAAA","appKey":"AAAA"}`, notSealed},
		"another DevEUI":    {head + "\n" + strings.Replace(row, `"devEUI":"02`, `"devEUI":"03`, 1), notSealed},
		"another JoinEUI":   {head + "\n" + strings.Replace(row, `"joinEUI":"01`, `"joinEUI":"03`, 1), notSealed},
		"another name":      {head + "\n" + strings.Replace(row, `"uniqueId":"`, `"uniqueId":"0`, 1), notSealed},
		"keys exchanged":    {head + "\n" + strings.NewReplacer("nwkKey", "appKey", "appKey", "nwkKey").Replace(row), notSealed},
		"MAC damaged":       {head + "\n" + strings.Replace(row, `"mac":"`, `"mac":"AAAA`, 1), notSealed},
		"line too long":     {head + "\n" + strings.Repeat(" ", 20_000) + row, "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			err := readAll(c.file, r)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	if err := readAll(other, r); !errors.Is(err, silicon.ErrRecipient) {
		t.Errorf("got %v, want ErrRecipient", err)
	}
}

func readAll(file string, r *silicon.Recipient) error {
	s, err := silicon.NewReader(strings.NewReader(file), r)
	for err == nil {
		var row silicon.Row
		if row, err = s.Next(); err == nil {
			_, err = s.Element(row)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func TestLoadRecipientRefuses(t *testing.T) {
	dir, _ := recipient(t)
	file := filepath.Join(dir, silicon.RecipientKeyFile)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := silicon.LoadRecipient(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: got %v", err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := silicon.LoadRecipient(file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable to the group: got %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty":  nil,
		"public": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: block.Bytes}),
		"cut":    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes[:100]}),
		"EC":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: ecDER}),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := silicon.LoadRecipient(file)
		if err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want an error with the file's name", name, err)
		}
		if err != nil && strings.Contains(err.Error(), hex.EncodeToString(block.Bytes[40:48])) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}
