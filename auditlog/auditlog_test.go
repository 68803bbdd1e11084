package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// The expected values were computed apart from this package, with OpenSSL and
// with Python's hashlib.
var known = []struct {
	name    string
	salt    []byte
	payload []byte
	record  string
	leaf    string
}{
	{
		name: "zero salt, empty payload", salt: make([]byte, SaltSize), payload: nil,
		record: "0166687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925",
		leaf:   "fce98be57f98219aed6e024ec0ab7eef896efbf039b5610a59eb45a020ae740a",
	},
	{
		name: "counting salt", salt: counting(SaltSize), payload: []byte("joinery"),
		record: "01c2ddf44f07734e0080c4143f449ba375995061b4d914d2676181e0a9eb4ef519",
		leaf:   "ba9aaba564740dbe33cc60d02944b70d4541a6db223a3055354837fcfbbfc69b",
	},
	{
		name: "every byte", salt: bytes.Repeat([]byte{0xff}, SaltSize), payload: counting(256),
		record: "01525f2c1496feb19584c293aa05d93595041790475d0b0835d71968a35abc4dd2",
		leaf:   "4e9dcc73ed311c6e81f0676083d5ae403b30666d5b451b4aab2855640439f6f5",
	},
}

func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestKnownValues(t *testing.T) {
	for _, k := range known {
		t.Run(k.name, func(t *testing.T) {
			r := NewRecord([SaltSize]byte(k.salt), k.payload)
			if got := hex.EncodeToString(r[:]); got != k.record {
				t.Errorf("record\n got %s\nwant %s", got, k.record)
			}
			leaf := r.LeafHash()
			if got := hex.EncodeToString(leaf[:]); got != k.leaf {
				t.Errorf("leaf hash\n got %s\nwant %s", got, k.leaf)
			}
			if err := VerifyRecord(r[:], k.salt, k.payload); err != nil {
				t.Errorf("Verify: %v", err)
			}
		})
	}
}

// A leaf hash must never equal an inner node's, SHA-256(0x01 ‖ left ‖ right).
func TestLeafIsNoInnerNode(t *testing.T) {
	r := NewRecord([SaltSize]byte{}, nil)
	if r.LeafHash() == sha256.Sum256(append([]byte{1}, r[:]...)) {
		t.Fatal("leaf hash has the prefix of an inner node")
	}
}

func TestVerifyRefuses(t *testing.T) {
	salt, payload := counting(SaltSize), []byte("payload")
	r := NewRecord([SaltSize]byte(salt), payload)
	future := r
	future[0] = Version + 1
	for _, c := range []struct {
		name                  string
		record, salt, payload []byte
		want                  error
	}{
		{"no record", nil, salt, payload, ErrVersion},
		{"short record", r[:RecordSize-1], salt, payload, ErrVersion},
		{"long record", append(r[:], 0), salt, payload, ErrVersion},
		{"unknown version", future[:], salt, payload, ErrVersion},
		{"no salt", r[:], nil, payload, ErrMismatch},
		{"salt moved into the payload", r[:], salt[:31], append(salt[31:], payload...), ErrMismatch},
		{"no payload", r[:], salt, nil, ErrMismatch},
		{"longer payload", r[:], salt, append([]byte("payload"), 0), ErrMismatch},
	} {
		if err := VerifyRecord(c.record, c.salt, c.payload); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// Every single bit of salt, payload and record counts.
func TestEveryBitCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		salt := rapid.SliceOfN(rapid.Byte(), SaltSize, SaltSize).Draw(t, "salt")
		payload := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "payload")
		r := NewRecord([SaltSize]byte(salt), payload)
		if err := VerifyRecord(r[:], salt, payload); err != nil {
			t.Fatalf("Verify: %v", err)
		}
		parts := map[string][]byte{"record": r[:], "salt": salt, "payload": payload}
		b := parts[rapid.SampledFrom([]string{"record", "salt", "payload"}).Draw(t, "part")]
		bit := rapid.IntRange(0, 8*len(b)-1).Draw(t, "bit")
		b[bit/8] ^= 1 << (bit % 8)
		if VerifyRecord(r[:], salt, payload) == nil {
			t.Fatal("a flipped bit was not seen")
		}
	})
}

func FuzzVerify(f *testing.F) {
	for _, k := range known {
		record, err := hex.DecodeString(k.record)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(record, k.salt, k.payload)
	}
	f.Fuzz(func(t *testing.T, record, salt, payload []byte) {
		if VerifyRecord(record, salt, payload) != nil {
			return
		}
		inner := sha256.Sum256(append(bytes.Clone(salt), payload...))
		if len(salt) != SaltSize || !bytes.Equal(record, append([]byte{1}, inner[:]...)) {
			t.Fatal("accepted what does not recompute")
		}
	})
}
