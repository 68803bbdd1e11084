package fragment

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"
)

// TestPublishedParity: the parity that ChirpStack's two implementations publish for
// the bytes 0 to 99 in ten fragments of ten.
func TestPublishedParity(t *testing.T) {
	block := make([]byte, 100)
	for i := range block {
		block[i] = byte(i)
	}
	for v, published := range map[Version][]string{
		V1: {
			"262622222e2e22222626", "5455565758596a6b7c7d", "5c5d6e6f101102030405", "363632323e3e22223636", "3a3a0e0e0a0a06060a0a",
			"0e0e3232363622223e3e", "02020e0e727276766262", "1e1e1a1a66665a5a4e4e", "1a1b1c1d1e1f30312223", "22232425262718190a0b",
		},
		V2: {
			"686952535c5d76777071", "5455565758596a6b7c7d", "5c5d6e6f101102030405", "6c6d6e6f606142435455", "12132425262728293a3b",
			"48497a7b7c7d6e6f7071", "1c1d2e2f505152534445", "585952532c2d16170001", "1a1b1c1d1e1f30312223", "00013a3b44457e7f6869",
		},
	} {
		e, err := NewEncoder(v, block, 10)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range published {
			if got := hex.EncodeToString(e.Fragment(11 + i)); got != want {
				t.Errorf("version %d, parity %d: %s, want %s", v, i+1, got, want)
			}
		}
	}
}

func TestDecoder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		v            Version
		length, size int
		loss         float64
	}{{V1, 1, 1, 0}, {V2, 30, 7, 0.5}, {V1, 640, 10, 0.3}, {V2, 640, 10, 0.3}, {V1, 1000, 50, 0.2}, {V2, 3000, 51, 0.4}, {V1, 2560, 10, 0.9}, {V2, 2560, 10, 0.9}} {
		block := make([]byte, c.length)
		for i := range block {
			block[i] = byte(random.Uint32())
		}
		e, err := NewEncoder(c.v, block, c.size)
		if err != nil {
			t.Fatal(err)
		}
		d, err := NewDecoder(c.v, e.Count(), c.size, 0)
		if err != nil {
			t.Fatal(err)
		}
		n, heard := 0, 0
		for !d.Done() && n < MaxIndex {
			n++
			if random.Float64() < c.loss {
				continue
			}
			heard++
			d.Add(n, e.Fragment(n))
			d.Add(n, e.Fragment(n)) // again: nothing new
		}
		if got := d.Block(e.Padding(len(block))); !bytes.Equal(got, block) {
			t.Errorf("%d bytes of %d at %.0f %%: another block", c.length, c.size, 100*c.loss)
		}
		if d.Received() != heard || heard > e.Count()+25 {
			t.Errorf("%d fragments were needed for %d", heard, e.Count())
		}
	}
}

// TestOrder: parity first, then the block's own.
func TestOrder(t *testing.T) {
	block := bytes.Repeat([]byte("firmware"), 40)
	e, _ := NewEncoder(V1, block, 16)
	d, _ := NewDecoder(V1, e.Count(), 16, 0)
	for n := e.Count() + 12; n > 0; n-- {
		d.Add(n, e.Fragment(n))
	}
	if !bytes.Equal(d.Block(0), block) {
		t.Error("another block")
	}
	if d.Block(-1) != nil || d.Block(1<<20) != nil {
		t.Error("a padding that cannot be")
	}
	small, _ := NewDecoder(V1, e.Count(), 16, 2)
	for n := e.Count() + 1; n < e.Count()+10; n++ {
		small.Add(n, e.Fragment(n))
	}
	if !small.Full() || small.Done() || small.Block(0) != nil {
		t.Error("more is missing than there is memory for, and it does not say so")
	}
}

func TestSessionsThatCannotBe(t *testing.T) {
	for _, c := range [][2]int{{0, 10}, {10, 0}, {10, 256}, {MaxIndex + 1, 1}} {
		if _, err := NewEncoder(V2, make([]byte, c[0]), c[1]); !errors.Is(err, ErrSession) {
			t.Errorf("encoder %v: %v", c, err)
		}
		if _, err := NewDecoder(V2, c[0], c[1], 0); !errors.Is(err, ErrSession) {
			t.Errorf("decoder %v: %v", c, err)
		}
	}
	d, _ := NewDecoder(V2, 4, 4, 0)
	for n, data := range map[int][]byte{0: make([]byte, 4), -1: make([]byte, 4), MaxIndex + 1: make([]byte, 4), 1: make([]byte, 3)} {
		if d.Add(n, data) || d.Received() != 0 {
			t.Errorf("fragment %d was taken", n)
		}
	}
}

