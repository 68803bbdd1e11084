package refusal

import (
	"fmt"
	"slices"
	"strings"

	"joinery"
)

// Explained is refused requests of one kind, and what is said of them.
type Explained struct {
	joinery.RefusalCount
	// What happened, with the values; What to do about it; and, where things
	// changed since, why it may not matter any more.
	What    string
	Remedy  string
	Settled string
}

func wordsFor(reason joinery.RefusalReason) wording {
	i := slices.IndexFunc(wordings, func(w wording) bool { return w.reason == reason })
	if i < 0 { // a word of a newer version of this program
		return wording{reason: reason, means: "A reason that this version does not know.", remedy: "Upgrade the program that shows this.", what: func(x *joinery.Refusal, _ voice) string {
			return fmt.Sprintf("%s was refused for %q", who(x), string(x.Reason))
		}}
	}
	return wordings[i]
}

func explain(c joinery.RefusalCount, v voice) Explained {
	w := wordsFor(c.Reason)
	e := Explained{RefusalCount: c, What: w.what(&c.Refusal, v) + ".", Remedy: w.remedy}
	if w.hint != nil {
		if hint := w.hint(&c.Refusal); hint != "" {
			e.What += " " + hint
		}
	}
	return e
}

// explainTotal explains counts of many devices, whose states differed.
func explainTotal(c joinery.RefusalCount) Explained {
	w := wordsFor(c.Reason)
	return Explained{RefusalCount: c, What: w.means, Remedy: w.remedy}
}

// settled says what changed since a refusal, as far as it would decide
// otherwise now. now is the device as it is.
func settled(c joinery.RefusalCount, now joinery.ActivationState) string {
	b := now.Binding
	switch c.Reason {
	case joinery.RefusedNotBound, joinery.RefusedOtherNetwork, joinery.RefusedNSIDMissing, joinery.RefusedOtherNSID:
		if b != nil && b.NetID == c.Received.NetID && (b.NSID.IsZero() || b.NSID == c.Received.NSID) {
			return "The binding was changed since, and allows it now."
		}
	case joinery.RefusedSuspended:
		if !now.Device.Suspended {
			return "The device was resumed since."
		}
	case joinery.RefusedLapsed:
		if now.Device.Service.RefuseAt.After(c.At) {
			return "The service was extended since."
		}
	case joinery.RefusedAttestation:
		if now.Device.Attested.At.After(c.At) {
			return "It was attested since."
		}
	case joinery.RefusedDevNonceLow, joinery.RefusedDevNonceUsed:
		if now.KeySet.Nonces.ResetAt.After(c.At) {
			return "A reset of its DevNonces was opened since."
		}
	case joinery.RefusedSessionEnded, joinery.RefusedOtherAS, joinery.RefusedSessionUnknown, joinery.RefusedNoRoaming:
		return "" // a join has nothing to do with it
	}
	if now.Device.LastJoinAt.After(c.At) {
		return "A join was accepted since."
	}
	return ""
}

// summary says in short sentences how a device stands, and what follows where
// nothing was refused.
func summary(s joinery.ActivationState, refusals int, v voice) (lines []string) {
	device := strings.ToUpper(v.device[:1]) + v.device[1:]
	if s.Binding == nil {
		lines = append(lines, device+" is bound to no network, so nobody can join it: 'joinctl bind DEVICE --net-id NETID --as-id AS-ID'.")
	} else {
		lines = append(lines, device+" may join through "+network(*s.Binding)+" only; AppSKey "+appSKey(*s.Binding)+".")
	}
	if s.Device.Suspended {
		lines = append(lines, "It is suspended, so every join is refused: 'joinctl device resume DEVICE' ends that.")
	}
	if !s.KeySet.Nonces.ResetAt.IsZero() {
		lines = append(lines, "A reset of its DevNonces is open: one join within 24 hours may have any.")
	}
	switch joined := !s.Device.LastJoinAt.IsZero(); {
	case refusals > 0:
	case joined:
		lines = append(lines, "Nothing about it was refused. Since its last join nobody asked for it.")
	default:
		lines = append(lines, fmt.Sprintf("It never joined, and nobody ever asked for it: no join-request of JoinEUI %s and DevEUI %s arrived here. ", s.Device.JoinEUI, s.Device.DevEUI)+
			"See that the device sends these two, that a gateway of the network hears it, and that the Network Server is set to ask this Join Server for that JoinEUI.")
	}
	if maySkipAppSKey(s) {
		lines = append(lines, "If its joins are accepted and the Application Server reads garbage: a driver of such elements takes the AppSKey of LoRaWAN 1.1 for derived "+
			"without asking the chip, which no Join Server can see. 'joinsim element check' tells its maker; with LoRaWAN 1.0.x it does not happen.")
	}
	return lines
}

// maySkipAppSKey tells whether a device may show what firmware with a widely used driver
// shows (docs/guides/firmware-developer.md): it is an element, whose 1.0.x would be
// served with NwkKey, speaks 1.1, and joined.
func maySkipAppSKey(s joinery.ActivationState) bool {
	return s.Device.MACVersion.HasTwoRootKeys() && s.KeySet.Root10 == joinery.NwkKey && !s.Device.LastJoinAt.IsZero()
}

func network(b joinery.Binding) string {
	if b.NSID.IsZero() {
		return "network " + b.NetID.String()
	}
	return fmt.Sprintf("network %s, Network Server %s", b.NetID, b.NSID)
}

func appSKey(b joinery.Binding) string {
	as := "nobody: the binding names no Application Server"
	if b.ASID != "" {
		as = b.ASID
	}
	switch b.Policy {
	case joinery.AppSKeyClear:
		return "travels in the clear"
	case joinery.AppSKeyByID:
		return "is fetched by " + as
	}
	return "travels wrapped for " + as
}

// tellsDevices are reasons that a requester may not tell apart, as the wire does
// not: of the first, whether a device is here; of the rest, what state it is in,
// which is its owner's to know. They are what the requester is told instead.
var tellsDevices = map[joinery.RefusalReason]joinery.RefusalReason{
	joinery.RefusedNotBound:     joinery.RefusedUnknownDevice,
	joinery.RefusedOtherNetwork: joinery.RefusedUnknownDevice,
	joinery.RefusedNSIDMissing:  joinery.RefusedUnknownDevice,
	joinery.RefusedOtherNSID:    joinery.RefusedUnknownDevice,
	joinery.RefusedOtherAS:      joinery.RefusedSessionUnknown,
	joinery.RefusedSessionEnded: joinery.RefusedSessionUnknown,
	joinery.RefusedNoSession:    joinery.RefusedMIC,
	joinery.RefusedNoAS:         joinery.RefusedASKEK,
}

// folded gives totals as the peer itself may see them.
func folded(totals []joinery.RefusalCount) (list []joinery.RefusalCount) {
	for _, c := range totals {
		if told, secret := tellsDevices[c.Reason]; secret {
			c.Reason = told
		}
		i := slices.IndexFunc(list, func(o joinery.RefusalCount) bool { return o.Reason == c.Reason })
		if i < 0 {
			list = append(list, c)
			continue
		}
		old := &list[i]
		c.Count += old.Count
		if old.First.Before(c.First) {
			c.First = old.First
		}
		if old.At.After(c.At) {
			c.At, c.Received = old.At, old.Received
		}
		*old = c
	}
	return list
}
