package events

import (
	"context"
	"testing"
	"testing/synctest"

	"joinery"
)

// No organisation has more than its share, and all together no more than there
// are.
func TestSlotsAreBounded(t *testing.T) {
	s := newSlots()
	for org := joinery.OrgID(1); org <= 10; org++ {
		for range 100 {
			s.try(org)
		}
		if s.held[org] > orgSlots {
			t.Fatalf("an organisation has %d", s.held[org])
		}
	}
	if s.free != 0 || len(s.held) != allSlots/orgSlots {
		t.Errorf("%d are free, %d organisations have some", s.free, len(s.held))
	}
}

// Where all are taken, the next one goes to whoever has the fewest, and who
// gives up loses nothing.
func TestSlotsGoToWhoHasFewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots()
		s.free = orgSlots + 1
		const slow, other, late = 1, 2, 3
		for range orgSlots {
			if err := s.take(t.Context(), slow); err != nil {
				t.Fatal(err)
			}
		}
		if s.try(slow) || !s.try(other) {
			t.Error("what is left is not another's")
		}
		var came []joinery.OrgID
		ctx, giveUp := context.WithCancel(t.Context())
		for _, org := range []joinery.OrgID{slow, slow, other, late} {
			go func() {
				if s.take(ctx, org) == nil {
					came = append(came, org)
				}
			}()
			synctest.Wait()
		}
		for range 2 {
			s.give(slow)
			synctest.Wait()
		}
		if len(came) != 2 || came[0] != late || came[1] != other {
			t.Errorf("the next were %v", came)
		}
		giveUp()
		synctest.Wait()
		if len(s.waiting) != 0 {
			t.Errorf("%d wait that gave up", len(s.waiting))
		}
	})
}
