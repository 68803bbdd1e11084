package element

import "joinery/lorawan"

// Chest keeps many elements in little space: 50 bytes each instead of some five
// hundred. Who needs one takes it out, new, and leaves it to the collector. It
// keeps the rule of elements: keys go in and do not come out.
//
// Safe for concurrent use once nothing is added any more.
type Chest struct {
	rows []kept
	// joinEUIs are the few that rows have in common; joinEUI is an index.
	joinEUIs []lorawan.EUI64
}

// kept is an element without its scratch space.
type kept struct {
	devEUI   lorawan.EUI64
	joinEUI  uint16
	has      [2]bool // NwkKey, AppKey
	nwk, app [KeySize]byte
}

// maxJoinEUIs is how many JoinEUIs a chest tells apart.
const maxJoinEUIs = 1 << 16

// Grow makes room for n elements more.
func (c *Chest) Grow(n int) {
	rows := make([]kept, len(c.rows), len(c.rows)+n)
	copy(rows, c.rows)
	c.rows = rows
}

// Add puts an element in; false where it has one JoinEUI too many.
func (c *Chest) Add(e *Element) bool {
	k := kept{
		devEUI: e.devEUI, has: [2]bool{e.Has(NwkKey), e.Has(AppKey)},
		nwk: e.slots[NwkKey].key, app: e.slots[AppKey].key,
	}
	last := len(c.joinEUIs) - 1
	for last >= 0 && c.joinEUIs[last] != e.joinEUI {
		last--
	}
	if last < 0 {
		if len(c.joinEUIs) == maxJoinEUIs {
			return false
		}
		c.joinEUIs = append(c.joinEUIs, e.joinEUI)
		last = len(c.joinEUIs) - 1
	}
	k.joinEUI = uint16(last)
	c.rows = append(c.rows, k)
	return true
}

// Len gives how many elements there are.
func (c *Chest) Len() int { return len(c.rows) }

// Names gives the identifiers of an element.
func (c *Chest) Names(i int) (joinEUI, devEUI lorawan.EUI64) {
	return c.joinEUIs[c.rows[i].joinEUI], c.rows[i].devEUI
}

// Take makes an element as it was when it was added. The chest keeps its own.
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
