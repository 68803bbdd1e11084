package bootloader

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"joinery/internal/firmware"
	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/flash"
)

// ErrPower is the error of every step after the power went.
var ErrPower = errors.New("the power went")

// Power is what a device runs on. Every chip command and every write to flash is a
// step; the power goes before step Off, counted from 1; 0: never.
type Power struct {
	Off   int
	Steps int // that were taken
}

// Gone tells whether the power went.
func (p *Power) Gone() bool { return p.Off > 0 && p.Steps+1 >= p.Off }

func (p *Power) step() error {
	if p.Gone() {
		return ErrPower
	}
	p.Steps++
	return nil
}

// poweredChip is a chip that answers while there is power.
type poweredChip struct {
	chip  Chip
	power *Power
}

// Execute answers FF, as an empty bus does, when the power went.
func (c poweredChip) Execute(packet []byte) []byte {
	if c.power.step() != nil {
		return []byte{0xFF}
	}
	return c.chip.Execute(packet)
}

// poweredFlash is a flash that is written while there is power. The write in which it
// goes is done in part.
type poweredFlash struct {
	Flash
	power *Power
}

func (f poweredFlash) Write(n int, image io.Reader) error {
	if err := f.power.step(); err != nil {
		first, _ := io.ReadAll(io.LimitReader(image, 300))
		return errors.Join(err, f.Flash.Write(n, bytes.NewReader(first)))
	}
	return f.Flash.Write(n, image)
}

func (f poweredFlash) SetRecord(b byte) error {
	if err := f.power.step(); err != nil {
		return err
	}
	return f.Flash.SetRecord(b)
}

// Content is what a device for development is made of.
type Content struct {
	Product, Hardware string
	// ReleaseKey is the maker's public key.
	ReleaseKey *ecdsa.PublicKey
	// Element is the image of a TNGLORA, which becomes one that verifies firmware.
	Element *chip.Image
	// IOKey is set where a factory made the element so: it is the key of its bus, and
	// Element and the release key in it stay as they are.
	IOKey *[32]byte
}

// Bench is a device on a bench: an element and a microcontroller, with a directory that
// is the memory of both. It holds keys in the clear, as they do, and is for simulated
// devices.
type Bench struct {
	dir  string
	file *flash.File
	chip *chip.Chip
	mcu  mcu
}

// mcu is what is built into a microcontroller with its bootloader.
type mcu struct {
	Product  string `json:"product"`
	Hardware string `json:"hardware"`
	IOKey    []byte `json:"ioKey"`
	// TokenKey is that of the root of trust: P-256, 32 bytes, big-endian.
	TokenKey []byte `json:"tokenKey"`
}

// The files of a bench.
const (
	elementFile = "element.state"
	mcuFile     = "mcu.json"
	recordFile  = "boot-record"

	// Public halves, for servers: of the key in slot 11, and of the root of trust.
	BootKeyFile  = "boot.pub"
	TokenKeyFile = "token.pub"
)

// Prepare puts into an element what it needs to verify firmware, and gives the key that
// the microcontroller gets, too.
func Prepare(c Content) (ioKey [32]byte, err error) {
	point, err := c.ReleaseKey.Bytes() // 04 ‖ X ‖ Y
	if err != nil || len(point) != 65 {
		return ioKey, errors.New("the maker's key is none on P-256")
	}
	boot, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return ioKey, err
	}
	rand.Read(ioKey[:])
	return ioKey, c.Element.SecureBoot([64]byte(point[1:]), [32]byte(boot.Bytes()), ioKey)
}

