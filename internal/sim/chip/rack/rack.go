// Package rack holds many emulated chips under power, each on a bus of its own, and
// finds them by name.
package rack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/bus"
	"joinery/internal/sim/chip/flash"
	"joinery/internal/sim/chip/tnglora"
)

// Options of Open.
type Options struct {
	// State is the file that keeps the chips' memory; "": it ends with the process.
	State string
	// Sync has each change on the disk before it is answered.
	Sync bool
	// Bus gives the options of the bus of chip i; nil: the zero value for all.
	Bus func(i int) bus.Options
	// Warn is called with the name of an element whose firmware encrypts payloads under
	// a key that no join derived; nil: nobody is told.
	Warn func(name string)
}

// Rack is chips under power. It is bus.Elements. Safe for concurrent use.
type Rack struct {
	slots []Slot
	names map[string]int
	file  *flash.File // nil: none
}

// Slot is one chip and what it is called.
type Slot struct {
	*bus.Bus
	Serial string
	DevEUI string // "" of a chip that has none
	chip   *chip.Chip
}

// Name gives the DevEUI, or the serial number of a chip that has none.
func (s *Slot) Name() string {
	if s.DevEUI != "" {
		return s.DevEUI
	}
	return s.Serial
}

// Chip gives the chip past its bus, for who looks at it and not through it.
func (s *Slot) Chip() *chip.Chip { return s.chip }

// Open puts chips under power. Where the state file is there, their memory is as it was
// left, and images, unless there are none, only say which chips are expected; else it
// is made from them.
func Open(images []*chip.Image, o Options) (_ *Rack, err error) {
	r := &Rack{names: map[string]int{}}
	if o.State != "" {
		if images, err = r.open(images, o); err != nil {
			return nil, err
		}
	}
	if len(images) == 0 {
		return nil, errors.New("no element: name a key list, silicon files, blank chips or a state file that is there")
	}
	for i, m := range images {
		options := chip.Options{}
		if r.file != nil {
			options.Save = r.file.Saver(i)
		}
		r.add(i, chip.New(m, options), o)
	}
	return r, nil
}

// open opens the state file, or makes it.
func (r *Rack) open(images []*chip.Image, o Options) (kept []*chip.Image, err error) {
	if _, err := os.Stat(o.State); errors.Is(err, fs.ErrNotExist) && len(images) > 0 {
		if err := flash.Create(o.State, images); err != nil {
			return nil, err
		}
	}
	if r.file, err = flash.Open(o.State, o.Sync); err != nil {
		return nil, err
	}
	fail := func(err error) ([]*chip.Image, error) {
		return nil, errors.Join(err, r.file.Close())
	}
	if len(images) > 0 && len(images) != r.file.Len() {
		return fail(fmt.Errorf("%s holds %d elements, not the %d that are named: name another state file", o.State, r.file.Len(), len(images)))
	}
	for i := range r.file.Len() {
		m, err := r.file.Image(i)
		if err != nil {
			return fail(err)
		}
		if len(images) > 0 && images[i].Serial() != m.Serial() {
			return fail(fmt.Errorf("%s holds other elements than are named, such as %X: name another state file", o.State, m.Serial()))
		}
		kept = append(kept, m)
	}
	return kept, nil
}

func (r *Rack) add(i int, c *chip.Chip, o Options) {
	s := Slot{Serial: fmt.Sprintf("%X", c.Serial()), chip: c}
	if devEUI, err := tnglora.NewDriver(c).DevEUI(); err == nil {
		s.DevEUI = strings.ToUpper(devEUI.String())
		r.names[s.DevEUI] = i
	}
	options := bus.Options{}
	if o.Bus != nil {
		options = o.Bus(i)
	}
	if o.Warn != nil {
		name, watch := s.Name(), options.Watch
		w := &bus.AppSKeyWatch{Warn: func() { o.Warn(name) }}
		options.Watch = func(packet, answer []byte) {
			w.Watch(packet, answer)
			if watch != nil {
				watch(packet, answer)
			}
		}
	}
	s.Bus = bus.New(c, options)
	r.names[s.Serial] = i
	r.slots = append(r.slots, s)
}

// Len gives how many chips there are.
func (r *Rack) Len() int { return len(r.slots) }

// Slot gives one by its place.
func (r *Rack) Slot(i int) *Slot { return &r.slots[i] }

// First implements bus.Elements.
func (r *Rack) First() *bus.Bus { return r.slots[0].Bus }

// Find implements bus.Elements: by DevEUI or serial number in hexadecimal digits, or by
// the place, from 0, behind a #.
func (r *Rack) Find(name string) *bus.Bus {
	if place, ok := strings.CutPrefix(name, "#"); ok {
		i, err := strconv.Atoi(place)
		if err != nil || i < 0 || i >= len(r.slots) {
			return nil
		}
		return r.slots[i].Bus
	}
	if i, ok := r.names[strings.ToUpper(name)]; ok {
		return r.slots[i].Bus
	}
	return nil
}

// Close gives the state file back.
func (r *Rack) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
