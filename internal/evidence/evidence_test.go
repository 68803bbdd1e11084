package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"joinery/lorawan"
)

var about = About{
	Challenge: sha256.Sum256([]byte("challenge")),
	JoinEUI:   lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 0}, DevEUI: lorawan.EUI64{0, 4, 0xA3, 0x10, 0, 0x1A, 0xA9, 0x0A},
}

// goodBoot is of an element that is configured as it should be.
func goodBoot() Boot {
	b := Boot{
		Tag: about.Tag(), Random: sha256.Sum256([]byte("drawn")), Digest: sha256.Sum256([]byte("image")), Counter: 7, Serial: [9]byte{1, 0x23, 3, 4, 5, 6, 7, 8, 0xEE},
		KeySlot: 2, DigestSlot: 7, KeySlotConfig: 0x8F82, KeyKeyConfig: 0x1013, DigestSlotConfig: 0x8F0F, DigestKeyConfig: 0x001C,
	}
	b.Config[configSecureBoot], b.Config[configSecureBoot+1] = 0x0B, 0x67 // FullDig, persistent; digest 7, public key 6
	return b
}

// TestMessages: what elements sign does not change by accident. The chip's message
// is built here once more, from its 55 bytes.
func TestMessages(t *testing.T) {
	p := Possession{Tag: about.Tag(), Digest: sha256.Sum256([]byte("image")), Counter: 0x01020304}
	message := "joinery attestation possession 1\x00" + string(about.Challenge[:]) + string(about.JoinEUI[:]) + string(about.DevEUI[:]) + string(p.Digest[:]) + "\x01\x02\x03\x04"
	if p.SigningDigest(about) != sha256.Sum256([]byte(message)) {
		t.Error("possession: the message is another")
	}

	b := goodBoot()
	zeros := make([]byte, 64)
	step := func(key [32]byte, value []byte, head ...byte) [32]byte {
		m := append(append(append([]byte{}, value...), head...), zeros...)[:64]
		return sha256.Sum256(append(m, key[:]...))
	}
	asked := sha256.Sum256([]byte("joinery attestation boot 2\x00" + string(about.Challenge[:]) + string(about.JoinEUI[:]) + string(about.DevEUI[:])))
	key := sha256.Sum256(append(append(append([]byte{}, b.Random[:]...), asked[:20]...), 0x16, 0, 0))
	key = step(key, b.Config[:], 0x15, 0, 2, 0, 0xEE, 1, 0x23)
	key = step(key, zeros[:32], 0x15, 5, 2, 0, 0xEE, 1, 0x23, 0, 0x82, 0x8F, 0x13, 0x10, 0)
	key = step(key, zeros[:32], 0x15, 4, 0, 0, 0xEE, 1, 0x23, 0, 7, 0, 0, 0)
	key = step(key, b.Digest[:], 0x15, 2, 7, 0, 0xEE, 1, 0x23)
	internal := append(key[:], 0x41, 0x40, 2, 0, 0x0F, 0x8F, 0x1C, 0, 0x27, 0, 0, 0xEE, 5, 6, 7, 8, 1, 0x23, 3, 4, 0, 0, 0)
	if len(internal) != 55 || b.SigningDigest(about) != sha256.Sum256(internal) {
		t.Error("boot: the chip's message is another")
	}
}

