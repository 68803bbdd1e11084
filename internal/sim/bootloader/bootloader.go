// Package bootloader is the reference of a device's boot with an element that verifies
// firmware: what a bootloader in a microcontroller does, in Go, by chip commands and
// writes to flash alone.
//
// There are two places for images. A new image is written to the place that is not
// running, verified by the element, and only then preferred; it is tried a few times,
// and when it says that it works, the element's counter is counted up to its own, after
// which nothing older boots. Power may go at any step: the device boots the image that
// it had, or the new one.
package bootloader

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"joinery/internal/firmware"
)

// Flash is the memory of a microcontroller that outlives its power. A write that the
// power ends leaves any part of a place written; a record is one byte, and written
// whole or not.
type Flash interface {
	// Place reads a place for an image, 0 or 1.
	Place(n int) (io.ReadCloser, error)
	// Write erases a place and writes it.
	Write(n int, image io.Reader) error
	// Record reads the record; 0xFF before it was written.
	Record() (byte, error)
	SetRecord(b byte) error
}

// record is what a bootloader must remember, in one byte: the place that it prefers,
// whether the image there has said that it works, and how often it was tried before.
type record struct {
	preferred int
	confirmed bool
	tries     int
}

// MaxTries is how often a new image is started before the one before it is again.
const MaxTries = 3

func parseRecord(b byte) record {
	if b == 0xFF {
		return record{confirmed: true} // nothing was ever installed
	}
	return record{preferred: int(b & 1), confirmed: b&2 != 0, tries: int(b >> 2 & 7)}
}

func (r record) byte() byte {
	b := byte(r.preferred) | byte(min(r.tries, 7))<<2
	if r.confirmed {
		b |= 2
	}
	return b
}

// Device is a device at its start. One goroutine at a time.
type Device struct {
	Element *Element
	Flash   Flash
	// Hardware and Product are what its images must be made for. They are part of the
	// bootloader.
	Hardware, Product string
}

// Errors of a boot.
var (
	// ErrHardware: an image of another product or for other hardware.
	ErrHardware = errors.New("it is made for another product or other hardware")
	// ErrRollback: an image with a lower counter than the element's.
	ErrRollback = errors.New("it is older than what has run here: its counter is lower than the element's")
	// ErrNothing: no image can be started.
	ErrNothing = errors.New("there is no image that may be started")
)

// Running is an image that was started.
type Running struct {
	firmware.Image
	Place int
	// Trial is set of an image that has not said yet that it works.
	Trial bool
	// Refused says of each place that was looked at before why it was not started.
	Refused []error
}

// look reads the image of a place and holds what it says of itself against the device.
// That its signature is good the element says, and then so is what it says.
func (d *Device) look(place int, counter uint32) (i firmware.Image, err error) {
	in, err := d.Flash.Place(place)
	if err != nil {
		return i, err
	}
	defer func() { _ = in.Close() }()
	if i, err = firmware.ReadImage(in, nil); err != nil {
		return i, err
	}
	switch {
	case i.Product != d.Product || i.Hardware != d.Hardware:
		return i, fmt.Errorf("%w: %s on %s", ErrHardware, i.Product, i.Hardware)
	case i.Counter < counter:
		return i, fmt.Errorf("%w: %d, that is at %d", ErrRollback, i.Counter, counter)
	}
	return i, nil
}

// Boot starts an image, with the power just on: it asks the element for its counter,
// looks at the preferred place, then at the other, and starts the first image that the
// element verifies. ErrNothing, with the reasons.
func (d *Device) Boot() (r Running, err error) {
	counter, err := d.Element.Counter()
	if err != nil {
		return r, err
	}
	b, err := d.Flash.Record()
	if err != nil {
		return r, err
	}
	rec := parseRecord(b)
	order := []int{rec.preferred, 1 - rec.preferred}
	if !rec.confirmed && rec.tries >= MaxTries {
		// The new one had its chances. It is last and not gone: once the element has
		// begun to count, it is the only one.
		order = []int{1 - rec.preferred, rec.preferred}
	}
	for _, place := range order {
		image, err := d.look(place, counter)
		if err == nil {
			err = d.Element.Accept(image.Digest, image.Signature)
		}
		if err != nil {
			if !isReason(err) {
				return r, err
			}
			r.Refused = append(r.Refused, fmt.Errorf("place %c: %w", 'A'+rune(place), err))
			continue
		}
		return d.start(r, image, place, rec)
	}
	return r, errors.Join(append([]error{ErrNothing}, r.Refused...)...)
}

// isReason tells whether an error is about an image, and not about the device.
func isReason(err error) bool {
	for _, reason := range []error{ErrRefused, ErrHardware, ErrRollback, firmware.ErrImage} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// start notes a try of an image that is new, closes the element, and jumps.
func (d *Device) start(r Running, image firmware.Image, place int, rec record) (Running, error) {
	r.Image, r.Place = image, place
	r.Trial = place == rec.preferred && !rec.confirmed
	if r.Trial && rec.tries < MaxTries {
		rec.tries++
		if err := d.Flash.SetRecord(rec.byte()); err != nil {
			return r, err
		}
	}
	return r, d.Element.Close(image.Digest)
}

// Install writes a new image beside the running one, has the element verify it, and
// only then prefers it: the next boot tries it. One that is refused leaves the device
// as it was. The device runs all the while.
func (d *Device) Install(running Running, image io.Reader) (firmware.Image, error) {
	b, err := d.Flash.Record()
	if err != nil {
		return firmware.Image{}, err
	}
	place := 1 - running.Place
	if rec := parseRecord(b); rec.preferred == place && b != 0xFF {
		// What is written there is not to be tried in part.
		if err := d.Flash.SetRecord(record{preferred: running.Place, confirmed: true}.byte()); err != nil {
			return firmware.Image{}, err
		}
	}
	counter, err := d.Element.Counter()
	if err != nil {
		return firmware.Image{}, err
	}
	// What need not be written is not: its header says enough.
	head := make([]byte, firmware.HeaderLen)
	if _, err := io.ReadFull(image, head); err != nil {
		return firmware.Image{}, fmt.Errorf("%w: it was cut off", firmware.ErrImage)
	}
	h, err := firmware.ParseHeader(head)
	if err != nil {
		return firmware.Image{}, err
	}
	rest := io.LimitReader(image, h.Size()-firmware.HeaderLen)
	if err := d.Flash.Write(place, io.MultiReader(bytes.NewReader(head), rest)); err != nil {
		return firmware.Image{}, err
	}
	i, err := d.look(place, counter)
	if err == nil {
		err = d.Element.Verify(i.Digest, i.Signature)
	}
	if err != nil {
		return i, err
	}
	return i, d.Flash.SetRecord(record{preferred: place}.byte())
}

// Confirm is what a started image does when it found that it works: it counts the
// element's counter up to its own, one by one, and notes that it need not be tried
// again. Called again after the power went, it goes on where it stood.
func (d *Device) Confirm(r Running) error {
	counter, err := d.Element.Counter()
	if err != nil {
		return err
	}
	for ; counter < r.Counter; counter++ {
		if err := d.Element.CountUp(); err != nil {
			return err
		}
	}
	if !r.Trial {
		return nil
	}
	return d.Flash.SetRecord(record{preferred: r.Place, confirmed: true}.byte())
}
