package activation

import (
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

var (
	joinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 1}
	noon    = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
)

func stateWith(v lorawan.MACVersion, e joinery.JoinEUINonces) joinery.ActivationState {
	e.JoinEUI = joinEUI
	return joinery.ActivationState{
		Device: joinery.Device{MACVersion: v},
		KeySet: joinery.KeySet{Nonces: joinery.Nonces{}.With(e)},
	}
}

func TestTakeDevNonce(t *testing.T) {
	full := joinery.DevNonceSet{}
	for v := range 1 << 16 {
		full = full.With(lorawan.DevNonce(v))
	}
	some := joinery.DevNonceSet{}.With(7).With(9)
	tests := []struct {
		name    string
		version lorawan.MACVersion
		before  joinery.JoinEUINonces
		dn      lorawan.DevNonce
		want    joinery.Code
	}{
		{"counter starts at 0", lorawan.MAC1_0_4, joinery.JoinEUINonces{}, 0, ""},
		{"counter may start at 1", lorawan.MAC1_1, joinery.JoinEUINonces{}, 1, ""},
		{"counter may leave gaps", lorawan.MAC1_1, joinery.JoinEUINonces{Next: 8}, 900, ""},
		{"counter repeats", lorawan.MAC1_0_4, joinery.JoinEUINonces{Next: 8}, 7, joinery.CodeReplay},
		{"counter goes back", lorawan.MAC1_0_4, joinery.JoinEUINonces{Next: 8}, 3, joinery.CodeReplay},
		{"counter at 0 again", lorawan.MAC1_1, joinery.JoinEUINonces{Next: 1}, 0, joinery.CodeReplay},
		{"last counter value", lorawan.MAC1_0_4, joinery.JoinEUINonces{Next: 65535}, 65535, ""},
		{"counter is at its end", lorawan.MAC1_0_4, joinery.JoinEUINonces{Next: 65536}, 65535, joinery.CodeExhausted},
		{"counter is at its end, other value", lorawan.MAC1_1, joinery.JoinEUINonces{Next: 65536}, 0, joinery.CodeExhausted},
		{"random, new", lorawan.MAC1_0_3, joinery.JoinEUINonces{Used: some}, 8, ""},
		{"random, lower than all", lorawan.MAC1_0_0, joinery.JoinEUINonces{Used: some}, 0, ""},
		{"random, used", lorawan.MAC1_0_2, joinery.JoinEUINonces{Used: some}, 9, joinery.CodeReplay},
		{"random, all used", lorawan.MAC1_0_1, joinery.JoinEUINonces{Used: full}, 9, joinery.CodeExhausted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			state := stateWith(tt.version, tt.before)
			after, err := takeDevNonce(state, joinEUI, tt.dn, noon)
			if got := joinery.CodeOf(err); got != tt.want {
				t.Fatalf("code %q, want %q (%v)", got, tt.want, err)
			}
			if err != nil {
				return
			}
			state.KeySet.Nonces = after
			if _, err := takeDevNonce(state, joinEUI, tt.dn, noon); err == nil {
				t.Error("the accepted DevNonce is accepted again")
			}
			other := lorawan.EUI64{1}
			if _, err := takeDevNonce(state, other, tt.dn, noon); err != nil {
				t.Errorf("another JoinEUI is affected: %v", err)
			}
		})
	}
}

func TestTakeDevNonceDoesNotChangeWhatItRead(t *testing.T) {
	state := stateWith(lorawan.MAC1_0_3, joinery.JoinEUINonces{Used: joinery.DevNonceSet{}.With(1)})
	if _, err := takeDevNonce(state, joinEUI, 2, noon); err != nil {
		t.Fatal(err)
	}
	if state.KeySet.Nonces.For(joinEUI).Used.Has(2) {
		t.Error("the loaded state was changed; a lost swap would keep it")
	}
}