// TestBootCovers: a signature fits one state of one chip and one challenge.
func TestBootCovers(t *testing.T) {
	good := goodBoot()
	seen := map[[32]byte]string{good.SigningDigest(about): "itself"}
	note := func(what string, b Boot, a About) {
		t.Helper()
		d := b.SigningDigest(a)
		if other, ok := seen[d]; ok {
			t.Errorf("%s is signed as %s", what, other)
		}
		seen[d] = what
	}
	for name, change := range map[string]func(*Boot){
		"random": func(b *Boot) { b.Random[31]++ }, "digest": func(b *Boot) { b.Digest[31]++ }, "counter": func(b *Boot) { b.Counter++ }, "key slot": func(b *Boot) { b.KeySlot++ },
		"digest slot": func(b *Boot) { b.DigestSlot++ }, "counter id": func(b *Boot) { b.CounterID++ },
		"key slot config": func(b *Boot) { b.KeySlotConfig++ }, "key key config": func(b *Boot) { b.KeyKeyConfig++ },
		"digest slot config": func(b *Boot) { b.DigestSlotConfig++ }, "digest key config": func(b *Boot) { b.DigestKeyConfig++ },
	} {
		b := good
		change(&b)
		note(name, b, about)
	}
	for i := range good.Serial {
		b := good
		b.Serial[i]++
		note("serial "+string(rune('0'+i)), b, about)
	}
	for i := range good.Config {
		b := good
		b.Config[i] ^= 0x80
		note("config "+string(rune('A'+i)), b, about)
	}
	for i := range 3 {
		a := about
		[]func(){func() { a.Challenge[31]++ }, func() { a.JoinEUI[7]++ }, func() { a.DevEUI[7]++ }}[i]()
		note("about "+string(rune('0'+i)), good, a)
	}
}

