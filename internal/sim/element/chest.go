package element

import (
	"slices"

	"joinery/lorawan"
)

// Chest keeps many elements in little space: 48 bytes each instead of some five
// hundred. Who needs one takes it out, new, and leaves it to the collector. It
// keeps the rule of elements: keys go in and do not come out. Device keys, which
// no join needs, it does not keep.
//
// Safe for concurrent use once nothing is added any more.
type Chest struct {
	rows []kept
	// joinEUIs are those that rows share; places gives where one stands.
	joinEUIs []lorawan.EUI64
	places   map[lorawan.EUI64]uint32
}

// kept is an element without its scratch space.
type kept struct {
	devEUI   lorawan.EUI64
	joinEUI  uint32  // place in joinEUIs
	has      [2]bool // NwkKey, AppKey
	nwk, app [KeySize]byte
}

// Grow makes room for n elements more.
func (c *Chest) Grow(n int) { c.rows = slices.Grow(c.rows, n) }

// Add puts an element in, behind the others.
func (c *Chest) Add(e *Element) {
	place, known := c.places[e.joinEUI]
	if !known {
		if c.places == nil {
			c.places = map[lorawan.EUI64]uint32{}
		}
		place = uint32(len(c.joinEUIs))
		c.places[e.joinEUI] = place
		c.joinEUIs = append(c.joinEUIs, e.joinEUI)
	}
	c.rows = append(c.rows, kept{
		devEUI: e.devEUI, joinEUI: place, has: [2]bool{e.Has(NwkKey), e.Has(AppKey)},
		nwk: e.slots[NwkKey].key, app: e.slots[AppKey].key,
	})
}

// Len gives how many elements there are.
func (c *Chest) Len() int { return len(c.rows) }

// Take makes an element as it was when it was added, without its device key. The
// chest keeps its own.
func (c *Chest) Take(i int) *Element {
	k := &c.rows[i]
	e := &Element{joinEUI: c.joinEUIs[k.joinEUI], devEUI: k.devEUI, root10: AppKey}
	if k.has[0] {
		e.root10 = NwkKey
		e.slots[NwkKey].filled, e.slots[NwkKey].key = true, k.nwk
	}
	if k.has[1] {
		e.slots[AppKey].filled, e.slots[AppKey].key = true, k.app
	}
	return e
}
