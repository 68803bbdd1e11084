package exportfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"joinery/internal/exportfile"
)

// FuzzReader: whatever a file holds, reading ends, and what was read is written as the
// same again.
func FuzzReader(f *testing.F) {
	for name := range golden { // to make keys here is slow
		file, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
	}
	f.Add([]byte("{}\n{}"))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := exportfile.NewReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		h := r.Header()
		v, err := exportfile.NewVerifier(h, h.Signer.Thumbprint())
		if err != nil {
			t.Fatalf("a header that was read is refused: %v", err)
		}
		for {
			d, err := r.Next()
			if errors.Is(err, exportfile.ErrFormat) {
				continue
			}
			if err != nil {
				return
			}
			line, err := exportfile.MarshalDevice(d)
			if err != nil {
				t.Fatal(err)
			}
			again, err := exportfile.ParseDevice(line, h)
			if err != nil {
				t.Fatalf("what was read cannot be read again: %v\n%s", err, line)
			}
			if (v.Verify(d) == nil) != (v.Verify(again) == nil) {
				t.Error("written and read again it is another device")
			}
		}
	})
}

// FuzzRecipient: what is taken as a key is written as the same key.
func FuzzRecipient(f *testing.F) {
	ec, err := exportfile.NewRecipient(&ecKey.PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	rsa, err := os.ReadFile(filepath.Join("testdata", "recipient.pem"))
	if err != nil {
		f.Fatal(err)
	}
	r, err := exportfile.ParseRecipient(rsa)
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []exportfile.Recipient{ec, r, r.WithSHA1()} {
		f.Add(r.MarshalPEM())
		f.Add(r.MarshalJWK())
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := exportfile.ParseRecipient(text)
		if err != nil {
			return
		}
		for _, again := range [][]byte{r.MarshalPEM(), r.MarshalJWK()} {
			back, err := exportfile.ParseRecipient(again)
			if err != nil || back.Thumbprint() != r.Thumbprint() {
				t.Errorf("%s: %v", again, err)
			}
		}
	})
}
