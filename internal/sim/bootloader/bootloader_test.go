package bootloader

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"joinery/internal/evidence"
	"joinery/internal/firmware"
	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/tnglora"
	"joinery/lorawan"
)

// maker signs images.
type maker struct {
	t   testing.TB
	key *ecdsa.PrivateKey
}

func newMaker(t testing.TB) maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return maker{t, key}
}

func (m maker) image(counter uint32, change ...func(*firmware.Header)) []byte {
	m.t.Helper()
	h := firmware.Header{Product: "meter-3", Hardware: "rev-c", Version: "v", Counter: counter, Length: 600}
	for _, f := range change {
		f(&h)
	}
	var out bytes.Buffer
	_, err := firmware.SignImage(&out, h, bytes.NewReader(bytes.Repeat([]byte{byte(counter)}, int(h.Length))), func(digest [32]byte) (s [64]byte, err error) {
		r, v, err := ecdsa.Sign(rand.Reader, m.key, digest[:])
		if err == nil {
			r.FillBytes(s[:32])
			v.FillBytes(s[32:])
		}
		return s, err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return out.Bytes()
}

// memory is a flash that ends with the test.
type memory struct {
	places [2][]byte
	record byte
}

func (m *memory) Place(n int) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m.places[n])), nil
}
func (m *memory) Write(n int, image io.Reader) (err error) {
	m.places[n], err = io.ReadAll(image)
	return err
}
func (m *memory) Record() (byte, error)  { return m.record, nil }
func (m *memory) SetRecord(b byte) error { m.record = b; return nil }

// scene is a device and its maker.
type scene struct {
	maker
	chip  *chip.Chip
	ioKey [32]byte
	flash *memory
}

func newScene(t testing.TB) *scene {
	t.Helper()
	s := &scene{maker: newMaker(t), flash: &memory{record: 0xFF}}
	image, err := tnglora.Image(tnglora.Content{Serial: [9]byte{1, 0x23, 8: 0x27}, DevEUI: lorawan.EUI64{1}, NwkKey: make([]byte, 16), AppKey: make([]byte, 16)})
	if err != nil {
		t.Fatal(err)
	}
	if s.ioKey, err = Prepare(Content{ReleaseKey: &s.key.PublicKey, Element: image}); err != nil {
		t.Fatal(err)
	}
	s.chip = chip.New(image, chip.Options{})
	return s
}

// on gives the device at its start.
func (s *scene) on(p *Power) (*Device, error) {
	s.chip.PowerCycle()
	e, err := NewElement(poweredChip{s.chip, p}, s.ioKey)
	return &Device{Element: e, Flash: poweredFlash{s.flash, p}, Hardware: "rev-c", Product: "meter-3"}, err
}

// boots wants the image with this counter to start.
func (s *scene) boots(counter uint32) (*Device, Running) {
	s.t.Helper()
	d, err := s.on(&Power{})
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := d.Boot()
	if err != nil || r.Counter != counter {
		s.t.Fatalf("booted %d, %v; want %d", r.Counter, err, counter)
	}
	return d, r
}

// factory has the device run its first image.
func (s *scene) factory(counter uint32) (*Device, Running) {
	s.t.Helper()
	s.flash.places[0] = s.image(counter)
	d, r := s.boots(counter)
	if err := d.Confirm(r); err != nil {
		s.t.Fatal(err)
	}
	return d, r
}

func TestBoot(t *testing.T) {
	s := newScene(t)
	if d, err := s.on(&Power{}); err != nil {
		t.Fatal(err)
	} else if _, err := d.Boot(); !errors.Is(err, ErrNothing) {
		t.Errorf("an empty device: %v", err)
	}
	d, r := s.factory(3)
	if n, err := d.Element.Counter(); err != nil || n != 3 {
		t.Errorf("counter %d, %v", n, err)
	}
	// A new image is tried, and counts once it says that it works.
	if _, err := d.Install(r, bytes.NewReader(s.image(5))); err != nil {
		t.Fatal(err)
	}
	d, r = s.boots(5)
	if n, _ := d.Element.Counter(); n != 3 || !r.Trial {
		t.Errorf("counter %d before it said that it works, trial %t", n, r.Trial)
	}
	if err := d.Confirm(r); err != nil {
		t.Fatal(err)
	}
	if _, r = s.boots(5); r.Trial || len(r.Refused) > 0 {
		t.Errorf("%+v", r)
	}
	// What was there before is older now, also where flash says that it is preferred.
	s.flash.record = record{preferred: 0, confirmed: true}.byte()
	if _, r = s.boots(5); len(r.Refused) != 1 || !errors.Is(r.Refused[0], ErrRollback) {
		t.Errorf("refused %v", r.Refused)
	}
}

