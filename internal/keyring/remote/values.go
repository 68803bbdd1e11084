package remote

import (
	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// What of the nouns travels is what the verbs use; a test fails when one of them
// gets a field that is neither here nor known to be left out.

// keySet takes the custody blobs along only where they are looked at.
func (e *encoder) keySet(ks *joinery.KeySet, custody bool) {
	e.u64(uint64(ks.ID))
	e.u64(uint64(ks.DeviceID))
	e.raw(ks.DevEUI[:])
	e.u8(uint8(ks.Origin))
	e.string(ks.Master)
	e.u32(ks.Generation)
	e.u8(uint8(ks.Root10))
	e.u8(uint8(ks.Rekey))
	if ks.Rekey != 0 {
		e.raw(ks.Serial[:])
		e.length(len(ks.Steps))
		for _, s := range ks.Steps {
			e.raw(s.JoinEUI[:])
			e.raw(s.Cookie[:])
		}
		e.u64(uint64(ks.Held.KeySet))
		e.bytes(ks.Held.First)
		e.bytes(ks.Held.Second)
	}
	for _, r := range []*joinery.SealedRoot{&ks.Nwk, &ks.App} {
		e.bytes(r.Use)
		if custody {
			e.bytes(r.Custody)
		}
	}
}

// keySet gives a key set whose blobs are bytes of the frame.
func (d *decoder) keySet(ks *joinery.KeySet, custody bool) {
	ks.ID = joinery.KeySetID(d.u64())
	ks.DeviceID = joinery.DeviceID(d.u64())
	d.eui(&ks.DevEUI)
	ks.Origin = joinery.Origin(d.u8())
	ks.Master = d.string()
	ks.Generation = d.u32()
	ks.Root10 = joinery.RootKey(d.u8())
	if ks.Rekey = joinery.RekeyProfile(d.u8()); ks.Rekey != 0 {
		copy(ks.Serial[:], d.take(len(ks.Serial)))
		if n := d.length(8 + lorawan.CookieLen); n > 0 {
			ks.Steps = make([]lorawan.Rekey, n)
			for i := range ks.Steps {
				d.eui(&ks.Steps[i].JoinEUI)
				copy(ks.Steps[i].Cookie[:], d.take(lorawan.CookieLen))
			}
		}
		ks.Held.KeySet = joinery.KeySetID(d.u64())
		ks.Held.First = d.borrowed()
		ks.Held.Second = d.borrowed()
	}
	for _, r := range []*joinery.SealedRoot{&ks.Nwk, &ks.App} {
		r.Use = d.borrowed()
		if custody {
			r.Custody = d.borrowed()
		}
	}
}

func (d *decoder) eui(eui *lorawan.EUI64) { copy(eui[:], d.take(len(eui))) }

// activation takes JoinNonce as it is, also where it is out of range: to refuse
// that is the keyring's business.
func (e *encoder) activation(a *joinery.Activation) {
	e.u64(uint64(a.ID))
	e.u64(uint64(a.Device))
	e.u64(uint64(a.KeySet))
	e.u8(uint8(a.Type))
	e.raw(a.JoinEUI[:])
	e.raw(a.DevEUI[:])
	e.bool(a.OptNeg)
	e.u8(uint8(a.Root))
	e.u16(a.Count)
	e.u32(uint32(a.JoinNonce))
	e.raw(a.NetID[:])
	e.raw(a.DevAddr[:])
	e.u8(uint8(a.DLSettings))
	e.u8(a.RxDelay)
	e.u8(uint8(a.Policy))
	e.bool(a.CFList.IsPresent())
	e.b = a.CFList.Append(e.b)
}

// activationLen is the length of the shortest activation in a frame.
const activationLen = 8 + 8 + 8 + 1 + 8 + 8 + 1 + 1 + 2 + 4 + 3 + 4 + 1 + 1 + 1 + 1

func (d *decoder) activation(a *joinery.Activation) {
	a.ID = joinery.ActivationID(d.u64())
	a.Device = joinery.DeviceID(d.u64())
	a.KeySet = joinery.KeySetID(d.u64())
	a.Type = joinery.JoinType(d.u8())
	d.eui(&a.JoinEUI)
	d.eui(&a.DevEUI)
	a.OptNeg = d.bool()
	a.Root = joinery.RootKey(d.u8())
	a.Count = d.u16()
	a.JoinNonce = lorawan.JoinNonce(d.u32())
	copy(a.NetID[:], d.take(len(a.NetID)))
	copy(a.DevAddr[:], d.take(len(a.DevAddr)))
	a.DLSettings = lorawan.DLSettings(d.u8())
	a.RxDelay = d.u8()
	a.Policy = joinery.AppSKeyPolicy(d.u8())
	if d.bool() {
		list, err := lorawan.ParseCFList(d.take(lorawan.CFListLen))
		if err != nil || !list.IsPresent() {
			d.bad = true
		}
		a.CFList = list
	}
}

func (e *encoder) kek(k *joinery.KEK) {
	e.u64(uint64(k.ID))
	e.u64(uint64(k.Peer))
	e.string(string(k.Role))
	e.string(k.Label)
	e.u32(k.Version)
	e.bytes(k.Sealed)
}

// kek gives a KEK whose blob is bytes of the frame.
func (d *decoder) kek(k *joinery.KEK) {
	k.ID = joinery.KEKID(d.u64())
	k.Peer = joinery.PeerID(d.u64())
	switch role := d.borrowed(); joinery.KEKRole(role) { // those that there are cost no allocation
	case joinery.KEKForNS:
		k.Role = joinery.KEKForNS
	case joinery.KEKForAS:
		k.Role = joinery.KEKForAS
	default:
		k.Role = joinery.KEKRole(role)
	}
	k.Label = d.string()
	k.Version = d.u32()
	k.Sealed = d.borrowed()
}

func (e *encoder) acceptRequest(r *keyring.AcceptRequest) {
	e.keySet(&r.KeySet, false)
	e.bytes(r.Frame)
	e.activation(&r.Activation)
	e.bool(r.Session != nil)
	if r.Session != nil {
		e.activation(r.Session)
	}
	e.kek(&r.NSKEK)
	e.kek(&r.ASKEK)
	e.bool(r.ClearNwk)
	e.bool(r.ClearApp)
}

func (d *decoder) acceptRequest(r *keyring.AcceptRequest) {
	d.keySet(&r.KeySet, false)
	r.Frame = d.borrowed()
	d.activation(&r.Activation)
	if d.bool() {
		r.Session = new(joinery.Activation)
		d.activation(r.Session)
	}
	d.kek(&r.NSKEK)
	d.kek(&r.ASKEK)
	r.ClearNwk = d.bool()
	r.ClearApp = d.bool()
}

// envelopes lists the session keys of an answer in the order in which they
// travel.
func envelopes(a *keyring.Answer) [5]*keyring.Envelope {
	return [...]*keyring.Envelope{&a.NwkSKey, &a.FNwkSIntKey, &a.SNwkSIntKey, &a.NwkSEncKey, &a.AppSKey}
}

// envelope appends a session key, which may be in the clear, and clears it where
// it came from.
func (e *encoder) envelope(v *keyring.Envelope) {
	e.string(v.KEKLabel)
	e.bytes(v.AESKey)
	clear(v.AESKey)
}

// envelope gives a session key in bytes of the frame. Its label is most likely
// one that the request named.
func (d *decoder) envelope(v *keyring.Envelope, labels ...string) {
	label := d.borrowed()
	v.KEKLabel = ""
	for _, known := range labels {
		if string(label) == known {
			v.KEKLabel = known
		}
	}
	if v.KEKLabel == "" {
		v.KEKLabel = string(label)
	}
	v.AESKey = d.borrowed()
}

// answer appends an answer and clears the session keys where they came from.
func (e *encoder) answer(a *keyring.Answer) {
	e.bytes(a.PHYPayload)
	for _, v := range envelopes(a) {
		e.envelope(v)
	}
}

// answer gives an answer in one piece of memory of its own, as the keyring does.
func (d *decoder) answer(a *keyring.Answer, labels ...string) {
	d.b = append(make([]byte, 0, len(d.b)), d.b...)
	a.PHYPayload = d.borrowed()
	for _, v := range envelopes(a) {
		d.envelope(v, labels...)
	}
}

func (e *encoder) header(h *seal.Header) {
	e.string(h.Format)
	e.string(h.KID)
	e.string(h.Alg)
	e.string(h.Wrap)
	e.bytes(h.Key)
}

func (d *decoder) header() seal.Header {
	return seal.Header{Format: d.string(), KID: d.string(), Alg: d.string(), Wrap: d.string(), Key: d.borrowed()}
}

func (e *encoder) sealedKEK(k *seal.SealedKEK) {
	e.string(k.Role)
	e.string(k.Label)
	e.bytes(k.Wrapped)
	e.bytes(k.MAC)
}

func (d *decoder) sealedKEK() seal.SealedKEK {
	return seal.SealedKEK{Role: d.string(), Label: d.string(), Wrapped: d.borrowed(), MAC: d.borrowed()}
}

func (e *encoder) rootsIn(r *keyring.RootsIn) {
	e.u64(uint64(r.KeySet))
	w := &r.Row
	e.raw(w.JoinEUI[:])
	e.raw(w.DevEUI[:])
	e.u8(uint8(w.MACVersion))
	e.bytes(w.NwkKey)
	e.bytes(w.AppKey)
	e.string(w.Root10)
	e.devNonces(w.UsedDevNonces)
	e.u32(uint32(w.JoinNonceFloor))
	e.u32(w.NextRJCount1)
	e.length(len(w.Former))
	for _, f := range w.Former {
		e.raw(f.JoinEUI[:])
		e.devNonces(f.UsedDevNonces)
		e.u32(f.NextRJCount1)
	}
	e.bytes(w.MAC)
}

func (e *encoder) devNonces(list []lorawan.DevNonce) {
	e.length(len(list))
	for _, n := range list {
		e.u16(uint16(n))
	}
}

func (d *decoder) devNonces() (list []lorawan.DevNonce) {
	if n := d.length(2); n > 0 {
		list = make([]lorawan.DevNonce, n)
		for i := range list {
			list[i] = lorawan.DevNonce(d.u16())
		}
	}
	return list
}

// formerLen is the length of the shortest former JoinEUI in a frame.
const formerLen = 8 + 1 + 4

// rootsInLen is the length of the shortest row in a frame; rootsInSize is how
// long one becomes at most.
const rootsInLen = 8 + 8 + 8 + 1 + 1 + 1 + 1 + 1 + 4 + 4 + 1 + 1

func rootsInSize(r *keyring.RootsIn) int {
	size := 72 + len(r.Row.NwkKey) + len(r.Row.AppKey) + len(r.Row.Root10) + 2*len(r.Row.UsedDevNonces) + len(r.Row.MAC)
	for _, f := range r.Row.Former {
		size += 24 + 2*len(f.UsedDevNonces)
	}
	return size
}

func (d *decoder) rootsIn(r *keyring.RootsIn) {
	r.KeySet = joinery.KeySetID(d.u64())
	w := &r.Row
	d.eui(&w.JoinEUI)
	d.eui(&w.DevEUI)
	w.MACVersion = lorawan.MACVersion(d.u8())
	w.NwkKey = d.borrowed()
	w.AppKey = d.borrowed()
	w.Root10 = d.string()
	w.UsedDevNonces = d.devNonces()
	w.JoinNonceFloor = lorawan.JoinNonce(d.u32())
	w.NextRJCount1 = d.u32()
	if n := d.length(formerLen); n > 0 {
		w.Former = make([]seal.FormerNonces, n)
		for i := range w.Former {
			f := &w.Former[i]
			d.eui(&f.JoinEUI)
			f.UsedDevNonces, f.NextRJCount1 = d.devNonces(), d.u32()
		}
	}
	w.MAC = d.borrowed()
}

// rewrapIn takes of the stored roots what the keyring looks at.
func (e *encoder) rewrapIn(r *keyring.RewrapIn) {
	e.rootsIn(&keyring.RootsIn{KeySet: r.Stored.KeySet, Row: r.Row})
	e.u8(uint8(r.Stored.Root10))
	for _, s := range []*joinery.SealedRoot{&r.Stored.Nwk, &r.Stored.App} {
		e.bytes(s.Use)
		e.bytes(s.Custody)
	}
}

// rewrapInLen and rewrapInSize are what rootsInLen and rootsInSize are.
const rewrapInLen = rootsInLen + 5

func rewrapInSize(r *keyring.RewrapIn) int {
	size := rootsInSize(&keyring.RootsIn{Row: r.Row}) + 32
	for _, s := range []joinery.SealedRoot{r.Stored.Nwk, r.Stored.App} {
		size += len(s.Use) + len(s.Custody)
	}
	return size
}

func (d *decoder) rewrapIn(r *keyring.RewrapIn) {
	var in keyring.RootsIn
	d.rootsIn(&in)
	r.Stored.KeySet, r.Row = in.KeySet, in.Row
	r.Stored.Root10 = joinery.RootKey(d.u8())
	for _, s := range []*joinery.SealedRoot{&r.Stored.Nwk, &r.Stored.App} {
		s.Use = d.borrowed()
		s.Custody = d.borrowed()
	}
}

func (e *encoder) rootsOut(r *keyring.RootsOut) {
	e.err(r.Err)
	for _, s := range []*joinery.SealedRoot{&r.Nwk, &r.App} {
		e.bytes(s.Use)
		e.bytes(s.Custody)
	}
}

// rootsOutLen is the length of the shortest result in a frame.
const rootsOutLen = 1 + 4

func (d *decoder) rootsOut(r *keyring.RootsOut) {
	r.Err = d.err()
	for _, s := range []*joinery.SealedRoot{&r.Nwk, &r.App} {
		s.Use = d.bytes()
		s.Custody = d.bytes()
	}
}

// handoverInLen is the length of the shortest key set with its row in a frame.
const handoverInLen = rootsInLen + 8

func (e *encoder) handoverIn(in *keyring.HandoverIn) {
	e.keySet(&in.KeySet, false)
	e.rootsIn(&keyring.RootsIn{Row: in.Row})
}

func (d *decoder) handoverIn(in *keyring.HandoverIn) {
	var row keyring.RootsIn
	d.keySet(&in.KeySet, false)
	d.rootsIn(&row)
	in.Row = row.Row
}
