package refusal

import "joinery"

// ForOwner says what happened and what to do about it, in the words of the
// device's owner.
func ForOwner(c joinery.RefusalCount) (what, remedy string) {
	e := explain(c, toOwner)
	return e.What, e.Remedy
}