func TestResetOpensOneJoinWithinADay(t *testing.T) {
	tests := []struct {
		name string
		now  time.Time
		ok   bool
	}{
		{"at once", noon, true},
		{"a day later", noon.Add(24 * time.Hour), true},
		{"after a day", noon.Add(24*time.Hour + time.Millisecond), false},
		{"the clock went back", noon.Add(-time.Millisecond), false},
		{"the clock went back ten years", noon.AddDate(-10, 0, 0), false},
	}
	for _, version := range []lorawan.MACVersion{lorawan.MAC1_0_3, lorawan.MAC1_0_4} {
		for _, tt := range tests {
			t.Run(version.String()+" "+tt.name, func(t *testing.T) {
				state := stateWith(version, joinery.JoinEUINonces{Next: 65536, Used: joinery.DevNonceSet{}.With(5)})
				state.KeySet.Nonces.ResetAt = noon
				after, err := takeDevNonce(state, joinEUI, 5, tt.now)
				if (err == nil) != tt.ok {
					t.Fatalf("accepted %v, want %v: %v", err == nil, tt.ok, err)
				}
				if err != nil {
					return
				}
				if !after.ResetAt.IsZero() {
					t.Error("the reset stays open after its one join")
				}
				state.KeySet.Nonces = after
				if _, err := takeDevNonce(state, joinEUI, 5, tt.now); err == nil {
					t.Error("the new floor does not hold")
				}
			})
		}
	}
}

func TestTakeRJCount(t *testing.T) {
	session := &joinery.Activation{ID: 42}
	n := joinery.Nonces{Recent: []joinery.RecentActivation{{ID: 99, NextRJCount0: 500}, {ID: 42, NextRJCount0: 3}}}
	n = n.With(joinery.JoinEUINonces{JoinEUI: joinEUI, NextRJCount1: 7})
	tests := []struct {
		typ   lorawan.RejoinType
		count lorawan.RJCount
		want  joinery.Code
	}{
		{lorawan.Rejoin0, 3, ""},
		{lorawan.Rejoin2, 65535, ""},
		{lorawan.Rejoin0, 2, joinery.CodeReplay},
		{lorawan.Rejoin2, 0, joinery.CodeReplay},
		{lorawan.Rejoin1, 7, ""},
		{lorawan.Rejoin1, 6, joinery.CodeReplay},
	}
	for _, tt := range tests {
		after, err := takeRJCount(n, joinEUI, lorawan.RejoinRequest{Type: tt.typ, RJCount: tt.count}, session)
		if got := joinery.CodeOf(err); got != tt.want {
			t.Errorf("type %d count %d: code %q, want %q", tt.typ, tt.count, got, tt.want)
			continue
		}
		if err != nil {
			continue
		}
		if after.Recent[0].NextRJCount0 != 500 {
			t.Errorf("type %d: another session's RJcount0 moved", tt.typ)
		}
		if _, err := takeRJCount(after, joinEUI, lorawan.RejoinRequest{Type: tt.typ, RJCount: tt.count}, session); err == nil {
			t.Errorf("type %d count %d is accepted twice", tt.typ, tt.count)
		}
	}
	if n.Recent[1].NextRJCount0 != 3 {
		t.Error("the loaded state was changed; a lost swap would keep it")
	}
	n.Recent[1].NextRJCount0 = 65536
	_, err := takeRJCount(n, joinEUI, lorawan.RejoinRequest{Type: lorawan.Rejoin0, RJCount: 65535}, session)
	if joinery.CodeOf(err) != joinery.CodeExhausted {
		t.Errorf("RJcount0 at its end: %v", err)
	}
}

func TestWindowsCloseOnNegativeAge(t *testing.T) {
	for _, tt := range []struct {
		age  time.Duration
		want bool
	}{{0, true}, {repeatWindow, true}, {repeatWindow + 1, false}, {-1, false}, {-87600 * time.Hour, false}, {87600 * time.Hour, false}} {
		if got := within(noon.Add(tt.age), noon, repeatWindow); got != tt.want {
			t.Errorf("age %v: %v, want %v", tt.age, got, tt.want)
		}
	}
}
