package activation

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// resetWindow is how long an operator's reset of DevNonces stays open.
const resetWindow = 24 * time.Hour

// within tells whether at lies at most window before now. It closes when the
// clock went backwards: a window must never reopen.
func within(now, at time.Time, window time.Duration) bool {
	age := now.Sub(at)
	return age >= 0 && age <= window
}

// takeDevNonce judges a DevNonce by the provisioned version and gives the
// nonces after it was accepted. Devices from 1.0.4 on count upwards
// (TS001-1.0.4 §6.2.5); for older ones every DevNonce ever accepted is
// remembered (TS001-1.0.3 §6.2.4 "a certain number": all of them).
func takeDevNonce(state joinery.ActivationState, joinEUI lorawan.EUI64, dn lorawan.DevNonce, now time.Time) (joinery.Nonces, error) {
	n := state.KeySet.Nonces
	e := n.For(joinEUI)
	counts := state.Device.MACVersion.CountsDevNonces()
	if !n.ResetAt.IsZero() && within(now, n.ResetAt, resetWindow) {
		e.Next, e.Used = 0, joinery.DevNonceSet{}
		n.ResetAt = time.Time{}
	}
	switch {
	case counts && e.Next > uint32(lorawan.MaxDevNonce), !counts && e.Used.Len() > int(lorawan.MaxDevNonce):
		err := joinery.Errorf(joinery.CodeExhausted, "the device has used all its DevNonces under this JoinEUI")
		return n, joinery.Refuse(joinery.RefusedDevNonceEnd, err)
	case counts && uint32(dn) < e.Next:
		err := joinery.Errorf(joinery.CodeReplay, "DevNonce %d is not above %d, the last one accepted", dn, e.Next-1)
		return n, tooLow(joinery.RefusedDevNonceLow, e.Next, err)
	case !counts && e.Used.Has(dn):
		return n, joinery.Refuse(joinery.RefusedDevNonceUsed, joinery.Errorf(joinery.CodeReplay, "DevNonce %d was used before", dn))
	case counts:
		e.Next = uint32(dn) + 1
	default:
		e.Used = e.Used.With(dn)
	}
	return n.With(e), nil
}

// takeRJCount judges the counter of a rejoin-request whose MIC was verified,
// and gives the nonces after it was accepted. RJcount0 counts in its session,
// RJcount1 for the life of the device under its JoinEUI (TS001-1.1 §6.2.4).
func takeRJCount(n joinery.Nonces, joinEUI lorawan.EUI64, frame lorawan.RejoinRequest, session *joinery.Activation) (joinery.Nonces, error) {
	if frame.Type == lorawan.Rejoin1 {
		e := n.For(joinEUI)
		if err := checkRJCount(frame.RJCount, e.NextRJCount1, "RJcount1"); err != nil {
			return n, err
		}
		e.NextRJCount1 = uint32(frame.RJCount) + 1
		return n.With(e), nil
	}
	recent := append([]joinery.RecentActivation(nil), n.Recent...)
	for i := range recent {
		if recent[i].ID != session.ID {
			continue
		}
		if err := checkRJCount(frame.RJCount, recent[i].NextRJCount0, "RJcount0"); err != nil {
			return n, err
		}
		recent[i].NextRJCount0 = uint32(frame.RJCount) + 1
	}
	n.Recent = recent
	return n, nil
}

func checkRJCount(count lorawan.RJCount, next uint32, name string) error {
	switch {
	case next > uint32(lorawan.MaxRJCount):
		return joinery.Refuse(joinery.RefusedRJCountEnd, joinery.Errorf(joinery.CodeExhausted, "%s is at its end; the device has to join", name))
	case uint32(count) < next:
		err := joinery.Errorf(joinery.CodeReplay, "%s %d is not above %d, the last one accepted", name, count, next-1)
		return tooLow(joinery.RefusedRJCountLow, next, err)
	}
	return nil
}

// checkJoinNonce refuses when no JoinNonce is left (TS001-1.0.4 §6.2.6: 24
// bits, never repeated).
func checkJoinNonce(n joinery.Nonces) error {
	if n.JoinNonce >= lorawan.MaxJoinNonce {
		return joinery.Refuse(joinery.RefusedJoinNonceEnd, joinery.Errorf(joinery.CodeExhausted, "the key set has used all its JoinNonces"))
	}
	return nil
}

// watchCounters raises an alarm for each counter that this activation moved
// and of which less than a tenth is left.
func (s *Service) watchCounters(state joinery.ActivationState, n joinery.Nonces, a joinery.Activation) {
	raise := func(counter string, used, size uint64) {
		if used*10 < size*9 {
			return
		}
		s.alarm(counter)
		s.log.Warn("a counter of a device nears its end",
			"counter", counter, "used", used, "of", size, "DevEUI", a.DevEUI, "JoinEUI", a.JoinEUI)
	}
	raise("JoinNonce", uint64(n.JoinNonce), uint64(lorawan.MaxJoinNonce))
	switch e := n.For(a.JoinEUI); {
	case a.Type == joinery.JoinTypeRejoin1:
		raise("RJcount1", uint64(e.NextRJCount1), 1<<16)
	case a.Type == joinery.JoinTypeRejoin0, a.Type == joinery.JoinTypeRejoin2:
		raise("RJcount0", uint64(a.Count)+1, 1<<16)
	case state.Device.MACVersion.CountsDevNonces():
		raise("DevNonce", uint64(e.Next), 1<<16)
	default:
		raise("DevNonce", uint64(e.Used.Len()), 1<<16)
	}
}