// Make makes the directory of a device.
func Make(dir string, c Content) error {
	if !firmware.ValidName(c.Product) || !firmware.ValidName(c.Hardware) {
		return errors.New("product and hardware: want letters, digits, dots, dashes, underscores and plus signs, 1 to 64")
	}
	var ioKey [32]byte
	if c.IOKey != nil {
		ioKey = *c.IOKey
	} else {
		var err error
		if ioKey, err = Prepare(c); err != nil {
			return err
		}
	}
	trust, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text, err := json.MarshalIndent(mcu{c.Product, c.Hardware, ioKey[:], trust.Bytes()}, "", "  ")
	if err != nil {
		return err
	}
	if err := flash.Create(filepath.Join(dir, elementFile), []*chip.Image{c.Element}); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, mcuFile), append(text, '\n'), 0o600); err != nil {
		return err
	}
	return publicKeys(dir)
}

// publicKeys writes what a verifier needs to know of a device, PEM.
func publicKeys(dir string) (err error) {
	b, err := Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	d, err := b.PowerOn(&Power{})
	if err != nil {
		return err
	}
	boot, err := d.Element.BootKey()
	if err != nil {
		return err
	}
	trust, err := b.trust()
	if err != nil {
		return err
	}
	for name, key := range map[string]*ecdsa.PublicKey{BootKeyFile: boot, TokenKeyFile: &trust.PublicKey} {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Open opens the directory of a device.
func Open(dir string) (b *Bench, err error) {
	text, err := os.ReadFile(filepath.Join(dir, mcuFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no device: make one with joinsim element make", dir)
	}
	b = &Bench{dir: dir}
	if err == nil {
		err = json.Unmarshal(text, &b.mcu)
	}
	if err != nil || len(b.mcu.IOKey) != 32 {
		return nil, fmt.Errorf("%s: damaged: %w", mcuFile, err)
	}
	if b.file, err = flash.Open(filepath.Join(dir, elementFile), false); err != nil {
		return nil, err
	}
	image, err := b.file.Image(0)
	if err != nil {
		return nil, errors.Join(err, b.file.Close())
	}
	b.chip = chip.New(image, chip.Options{Save: b.file.Saver(0)})
	return b, nil
}

// Close gives the files back.
func (b *Bench) Close() error { return b.file.Close() }

// trust is the key of the microcontroller's root of trust.
func (b *Bench) trust() (*ecdsa.PrivateKey, error) {
	if len(b.mcu.TokenKey) != 32 {
		return nil, fmt.Errorf("%s: it has no root of trust: make the device anew", b.dir)
	}
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), b.mcu.TokenKey)
}

// Chip gives the device's element, for what an application does with it.
func (b *Bench) Chip() *chip.Chip { return b.chip }

// PowerOn takes the power away, gives it back, and gives the device at its start.
func (b *Bench) PowerOn(p *Power) (*Device, error) {
	b.chip.PowerCycle()
	e, err := NewElement(poweredChip{b.chip, p}, [32]byte(b.mcu.IOKey))
	if err != nil {
		return nil, err
	}
	return &Device{Element: e, Flash: poweredFlash{dirFlash(b.dir), p}, Hardware: b.mcu.Hardware, Product: b.mcu.Product}, nil
}

// dirFlash is a flash whose places are files.
type dirFlash string

func (d dirFlash) place(n int) string {
	return filepath.Join(string(d), []string{"place-a.img", "place-b.img"}[n])
}

// Place implements Flash. A place that was never written is empty.
func (d dirFlash) Place(n int) (io.ReadCloser, error) {
	f, err := os.Open(d.place(n))
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return f, err
}

// Write implements Flash.
func (d dirFlash) Write(n int, image io.Reader) error {
	f, err := os.OpenFile(d.place(n), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, image)
	return errors.Join(err, f.Close())
}

// Record implements Flash.
func (d dirFlash) Record() (byte, error) {
	b, err := os.ReadFile(filepath.Join(string(d), recordFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return 0xFF, nil
	}
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// SetRecord implements Flash.
func (d dirFlash) SetRecord(b byte) error {
	f, err := os.OpenFile(filepath.Join(string(d), recordFile), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{b}, 0)
	return errors.Join(err, f.Close())
}