// TestConfigThatProvesNothing: each way to open the key, or to write the digest,
// without a verified boot.
func TestConfigThatProvesNothing(t *testing.T) {
	if err := goodBoot().CheckConfig(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Boot){
		"no such slot": func(b *Boot) { b.KeySlot = 16 }, "no such counter": func(b *Boot) { b.CounterID = 2 },
		"configuration not locked": func(b *Boot) { b.Config[configLockConfig] = 0x55 }, "data not locked": func(b *Boot) { b.Config[configLockValue] = 0x55 },
		"keeps signatures": func(b *Boot) { b.Config[configSecureBoot] = 0x0A }, "off": func(b *Boot) { b.Config[configSecureBoot] = 0x08 },
		"not persistent": func(b *Boot) { b.Config[configSecureBoot] = 0x03 }, "another digest": func(b *Boot) { b.DigestSlot = 5 },
		"volatile key": func(b *Boot) { b.Config[configVolatileKey] = 0x81 }, "no private key": func(b *Boot) { b.KeyKeyConfig &^= 1 },
		"not P-256": func(b *Boot) { b.KeyKeyConfig ^= 0x0C }, "always open": func(b *Boot) { b.KeyKeyConfig &^= 0x1000 },
		"signs anything": func(b *Boot) { b.KeySlotConfig |= 1 }, "signs nothing internal": func(b *Boot) { b.KeySlotConfig &^= 2 },
		"digest writable": func(b *Boot) { b.DigestSlotConfig = 0x0F0F }, "digest without MAC": func(b *Boot) { b.DigestSlotConfig |= 0x10 },
	} {
		b := goodBoot()
		change(&b)
		if err := b.CheckConfig(); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForms(t *testing.T) {
	p := Possession{Tag: about.Tag(), Digest: sha256.Sum256([]byte("image")), Counter: 9}
	p.Signature[0], p.Signature[63] = 1, 2
	if got, err := ParsePossession(p.Bytes()); err != nil || got != p || len(p.Bytes()) != 105 {
		t.Errorf("%+v, %v", got, err)
	}
	b := goodBoot()
	b.Signature[0], b.Signature[63] = 3, 4
	if got, err := ParseBoot(b.Bytes()); err != nil || got != b || len(b.Bytes()) != 189 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, {formPossession}, b.Bytes(), p.Bytes()[:104], append(p.Bytes(), 0)} {
		if _, err := ParsePossession(bad); !errors.Is(err, ErrForm) {
			t.Errorf("possession of %d bytes: %v", len(bad), err)
		}
	}
	for _, bad := range [][]byte{nil, {formBoot}, p.Bytes(), b.Bytes()[:188], append(b.Bytes(), 0)} {
		if _, err := ParseBoot(bad); !errors.Is(err, ErrForm) {
			t.Errorf("boot of %d bytes: %v", len(bad), err)
		}
	}
	// The form that was over a fixed nonce is known, to say why it is not taken.
	old := append([]byte{0x12}, make([]byte, 156)...)
	if _, err := ParseBoot(old); !IsBoot(old) || !errors.Is(err, ErrForm) || !strings.Contains(err.Error(), "random nonce") {
		t.Errorf("the old form: %v", err)
	}
}

func TestFragments(t *testing.T) {
	message := goodBoot().Bytes()
	for _, size := range []int{11, 51, 115, 242} {
		parts, err := Split(message, size)
		if err != nil {
			t.Fatal(err)
		}
		var all []Fragment
		for _, p := range parts {
			if len(p) > size {
				t.Fatalf("%d bytes in a fragment of %d", len(p), size)
			}
			f, err := ParseFragment(p)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Join(all); got != nil || err != nil {
				t.Fatalf("whole with %d of %d: %v", len(all), len(parts), err)
			}
			all = append(all, f)
		}
		all = append(all, all[0]) // once more
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if got, err := Join(all); err != nil || !bytes.Equal(got, message) {
			t.Errorf("%d bytes: %v", size, err)
		}
		changed := slices.Clone(all)
		changed[0].Payload = bytes.Repeat([]byte{0xA5}, len(changed[0].Payload))
		changed = slices.DeleteFunc(changed, func(f Fragment) bool { return f.Index == changed[0].Index })
		changed = append(changed, Fragment{Index: all[0].Index, Total: all[0].Total, Message: all[0].Message, Payload: bytes.Repeat([]byte{0xA5}, len(all[0].Payload))})
		if _, err := Join(changed); !errors.Is(err, ErrFragment) {
			t.Errorf("changed: %v", err)
		}
		foreign := append(slices.Clone(all), Fragment{Index: 0, Total: all[0].Total, Message: all[0].Message + 1, Payload: []byte{1}})
		if _, err := Join(foreign); !errors.Is(err, ErrFragment) {
			t.Errorf("of two messages: %v", err)
		}
	}
	for _, size := range []int{0, 6} {
		if _, err := Split(message, size); !errors.Is(err, ErrFragment) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	if _, err := Split(make([]byte, MaxMessage+1), 242); !errors.Is(err, ErrFragment) {
		t.Error(err)
	}
	for _, bad := range []string{"", "0001000000000000", "000100000000", "0100000000ff00", "4041000000ff00"} {
		b, _ := hex.DecodeString(bad)
		if bad == "0001000000000000" {
			continue // a good one, to see what is bad of the others
		}
		if _, err := ParseFragment(b); !errors.Is(err, ErrFragment) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestFile(t *testing.T) {
	f := File{Format: FormatFile, JoinEUI: about.JoinEUI, DevEUI: about.DevEUI, Challenge: about.Challenge[:], Kind: "possession", Evidence: []byte{1, 2}}
	text, err := f.Text()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseFile(text); err != nil || !reflect.DeepEqual(got, f) || got.About() != about {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"format":"joinery-evidence/2"}`, string(text) + "x", `{"format":"joinery-evidence/1","challenge":"AAAA"}`} {
		if _, err := ParseFile([]byte(bad)); !errors.Is(err, ErrFile) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzCompact(f *testing.F) {
	f.Add(goodBoot().Bytes())
	f.Add(Possession{}.Bytes())
	f.Add([]byte{0, 1, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePossession(b); err == nil && !bytes.Equal(p.Bytes(), b) {
			t.Error("possession is written otherwise")
		}
		if p, err := ParseBoot(b); err == nil {
			if !bytes.Equal(p.Bytes(), b) {
				t.Error("boot is written otherwise")
			}
			p.SigningDigest(about)
			_ = p.CheckConfig()
		}
		if fr, err := ParseFragment(b); err == nil {
			_, _ = Join([]Fragment{fr})
		}
	})
}