// TestRefused: an image that must not boot is not installed; put into flash by who can
// write that, it does not boot.
func TestRefused(t *testing.T) {
	s := newScene(t)
	s.factory(3)
	tampered := s.image(4)
	tampered[400] ^= 1
	header := s.image(4)
	header[19] = 9 // its counter
	for name, c := range map[string]struct {
		image []byte
		want  error
	}{
		"tampered": {tampered, ErrRefused}, "a changed header": {header, ErrRefused}, "another's key": {newMaker(t).image(4), ErrRefused},
		"other hardware":  {s.image(4, func(h *firmware.Header) { h.Hardware = "rev-d" }), ErrHardware},
		"another product": {s.image(4, func(h *firmware.Header) { h.Product = "meter-4" }), ErrHardware},
		"older":           {s.image(2), ErrRollback}, "cut off": {s.image(4)[:700], firmware.ErrImage}, "noise": {bytes.Repeat([]byte{7}, 900), firmware.ErrImage},
		"nothing": {nil, firmware.ErrImage},
	} {
		d, r := s.boots(3)
		if _, err := d.Install(r, bytes.NewReader(c.image)); !errors.Is(err, c.want) {
			t.Errorf("installing %s: %v, want %v", name, err, c.want)
		}
		s.boots(3)
		s.flash.places[1], s.flash.record = c.image, record{preferred: 1, confirmed: true}.byte()
		if _, r := s.boots(3); len(r.Refused) != 1 || !errors.Is(r.Refused[0], c.want) {
			t.Errorf("booting %s: refused %v, want %v", name, r.Refused, c.want)
		}
		s.flash.record = record{confirmed: true}.byte()
	}
}

// TestTries: a new image that never says that it works gives way to the old one.
func TestTries(t *testing.T) {
	s := newScene(t)
	d, r := s.factory(3)
	if _, err := d.Install(r, bytes.NewReader(s.image(4))); err != nil {
		t.Fatal(err)
	}
	for range MaxTries {
		s.boots(4)
	}
	d, r = s.boots(3)
	if err := d.Confirm(r); err != nil {
		t.Fatal(err)
	}
	// Nothing was counted, and the next update goes as the first.
	if _, err := d.Install(r, bytes.NewReader(s.image(5))); err != nil {
		t.Fatal(err)
	}
	s.boots(5)
}

