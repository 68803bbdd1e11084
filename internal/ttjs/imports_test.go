package ttjs

import (
	"testing"

	"joinery"
)

// No organisation imports twice at once, and so takes no room of another.
func TestRoomForImports(t *testing.T) {
	var i importing
	one, two, three := joinery.OrgID(1), joinery.OrgID(2), joinery.OrgID(3)
	leave, err := i.enter(one)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.enter(one); joinery.CodeOf(err) != joinery.CodeRateLimited {
		t.Errorf("a second one of the same: %v", err)
	}
	if _, err := i.enter(two); err != nil {
		t.Fatal(err)
	}
	if _, err := i.enter(three); joinery.CodeOf(err) != joinery.CodeUnavailable {
		t.Errorf("a third one: %v", err)
	}
	leave()
	if _, err := i.enter(three); err != nil {
		t.Errorf("one has left: %v", err)
	}
}
