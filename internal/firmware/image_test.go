package firmware

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

var header = Header{Product: "meter-3", Hardware: "rev-c", Version: "3.1.0", Counter: 7, Length: 1000}

func signed(t testing.TB, h Header, sign Signer) (Image, []byte) {
	t.Helper()
	var out bytes.Buffer
	i, err := SignImage(&out, h, bytes.NewReader(bytes.Repeat([]byte{0xC5}, int(h.Length))), sign)
	if err != nil {
		t.Fatal(err)
	}
	return i, out.Bytes()
}

// TestHeader: the layout does not change by accident.
func TestHeader(t *testing.T) {
	name := func(s string) string { return s + strings.Repeat("\x00", 64-len(s)) }
	want := "joinery-image/1\x00" + "\x00\x00\x00\x07" + "\x00\x00\x03\xe8" + name("meter-3") + name("rev-c") + name("3.1.0") + strings.Repeat("\x00", 40)
	got := header.Bytes()
	if string(got[:]) != want {
		t.Fatalf("%q", got)
	}
	if h, err := ParseHeader(got[:]); err != nil || h != header {
		t.Fatalf("%+v, %v", h, err)
	}
	for name, change := range map[string]func([]byte){
		"mark": func(b []byte) { b[0] = 'J' }, "tail": func(b []byte) { b[255] = 1 }, "behind a name": func(b []byte) { b[24+10] = 'x' },
		"no code": func(b []byte) { copy(b[20:], "\x00\x00\x00\x00") }, "too much code": func(b []byte) { b[20] = 0xFF },
		"counter": func(b []byte) { b[16] = 1 }, "no product": func(b []byte) { copy(b[24:], make([]byte, 64)) },
		"space": func(b []byte) { b[25] = ' ' },
	} {
		b := header.Bytes()
		change(b[:])
		if _, err := ParseHeader(b[:]); !errors.Is(err, ErrImage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImage(t *testing.T) {
	key := newKey(t)
	image, file := signed(t, header, signer(key))
	if len(file) != int(header.Size()) || image.Digest != sha256.Sum256(file[:len(file)-SignatureLen]) {
		t.Fatal("the image is laid out otherwise")
	}
	var code bytes.Buffer
	got, err := ReadImage(iotest.OneByteReader(io.MultiReader(bytes.NewReader(file), strings.NewReader("what else is there"))), &code)
	if err != nil || got != image || code.Len() != 1000 {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := got.Verify(&key.PublicKey); err != nil {
		t.Error(err)
	}
	if err := got.Verify(&newKey(t).PublicKey); !errors.Is(err, ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	// Every byte counts. Those of the signature and the code are many alike.
	for _, at := range []int{17, 30, 100, 160, 256, 700, 1255, 1256, 1288, 1319} {
		changed := bytes.Clone(file)
		changed[at] ^= 1
		if i, err := ReadImage(bytes.NewReader(changed), nil); err == nil {
			if err := i.Verify(&key.PublicKey); !errors.Is(err, ErrSignature) {
				t.Errorf("byte %d changed: %v", at, err)
			}
		} else if !errors.Is(err, ErrImage) {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
	for _, n := range []int{0, 1, 255, 256, 1000, 1255, 1256, 1319} {
		if _, err := ReadImage(bytes.NewReader(file[:n]), nil); !errors.Is(err, ErrImage) {
			t.Errorf("cut off after %d: %v", n, err)
		}
	}
	if _, err := ReadImage(iotest.ErrReader(io.ErrClosedPipe), nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a failing file: %v", err)
	}
}

func TestSignImageRefuses(t *testing.T) {
	sign := signer(newKey(t))
	for name, n := range map[string]int{"shorter": 999, "longer": 1001, "nothing": 0} {
		if _, err := SignImage(io.Discard, header, bytes.NewReader(make([]byte, n)), sign); err == nil {
			t.Errorf("%s code than the header says was signed", name)
		}
	}
	bad := header
	bad.Hardware = "rev c"
	if _, err := SignImage(io.Discard, bad, bytes.NewReader(make([]byte, 1000)), sign); !errors.Is(err, ErrImage) {
		t.Errorf("%v", err)
	}
	broken := func([32]byte) (s [64]byte, err error) { return s, io.ErrClosedPipe }
	if _, err := SignImage(io.Discard, header, bytes.NewReader(make([]byte, 1000)), broken); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a signer that fails: %v", err)
	}
}

// TestNoConfusion: a signature of an image is none of a statement, and the other way
// round, though one key makes both.
func TestNoConfusion(t *testing.T) {
	key := newKey(t)
	image, _ := signed(t, header, signer(key))
	s, err := Sign(image.Release(), signer(key))
	if err != nil {
		t.Fatal(err)
	}
	image.Signature, s.Signature = s.Signature, image.Signature
	if image.Verify(&key.PublicKey) == nil || s.Verify(&key.PublicKey) == nil {
		t.Error("one signature serves for the other")
	}
}

func TestFollows(t *testing.T) {
	next := func(change func(*Release)) Release { r := release; r.Counter++; change(&r); return r }
	if err := next(func(*Release) {}).Follows(release); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]Release{
		"the same counter": next(func(r *Release) { r.Counter-- }), "a lower one": next(func(r *Release) { r.Counter = 1 }),
		"a jump": next(func(r *Release) { r.Counter += MaxStep }), "another product": next(func(r *Release) { r.Product = "x" }),
		"other hardware": next(func(r *Release) { r.Hardware = "x" }),
	} {
		if err := r.Follows(release); !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadImage(f *testing.F) {
	_, file := signed(f, Header{Product: "a", Hardware: "b", Version: "1", Length: 3}, signer(newKey(f)))
	f.Add(file)
	f.Fuzz(func(t *testing.T, file []byte) {
		var code bytes.Buffer
		i, err := ReadImage(bytes.NewReader(file), &code)
		if err != nil {
			if !errors.Is(err, ErrImage) {
				t.Fatal(err)
			}
			return
		}
		head := i.Bytes()
		again := append(append(head[:], code.Bytes()...), i.Signature[:]...)
		if !bytes.HasPrefix(file, again) {
			t.Fatalf("another image: %s", hex.EncodeToString(again))
		}
	})
}
