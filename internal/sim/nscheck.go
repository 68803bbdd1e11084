package sim

import (
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// AppSKeyWay is how AppSKey goes from a Join Server to the application.
type AppSKeyWay string

// The ways. As an expectation the empty one stands for "wrapped or by id"; as a
// finding for "not at all".
const (
	AppSKeyClear   AppSKeyWay = "clear"
	AppSKeyWrapped AppSKeyWay = "wrapped"
	AppSKeyByID    AppSKeyWay = "session-key-id"
)

// checkAnswer makes the Network Server's checks of a successful answer and
// fills keys with what it could unwrap.
func (n *NS) checkAnswer(r *Result, o JoinOptions, keys *[keyNames][element.KeySize]byte) {
	a, c := r.answer, &r.Checks
	wantLen := acceptLen(r.Sent.CFList)
	if o.Rekey {
		wantLen = lorawan.JoinAcceptCFListLen
	}
	good := len(a.PHYPayload) == wantLen && a.PHYPayload[0] == lorawan.MHDRJoinAccept
	if !c.add(ByNS, CheckPHYPayload, good) {
		c.becausef("want %d bytes, MHDR 20, got %d bytes", wantLen, len(a.PHYPayload))
	}
	for k := nwkSKey; k < appSKey; k++ {
		want := k.inLayout(r.Sent.DLSettings.OptNeg())
		e := a.Keys[k]
		if (e != nil) != want {
			c.add(ByNS, CheckKeySet, false)
			c.becausef("%v: wanted %t, given %t", k, want, e != nil)
			continue
		}
		if e == nil {
			continue
		}
		r.NetworkKEK = e.KEKLabel
		c.addErr(ByNS, CheckNetworkKey, n.keks.open(e, o.ClearKeys, &keys[k]))
		n.nameKey(c, k, e)
	}
	n.checkAppSKeyWay(r, o)
}

// nameKey adds to the last check which key it was about.
func (n *NS) nameKey(c *Checks, k keyName, e *Envelope) {
	last := &(*c)[len(*c)-1]
	switch {
	case !last.OK:
		last.Detail = k.String() + ": " + last.Detail
	case e.KEKLabel == "":
		last.Detail = k.String() + " in the clear, as allowed"
	default:
		last.Detail = k.String() + " under " + e.KEKLabel
	}
}

// checkAppSKeyWay: one of AppSKey and SessionKeyID at least (TS002-1.0,
// "JoinAns"), as owner and operator agreed, and never readable to a network
// that was not given it in the clear.
func (n *NS) checkAppSKeyWay(r *Result, o JoinOptions) {
	a, c := r.answer, &r.Checks
	e := a.Keys[appSKey]
	c.add(ByNS, CheckAppSKeyGiven, e != nil || len(a.SessionKeyID) > 0)
	switch {
	case e == nil && len(a.SessionKeyID) > 0:
		r.AppSKey = AppSKeyByID
	case e != nil && e.KEKLabel != "":
		r.AppSKey, r.AppSKeyKEK = AppSKeyWrapped, e.KEKLabel
		_, own := n.keks[e.KEKLabel]
		c.add(ByNS, CheckAppSKeyForAS, !own)
		c.because("it is under " + e.KEKLabel)
	case e != nil:
		r.AppSKey = AppSKeyClear
	}
	agreed := r.AppSKey == AppSKeyWrapped || r.AppSKey == AppSKeyByID
	if o.AppSKey != "" {
		agreed = r.AppSKey == o.AppSKey
	}
	if !c.add(ByNS, CheckAppSKeyWay, agreed) {
		c.becausef("want %q, got %q", o.AppSKey, r.AppSKey)
	} else {
		c.because(string(r.AppSKey))
	}
}

// deliver gives the accept to the device and compares what the two know.
func (n *NS) deliver(r *Result, d *device.Device, t element.JoinType, o JoinOptions, keys *[keyNames][element.KeySize]byte) {
	c := &r.Checks
	before := d.JoinNonce()
	got, err := d.HandleAccept(r.answer.PHYPayload)
	if !c.addErr(ByDevice, CheckAccept, err) {
		return
	}
	r.Accepted, r.Taken = got, true
	if !c.add(ByDevice, CheckAcceptType, got.Type == t && got.OptNeg == r.Sent.DLSettings.OptNeg()) {
		c.becausef("it answers a %v with OptNeg %t", got.Type, got.OptNeg)
	}
	want := lorawan.JoinAccept{
		JoinNonce: got.JoinNonce, NetID: n.netID, DevAddr: r.Sent.DevAddr,
		DLSettings: r.Sent.DLSettings, RxDelay: r.Sent.RxDelay, CFList: r.Sent.CFList,
	}
	if o.Rekey {
		want.CFList = got.CFList // in place of the network's
		c.add(ByDevice, CheckRekey, got.CFList.IsRekey())
	}
	if !c.add(ByDevice, CheckAcceptFields, got.JoinAccept == want) {
		c.becausef("want NetID %v, DevAddr %v, DLSettings %02X, RxDelay %d, CFList %t; got %v, %v, %02X, %d, %t",
			want.NetID, want.DevAddr, want.DLSettings, want.RxDelay, want.CFList.IsPresent(),
			got.NetID, got.DevAddr, got.DLSettings, got.RxDelay, got.CFList.IsPresent())
	}
	// Devices of 1.0.x only want another number; a Join Server counts for all.
	if !c.add(ByDevice, CheckJoinNonce, got.JoinNonce > before) {
		c.becausef("got %d, had %d", got.JoinNonce, before)
	}
	if got.Rekeyed {
		return // it left the session at once
	}
	for k := nwkSKey; k < appSKey; k++ {
		if r.answer.Keys[k] != nil && k.inLayout(got.OptNeg) {
			c.add(ByNS, CheckSessionKey, d.HoldsSessionKey(k.slot(), keys[k][:]))
			c.because(k.String())
		}
	}
}

// inLayout tells whether a network key belongs to a layout: NwkSKey alone to
// that of 1.0.x; the three, and not NwkSKey, to that of 1.1 (TS002-1.0,
// "JoinAns").
func (k keyName) inLayout(optNeg bool) bool { return (k == nwkSKey) != optNeg }

// slot gives where an element has the key. A 1.0.x session has NwkSKey in all
// three places.
func (k keyName) slot() element.KeyID {
	return [keyNames]element.KeyID{
		nwkSKey: element.FNwkSIntKey, fNwkSIntKey: element.FNwkSIntKey, sNwkSIntKey: element.SNwkSIntKey,
		nwkSEncKey: element.NwkSEncKey, appSKey: element.AppSKey,
	}[k]
}
