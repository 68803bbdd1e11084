package claim

import (
	"context"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Status gives the binding by which a peer's Application Server has a device, be
// it a claim's or the owner's. Refusals: ErrNotProvisioned, ErrNotClaimed and
// ErrHeldByOther; to a peer from which devices are hidden the last for all three.
// CodeInvalid where the peer has several devices with this DevEUI.
func (n *Networks) Status(ctx context.Context, peer joinery.Peer, d NetworkDevice) (joinery.Binding, error) {
	begun := time.Now()
	state, err := n.held(ctx, peer, d)
	if err != nil {
		n.hideTime(ctx, peer, begun)
		return joinery.Binding{}, err
	}
	return *state.Binding, nil
}

// hideTime keeps a refusal back for a while where time could tell what the answer
// must not.
func (n *Networks) hideTime(ctx context.Context, peer joinery.Peer, begun time.Time) {
	if peer.HideExistence {
		wait(ctx, time.Until(begun.Add(n.hold)))
	}
}

// Unclaim ends the binding that a claim of this peer's made, locked or not. The
// device can be claimed again with the same token. Refusals are those of Status;
// a binding of the owner's is ErrHeldByOther.
func (n *Networks) Unclaim(ctx context.Context, peer joinery.Peer, d NetworkDevice) error {
	begun := time.Now()
	err := n.unclaim(ctx, peer, d)
	if err != nil {
		n.hideTime(ctx, peer, begun)
	}
	return err
}

func (n *Networks) unclaim(ctx context.Context, peer joinery.Peer, d NetworkDevice) error {
	state, err := n.held(ctx, peer, d)
	if err != nil {
		return err
	}
	if state.Binding.Source != "network" {
		return ErrHeldByOther
	}
	return n.bind(ctx, peer, state, nil)
}

// UnclaimAll unclaims devices one by one; what fails keeps none of the others
// back. It gives the failures, by DevEUI.
func (n *Networks) UnclaimAll(ctx context.Context, peer joinery.Peer, devEUIs []lorawan.EUI64) map[lorawan.EUI64]error {
	begun := time.Now()
	failed := make(map[lorawan.EUI64]error)
	done := make(map[lorawan.EUI64]bool, len(devEUIs))
	for _, devEUI := range devEUIs {
		if done[devEUI] {
			continue
		}
		done[devEUI] = true
		err := ctx.Err()
		if err == nil {
			err = n.unclaim(ctx, peer, NetworkDevice{DevEUI: devEUI})
		}
		if err != nil {
			failed[devEUI] = err
		}
	}
	if len(failed) > 0 {
		// As long for what it has to hide as that took, and in proportion.
		n.hideTime(ctx, peer, begun.Add(time.Duration(len(failed)-1)*n.hold/50))
	}
	return failed
}

// held finds the one device that d means and that is bound to peer.
func (n *Networks) held(ctx context.Context, peer joinery.Peer, d NetworkDevice) (joinery.ActivationState, error) {
	states, err := n.find(ctx, d)
	if err != nil {
		return joinery.ActivationState{}, err
	}
	var own []joinery.ActivationState
	others := peer.HideExistence
	for _, s := range states {
		if holds(s.Binding, peer) {
			own = append(own, s)
		} else if s.Binding != nil {
			others = true
		}
	}
	switch {
	case len(own) == 1:
		return own[0], nil
	case len(own) > 1:
		return joinery.ActivationState{}, joinery.Errorf(joinery.CodeInvalid,
			"this client has claimed several devices with this DevEUI, under different JoinEUIs: say which with ?joinEUI=")
	case others:
		return joinery.ActivationState{}, ErrHeldByOther
	case len(states) > 0:
		return joinery.ActivationState{}, ErrNotClaimed
	}
	return joinery.ActivationState{}, ErrNotProvisioned
}
