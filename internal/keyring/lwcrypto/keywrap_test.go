package lwcrypto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"joinery/internal/seal"
)

// The examples of RFC 3394 §4.4 to §4.6: keys of 192 and 256 bits, which KEKs
// may have.
func TestLongKeyWrap(t *testing.T) {
	n := 0
	for _, v := range vectors(t) {
		o := operands{t, v.Inputs}
		if v.Op != "aes_key_wrap" || len(o.bytes("Plain")) == BlockLen {
			continue
		}
		n++
		wrapped, err := seal.WrapKey(nil, o.key("KEK").Block, o.bytes("Plain"))
		if err != nil || !strings.EqualFold(hex.EncodeToString(wrapped), v.Expected["Wrapped"].(string)) {
			t.Errorf("%s: %x, %v", v.Name, wrapped, err)
		}
		back, err := seal.UnwrapKey(nil, o.key("KEK").Block, wrapped)
		if err != nil || !bytes.Equal(back, o.bytes("Plain")) {
			t.Errorf("%s does not unwrap: %v", v.Name, err)
		}
		if _, err := seal.UnwrapKey(nil, newSoftware(t, make([]byte, 32)).Block, wrapped); !errors.Is(err, seal.ErrKeyWrap) {
			t.Errorf("%s opens under another KEK: %v", v.Name, err)
		}
	}
	if n != 3 {
		t.Errorf("%d such vectors", n)
	}
}

func BenchmarkWrapKey(b *testing.B) {
	kek := newSoftware(b, make([]byte, 16)).Block
	var key [BlockLen]byte
	dst := make([]byte, 0, WrappedKeyLen)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := WrapKey(dst, kek, &key); err != nil {
			b.Fatal(err)
		}
	}
}
