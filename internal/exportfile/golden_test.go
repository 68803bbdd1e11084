package exportfile_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"joinery/internal/exportfile"
)

var update = flag.Bool("update", false, "write testdata anew: files of the format as it is now")

// golden are files that were once written, one of each form. Their private keys are
// gone.
var golden = map[string]exportfile.Wrapping{
	"raw.jsonl": exportfile.RawOAEP256, "jwe.jsonl": exportfile.JWEECDHES, "seal.jsonl": exportfile.SealOAEP256,
}

// Files that were written before are read and verified for ever.
func TestGolden(t *testing.T) {
	for name, w := range golden {
		path := filepath.Join("testdata", name)
		if *update {
			h, list, _ := sample(t, w)
			if err := os.WriteFile(path, write(t, h, list), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		file := must[[]byte](t)(os.ReadFile(path))
		r := must[*exportfile.Reader](t)(exportfile.NewReader(bytes.NewReader(file)))
		v := must[*exportfile.Verifier](t)(exportfile.NewVerifier(r.Header(), r.Header().Signer.Thumbprint()))
		n := 0
		for ; ; n++ {
			d, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = v.Verify(d)
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if n != 3 || r.Header().Wrapping != w {
			t.Errorf("%s: %d devices of %v", name, n, r.Header().Wrapping)
		}
	}
}