// TestCommands: bytes of ChirpStack's tests for version 1, and of the tables of TS004
// for version 2.
func TestCommands(t *testing.T) {
	one := Setup{Index: 3, McGroups: 5, NbFrag: 513, FragSize: 255, AckDelay: 4, Padding: 129, Descriptor: [4]byte{1, 2, 3, 4}}
	two := Setup{Index: 2, McGroups: 5, NbFrag: 100, FragSize: 20, AckWanted: true, AckDelay: 5, Padding: 7, Descriptor: [4]byte{0x11, 0x22, 0x33, 0x44}, SessionCnt: 0x0102, MIC: [4]byte{0xDE, 0xAD, 0xBE, 0xEF}}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"setup 1": {one.Bytes(V1), "02350102ff048101020304"}, "setup 2": {two.Bytes(V2), "02256400144507112233440201deadbeef"},
		"setup answer": {SetupAnswer(3, SetupNoAlgorithm|SetupNoMemory|SetupNoIndex|SetupWrongDescriptor), "02cf"},
		"data":         {Data(3, 513, []byte{1, 2, 3, 4, 5, 6}), "0801c2010203040506"}, "status request": {StatusRequest(3, true), "0107"},
		"status 1":        {Status{Index: 3, Received: 513, Missing: 255, NoMemory: true}.Bytes(V1), "0101c2ff01"},
		"status 2":        {Status{Index: 1, Received: 100, Missing: 3}.Bytes(V2), "0100644003"},
		"status 2, MIC":   {Status{Index: 3, Received: 99999, MICError: true}.Bytes(V2), "0102ffff00"},
		"status 2, none":  {Status{Index: 2, NoSession: true}.Bytes(V2), "0104"},
		"block received":  {BlockReceived(1, false), "0401"},
		"with a MIC that": {BlockReceived(1, true), "0405"},
	} {
		if hex.EncodeToString(c.got) != c.want {
			t.Errorf("%s: %x, want %s", name, c.got, c.want)
		}
	}
	for v, s := range map[Version]Setup{V1: one, V2: two} {
		if got, algorithm, err := ParseSetup(s.Bytes(v), v); err != nil || got != s || algorithm != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	b := two.MICBlock(1993)
	if hex.EncodeToString(b[:]) != "490201021122334400000000c9070000" {
		t.Errorf("%x", b)
	}
}

// FuzzCommands: whatever comes, nothing ends the program, and what was read is what
// stood there.
func FuzzCommands(f *testing.F) {
	f.Add(Setup{NbFrag: 3, FragSize: 4}.Bytes(V1))
	f.Add(Setup{NbFrag: 3, FragSize: 4}.Bytes(V2))
	f.Add(Data(1, 2, []byte("data")))
	f.Add(Status{Received: 4}.Bytes(V2))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []Version{V1, V2} {
			if s, _, err := ParseSetup(b, v); err == nil {
				if again, _, err := ParseSetup(s.Bytes(v), v); err != nil || again != s {
					t.Fatalf("%+v, %v", again, err)
				}
			}
			if s, err := ParseStatus(b, v); err == nil {
				if again, err := ParseStatus(s.Bytes(v), v); err != nil || again != s {
					t.Fatalf("%+v, %v", again, err)
				}
			}
		}
		if i, n, data, err := ParseData(b); err == nil && !bytes.Equal(Data(i, n, data), b) {
			t.Fatal("another fragment")
		}
		_, _, _ = ParseSetupAnswer(b)
		_, _, _ = ParseStatusRequest(b)
		_, _, _ = ParseBlockReceived(b)
	})
}

// FuzzDecoder: fragments in any order, some of them lies: it never ends the program,
// and without lies it gives the block or none.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5}, uint8(4), uint8(2), false)
	f.Add([]byte{9, 8, 7, 1, 2, 3, 4, 5, 6, 200, 100}, uint8(8), uint8(3), true)
	f.Fuzz(func(t *testing.T, order []byte, m, size uint8, lies bool) {
		v := V1 + Version(m%2)
		block := bytes.Repeat([]byte{m, size, 0xA5}, int(m)*int(size)/3+1)[:int(m)*int(size)]
		e, err := NewEncoder(v, block, int(size))
		if err != nil {
			return
		}
		d, err := NewDecoder(v, e.Count(), int(size), 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range order {
			data := make([]byte, size)
			if n > 0 {
				data = e.Fragment(int(n))
			}
			if lies && i%3 == 0 {
				data[0] ^= 1
			}
			d.Add(int(n), data)
		}
		if d.Done() && !lies && !bytes.Equal(d.Block(0), block) {
			t.Fatal("another block")
		}
		if d.Missing() < 0 {
			t.Fatalf("%d are missing", d.Missing())
		}
	})
}
