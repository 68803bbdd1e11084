package activation

import (
	"testing"

	"joinery"
	"joinery/lorawan"
)

func TestIsHome(t *testing.T) {
	net13, net42 := lorawan.NetID{0, 0, 0x13}, lorawan.NetID{0, 0, 0x42}
	a, b := lorawan.EUI64{1}, lorawan.EUI64{2}
	both := joinery.Peer{NetIDs: []lorawan.NetID{net13}, NSIDs: []lorawan.EUI64{a}}
	tests := []struct {
		name    string
		binding joinery.Binding
		asker   Requester
		want    bool
	}{
		{"its NetID", joinery.Binding{NetID: net13}, Requester{Peer: both, NetID: net13}, true},
		{"another NetID", joinery.Binding{NetID: net13}, Requester{Peer: both, NetID: net42}, false},
		{"any NSID where the owner named none", joinery.Binding{NetID: net13}, Requester{Peer: both, NetID: net13, NSID: b}, true},
		{"its NSID", joinery.Binding{NetID: net13, NSID: a}, Requester{Peer: both, NetID: net13, NSID: a}, true},
		{"another NSID", joinery.Binding{NetID: net13, NSID: a}, Requester{Peer: both, NetID: net13, NSID: b}, false},
		{"no NSID said, peer holds it", joinery.Binding{NetID: net13, NSID: a}, Requester{Peer: both, NetID: net13}, true},
		{"no NSID said, peer lacks it", joinery.Binding{NetID: net13, NSID: b}, Requester{Peer: both, NetID: net13}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := isHome(tt.binding, tt.asker); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// A peer may only make the owner's policy stricter, and clear needs both.
func TestAppSKeyPolicy(t *testing.T) {
	const inClear, wrapped, byID = joinery.AppSKeyClear, joinery.AppSKeyWrapped, joinery.AppSKeyByID
	tests := []struct {
		owner, peer joinery.AppSKeyPolicy
		consent     bool
		want        joinery.AppSKeyPolicy
	}{
		{inClear, inClear, true, inClear},
		{inClear, inClear, false, wrapped},
		{inClear, wrapped, true, wrapped},
		{inClear, byID, true, byID},
		{wrapped, inClear, true, wrapped},
		{wrapped, byID, true, byID},
		{byID, inClear, true, byID},
		{byID, wrapped, false, byID},
	}
	for _, tt := range tests {
		peer := joinery.Peer{AppSKeyAtLeast: tt.peer, ClearKeys: tt.consent}
		if got := appSKeyPolicy(peer, joinery.Binding{Policy: tt.owner}); got != tt.want {
			t.Errorf("owner %s, peer %s, consent %v: got %s, want %s", tt.owner, tt.peer, tt.consent, got, tt.want)
		}
	}
}