// TestPowerLoss: the power goes before each step of an update; what boots then is the
// old image or the new one, and the update can be done.
func TestPowerLoss(t *testing.T) {
	update := func(s *scene, image []byte, p *Power) error {
		d, err := s.on(p)
		if err != nil {
			return err
		}
		r, err := d.Boot()
		if err != nil {
			return err
		}
		if _, err := d.Install(r, bytes.NewReader(image)); err != nil {
			return err
		}
		if d, err = s.on(p); err != nil {
			return err
		}
		if r, err = d.Boot(); err != nil {
			return err
		}
		return d.Confirm(r)
	}
	old, fresh := 0, 0
	for off := 1; ; off++ {
		s := newScene(t)
		s.factory(3)
		image, p := s.image(6), &Power{Off: off}
		err := update(s, image, p)
		if err == nil {
			if p.Steps != off-1 || off < 30 {
				t.Fatalf("an update of %d steps ended at %d", p.Steps, off)
			}
			break
		}
		// Twice the power goes again as the device starts.
		for again := range 2 {
			if d, err := s.on(&Power{Off: 4 + 6*again}); err == nil {
				_, _ = d.Boot()
			}
		}
		d, err := s.on(&Power{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.Boot()
		if err != nil {
			t.Fatalf("power lost before step %d: %v", off, err)
		}
		switch r.Counter {
		case 3:
			old++
		case 6:
			fresh++
		default:
			t.Fatalf("power lost before step %d: booted %d", off, r.Counter)
		}
		if err := d.Confirm(r); err != nil {
			t.Fatal(err)
		}
		if r.Counter == 3 {
			if err := update(s, image, &Power{}); err != nil {
				t.Fatalf("power lost before step %d: the update after that: %v", off, err)
			}
		}
		s.boots(6)
	}
	if old == 0 || fresh == 0 {
		t.Errorf("%d times the old image, %d times the new one", old, fresh)
	}
}

// liar is on the bus and answers in the element's place.
type liar struct {
	Chip
	op     chip.Opcode
	answer []byte
}

func (l liar) Execute(packet []byte) []byte {
	if chip.Opcode(packet[1]) == l.op {
		b := append([]byte{byte(len(l.answer) + 3)}, l.answer...)
		crc := chip.CRC(b)
		return append(b, byte(crc), byte(crc>>8))
	}
	return l.Chip.Execute(packet)
}

// TestBus: nobody on the bus can say that an image is good, or that the counter is low.
func TestBus(t *testing.T) {
	s := newScene(t)
	s.factory(3)
	for name, l := range map[string]liar{
		"success":          {op: chip.OpSecureBoot, answer: []byte{0}},
		"a MAC of its own": {op: chip.OpSecureBoot, answer: make([]byte, 32)},
		"a low counter":    {op: chip.OpCounter, answer: make([]byte, 4)},
		"its own counter":  {op: chip.OpMAC, answer: make([]byte, 32)},
	} {
		l.Chip = s.chip
		s.chip.PowerCycle()
		e, err := NewElement(l, s.ioKey)
		if err != nil {
			t.Fatal(err)
		}
		d := &Device{Element: e, Flash: s.flash, Hardware: "rev-c", Product: "meter-3"}
		if _, err := d.Boot(); !errors.Is(err, ErrBus) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClosed: what runs cannot have the element take another image for booted, and the
// key that waits for a verified boot is of use after one only.
func TestClosed(t *testing.T) {
	s := newScene(t)
	d, err := s.on(&Power{})
	if err != nil {
		t.Fatal(err)
	}
	about := evidence.About{DevEUI: lorawan.EUI64{1}}
	if _, err := d.Element.Evidence(about); !errors.Is(err, chip.Refused) {
		t.Errorf("signed before a boot: %v", err)
	}
	d, r := s.factory(3)
	i, err := firmware.ReadImage(bytes.NewReader(s.image(4)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Element.Accept(i.Digest, i.Signature); !errors.Is(err, chip.Refused) {
		t.Errorf("a second image after the boot: %v", err)
	}
	b, err := d.Element.Evidence(about)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.CheckConfig(); err != nil {
		t.Error(err)
	}
	if b.Digest != r.Digest || b.Counter != 3 {
		t.Errorf("it says that %x booted at %d", b.Digest, b.Counter)
	}
	public, err := d.Element.BootKey()
	if err != nil {
		t.Fatal(err)
	}
	if !firmware.VerifyRS(public, b.SigningDigest(about), b.Signature) {
		t.Error("the evidence of the boot does not verify")
	}
}

// TestMadeUp: whoever is on the bus of a device that booted has the element sign a
// TempKey of his own, as it would be after a counter and a configuration that he made
// up. The element signs, and says that the host gave what TempKey began with: it is
// evidence of nothing.
func TestMadeUp(t *testing.T) {
	s := newScene(t)
	d, _ := s.factory(3)
	about := evidence.About{Challenge: [32]byte{7}, DevEUI: lorawan.EUI64{1}}
	honest, err := d.Element.Evidence(about)
	if err != nil {
		t.Fatal(err)
	}
	public, err := d.Element.BootKey()
	if err != nil {
		t.Fatal(err)
	}
	other := about
	other.Challenge[31] = 1
	if !firmware.VerifyRS(public, honest.SigningDigest(about), honest.Signature) || firmware.VerifyRS(public, honest.SigningDigest(other), honest.Signature) {
		t.Fatal("honest evidence is not of its challenge, or of another one, too")
	}

	// TempKey after GenDig 00, 05 and 04, computed off the chip.
	lie := honest
	lie.Counter, lie.Config[0] = 1, lie.Config[0]^1
	sn, zeros := d.Element.serial, make([]byte, 32)
	genDig := func(temp [32]byte, value []byte, zone, id byte, tail ...byte) [32]byte {
		return sum(value, []byte{genDigHash, zone, id, 0, sn[8], sn[0], sn[1]}, tail, zeros[:25-len(tail)], temp[:])
	}
	numIn := evidence.NumIn(about)
	before := sum(lie.Random[:], numIn[:], []byte{nonceHashMode, nonceRandom, 0})
	before = genDig(before, lie.Config[:], digConfig, 2)
	before = genDig(before, zeros, digKeyConfig, chip.SlotBootKey, 0, byte(lie.KeySlotConfig), byte(lie.KeySlotConfig>>8), byte(lie.KeyKeyConfig), byte(lie.KeyKeyConfig>>8), 1)
	temp := genDig(before, zeros, digCounter, chip.BootCounter, 0, byte(lie.Counter))

	// What the element signs then: all as in evidence, with the flags that stand there.
	last := genDig(temp, lie.Digest[:], digData, chip.SlotBootDigest)
	message := func(flags byte) [32]byte {
		return sum(last[:], []byte{0x41, signInternal, chip.SlotBootKey, 0},
			[]byte{byte(lie.DigestSlotConfig), byte(lie.DigestSlotConfig >> 8), byte(lie.DigestKeyConfig), byte(lie.DigestKeyConfig >> 8)},
			[]byte{flags, 0, 0, sn[8]}, sn[4:8], sn[:4], []byte{1, 0, 0})
	}
	const random, given = chip.SlotBootDigest | 0x20, chip.SlotBootDigest | 0x30
	if message(random) != lie.SigningDigest(about) {
		t.Fatal("the attack is not on what a server verifies")
	}
	for name, put := range map[string]func() error{
		"Nonce": func() error {
			_, err := d.Element.do(chip.OpNonce, nonceGiven, 0, temp[:]...)
			return err
		},
		// What TempKey is after GenDig 04 is a hash that SHA makes as well.
		"SHA": func() error {
			input := append(append([]byte{}, zeros...), genDigHash, digCounter, chip.BootCounter, 0, sn[8], sn[0], sn[1], 0, byte(lie.Counter))
			input = append(append(input, zeros[:23]...), before[:]...)
			const start, update, endToTempKey = 0, 1, 2
			if _, err := d.Element.do(chip.OpSHA, start, 0); err != nil {
				return err
			}
			if _, err := d.Element.do(chip.OpSHA, update, 64, input[:64]...); err != nil {
				return err
			}
			made, err := d.Element.do(chip.OpSHA, endToTempKey, 32, input[64:]...)
			if err == nil && !bytes.Equal(made, temp[:]) {
				t.Error("SHA makes another TempKey")
			}
			return err
		},
	} {
		if err := put(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := d.Element.do(chip.OpGenDig, digData, chip.SlotBootDigest); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		signature, err := d.Element.do(chip.OpSign, signInternal, chip.SlotBootKey)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		copy(lie.Signature[:], signature)
		if firmware.VerifyRS(public, lie.SigningDigest(about), lie.Signature) {
			t.Errorf("%s: a made-up counter and configuration verify", name)
		}
		if !firmware.VerifyRS(public, message(given), lie.Signature) {
			t.Errorf("%s: it fails for another reason than where TempKey came from", name)
		}
	}
}

// TestLocked: nobody on the bus replaces the maker's key, the digest, the key of the
// bus, the boot key or the configuration, or reads what is secret.
func TestLocked(t *testing.T) {
	s := newScene(t)
	d, _ := s.factory(3)
	const block = 0x82
	for _, slot := range []uint16{chip.SlotBootKey, chip.SlotBootDigest, slotIO, chip.SlotReleaseKey} {
		if _, err := d.Element.do(chip.OpWrite, block, slot<<3, make([]byte, 32)...); !errors.Is(err, chip.Refused) {
			t.Errorf("slot %d was written: %v", slot, err)
		}
	}
	for _, slot := range []uint16{chip.SlotBootKey, slotIO} {
		if _, err := d.Element.do(chip.OpRead, block, slot<<3); !errors.Is(err, chip.Refused) {
			t.Errorf("slot %d was read: %v", slot, err)
		}
	}
	if _, err := d.Element.do(chip.OpWrite, 0, 70/4, 0, 0, 0, 0); !errors.Is(err, chip.Refused) {
		t.Errorf("the configuration was written: %v", err)
	}
	if _, err := d.Element.do(chip.OpGenKey, 4, chip.SlotBootKey); !errors.Is(err, chip.Refused) {
		t.Errorf("another boot key was drawn: %v", err)
	}
}

// TestBench: a device in a directory is the same after the process ended.
func TestBench(t *testing.T) {
	m, dir := newMaker(t), t.TempDir()+"/device"
	image, err := tnglora.Image(tnglora.Content{Serial: [9]byte{1, 0x23, 8: 0x27}, NwkKey: make([]byte, 16), AppKey: make([]byte, 16)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a device that was not made was opened")
	}
	if err := Make(dir, Content{Product: "meter-3", Hardware: "rev-c", ReleaseKey: &m.key.PublicKey, Element: image}); err != nil {
		t.Fatal(err)
	}
	for counter := uint32(1); counter < 4; counter++ {
		b, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		d, err := b.PowerOn(&Power{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.Boot()
		if counter == 1 {
			r.Place = 1 // nothing runs: the factory writes the first place
		} else if err != nil || r.Counter != counter-1 {
			t.Fatalf("%d, %v", r.Counter, err)
		} else if err := d.Confirm(r); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Install(r, bytes.NewReader(m.image(counter))); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
