package joinery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"joinery/lorawan"
)

// Nonces is all that a key set must never forget: the last JoinNonce issued,
// and by JoinEUI every DevNonce accepted and the last RJcount1. It lives in one
// row and moves by compare-and-swap; see KeySet.Version.
type Nonces struct {
	// JoinNonce is the last one issued; 0 before the first.
	JoinNonce lorawan.JoinNonce
	// ByJoinEUI is sorted by JoinEUI.
	ByJoinEUI []JoinEUINonces
	// Recent are the newest activations, newest first, at most MaxRecent; see
	// WithActivation.
	Recent []RecentActivation
	// ResetAt is when the operator opened a reset of the DevNonces: one join
	// accepted within a day after it sets a new floor and closes it. Zero is no
	// reset. To the millisecond, UTC.
	ResetAt time.Time
}

// JoinEUINonces is what was accepted under one JoinEUI.
type JoinEUINonces struct {
	JoinEUI lorawan.EUI64
	// Used is every DevNonce accepted from a device that draws them at random.
	Used DevNonceSet
	// Next is one above the highest DevNonce accepted from a device that
	// counts: 0 before the first, 65,536 when none is left.
	Next uint32
	// NextRJCount1 is one above the last RJcount1 accepted: 0 before the
	// first, 65,536 when none is left.
	NextRJCount1 uint32
}

// MaxRecent is how many activations stay open to a rejoin-request of type 0 or
// 2: an accept may be lost, so a device may still speak from an older session.
const MaxRecent = 4

// RecentActivation is the part of an activation that the next request needs
// before it reads the activation itself.
type RecentActivation struct {
	ID ActivationID
	// Tag is the beginning of the activation's FrameHash, to find a repeat.
	Tag [8]byte
	// NextRJCount0 is one above the last RJcount0 accepted in this session.
	NextRJCount0 uint32
}

// For gives what is known under joinEUI; the zero of it before the first join.
func (n Nonces) For(joinEUI lorawan.EUI64) JoinEUINonces {
	if i, ok := n.find(joinEUI); ok {
		return n.ByJoinEUI[i]
	}
	return JoinEUINonces{JoinEUI: joinEUI}
}

// With returns a copy in which what is known under e.JoinEUI is e.
func (n Nonces) With(e JoinEUINonces) Nonces {
	i, ok := n.find(e.JoinEUI)
	n.ByJoinEUI = slices.Clone(n.ByJoinEUI)
	if ok {
		n.ByJoinEUI[i] = e
	} else {
		n.ByJoinEUI = slices.Insert(n.ByJoinEUI, i, e)
	}
	return n
}

// WithActivation returns a copy in which r is the newest activation. Where one
// has to go it is the oldest, but never from: the session in which the device
// just proved to be (zero for none). Its accepts may be lost again and again,
// and a repeat of its request must find it.
func (n Nonces) WithActivation(r RecentActivation, from ActivationID) Nonces {
	recent := append([]RecentActivation{r}, n.Recent...)
	if last := len(recent) - 1; last == MaxRecent {
		if recent[last].ID == from {
			last--
		}
		recent = slices.Delete(recent, last, last+1)
	}
	n.Recent = recent
	return n
}

func (n Nonces) find(joinEUI lorawan.EUI64) (int, bool) {
	return slices.BinarySearchFunc(n.ByJoinEUI, joinEUI, func(e JoinEUINonces, k lorawan.EUI64) int {
		return slices.Compare(e.JoinEUI[:], k[:])
	})
}

// The stored form, all integers big-endian:
//
//	format 1 ‖ ResetAt 8, in milliseconds since 1970, 0 for none ‖
//	number of recents 1 ‖ recents × (id 8 ‖ tag 8 ‖ NextRJCount0 4)
//	then for each JoinEUI, to the end:
//	JoinEUI 8 ‖ Next 4 ‖ NextRJCount1 4 ‖ length of set 4 ‖ set
//
// JoinNonce is a column of its own and not in here.
const (
	noncesFormat = 1
	noncesHead   = 10
	recentLen    = 20
	joinEUIHead  = 20
)

// ErrNonces says that a stored form is damaged.
var ErrNonces = errors.New("stored nonces are damaged")

// Encode gives the stored form of n without JoinNonce.
func (n Nonces) Encode() []byte {
	size := noncesHead + recentLen*len(n.Recent)
	for _, e := range n.ByJoinEUI {
		size += joinEUIHead + len(e.Used.stored)
	}
	b := append(make([]byte, 0, size), noncesFormat)
	var resetAt uint64
	if !n.ResetAt.IsZero() {
		resetAt = uint64(n.ResetAt.UnixMilli())
	}
	b = binary.BigEndian.AppendUint64(b, resetAt)
	b = append(b, byte(len(n.Recent)))
	for _, r := range n.Recent {
		b = binary.BigEndian.AppendUint64(b, uint64(r.ID))
		b = append(b, r.Tag[:]...)
		b = binary.BigEndian.AppendUint32(b, r.NextRJCount0)
	}
	for _, e := range n.ByJoinEUI {
		b = append(b, e.JoinEUI[:]...)
		b = binary.BigEndian.AppendUint32(b, e.Next)
		b = binary.BigEndian.AppendUint32(b, e.NextRJCount1)
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.Used.stored)))
		b = append(b, e.Used.stored...)
	}
	return b
}

// DecodeNonces reads the stored form; b may be empty for a key set that never
// joined. The result does not keep b.
func DecodeNonces(joinNonce lorawan.JoinNonce, b []byte) (Nonces, error) {
	n := Nonces{JoinNonce: joinNonce}
	if len(b) == 0 {
		return n, nil
	}
	if len(b) < noncesHead || b[0] != noncesFormat || b[9] > MaxRecent {
		return Nonces{}, fmt.Errorf("%w: unknown format", ErrNonces)
	}
	if resetAt := binary.BigEndian.Uint64(b[1:]); resetAt != 0 {
		n.ResetAt = time.UnixMilli(int64(resetAt)).UTC()
	}
	count := int(b[9])
	b = b[noncesHead:]
	if len(b) < recentLen*count {
		return Nonces{}, fmt.Errorf("%w: recent activations are cut short", ErrNonces)
	}
	if count > 0 {
		n.Recent = make([]RecentActivation, count)
	}
	for i := range n.Recent {
		n.Recent[i] = RecentActivation{
			ID:           ActivationID(binary.BigEndian.Uint64(b)),
			Tag:          [8]byte(b[8:16]),
			NextRJCount0: binary.BigEndian.Uint32(b[16:]),
		}
		b = b[recentLen:]
	}
	if err := n.decodeJoinEUIs(b); err != nil {
		return Nonces{}, err
	}
	return n, nil
}

func (n *Nonces) decodeJoinEUIs(b []byte) error {
	for len(b) > 0 {
		if len(b) < joinEUIHead {
			return fmt.Errorf("%w: an entry is cut short", ErrNonces)
		}
		e := JoinEUINonces{
			JoinEUI:      lorawan.EUI64(b[:8]),
			Next:         binary.BigEndian.Uint32(b[8:]),
			NextRJCount1: binary.BigEndian.Uint32(b[12:]),
		}
		size := binary.BigEndian.Uint32(b[16:])
		b = b[joinEUIHead:]
		if uint64(len(b)) < uint64(size) || e.Next > 1<<16 || e.NextRJCount1 > 1<<16 {
			return fmt.Errorf("%w: an entry is out of bounds", ErrNonces)
		}
		set, err := decodeDevNonceSet(b[:size])
		if err != nil {
			return err
		}
		e.Used = set
		if i, found := n.find(e.JoinEUI); found || i != len(n.ByJoinEUI) {
			return fmt.Errorf("%w: JoinEUIs are not in order", ErrNonces)
		}
		n.ByJoinEUI = append(n.ByJoinEUI, e)
		b = b[size:]
	}
	return nil
}

// DevNonceSet is a complete set of DevNonces: an immutable value that never
// forgets and never takes more than 8 KiB. Up to 4,095 members are kept as
// sorted 16-bit numbers, more as a bitmap of 65,536 bits.
type DevNonceSet struct{ stored []byte }

const bitmapLen = 1 << 16 / 8

func (s DevNonceSet) isBitmap() bool { return len(s.stored) == bitmapLen }

// Len gives the number of members.
func (s DevNonceSet) Len() int {
	if !s.isBitmap() {
		return len(s.stored) / 2
	}
	n := 0
	for _, b := range s.stored {
		n += bits.OnesCount8(b)
	}
	return n
}

// Has tells whether v is a member.
func (s DevNonceSet) Has(v lorawan.DevNonce) bool {
	if s.isBitmap() {
		return s.stored[v/8]&(1<<(v%8)) != 0
	}
	_, found := s.search(v)
	return found
}

// With returns the set with v in it.
func (s DevNonceSet) With(v lorawan.DevNonce) DevNonceSet {
	if s.isBitmap() {
		stored := slices.Clone(s.stored)
		stored[v/8] |= 1 << (v % 8)
		return DevNonceSet{stored}
	}
	i, found := s.search(v)
	if found {
		return s
	}
	if len(s.stored)+2 == bitmapLen {
		return s.toBitmap().With(v)
	}
	stored := make([]byte, 0, len(s.stored)+2)
	stored = append(stored, s.stored[:2*i]...)
	stored = binary.BigEndian.AppendUint16(stored, uint16(v))
	stored = append(stored, s.stored[2*i:]...)
	return DevNonceSet{stored}
}

// All calls yield for each member, in rising order.
func (s DevNonceSet) All(yield func(lorawan.DevNonce) bool) {
	if !s.isBitmap() {
		for i := 0; i < len(s.stored); i += 2 {
			if !yield(lorawan.DevNonce(binary.BigEndian.Uint16(s.stored[i:]))) {
				return
			}
		}
		return
	}
	for v := range 1 << 16 {
		if s.stored[v/8]&(1<<(v%8)) != 0 && !yield(lorawan.DevNonce(v)) {
			return
		}
	}
}

// search finds v, or where it belongs, in the sorted form.
func (s DevNonceSet) search(v lorawan.DevNonce) (int, bool) {
	lo, hi := 0, len(s.stored)/2
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch m := lorawan.DevNonce(binary.BigEndian.Uint16(s.stored[2*mid:])); {
		case m == v:
			return mid, true
		case m < v:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

func (s DevNonceSet) toBitmap() DevNonceSet {
	stored := make([]byte, bitmapLen)
	for v := range s.All {
		stored[v/8] |= 1 << (v % 8)
	}
	return DevNonceSet{stored}
}

func decodeDevNonceSet(b []byte) (DevNonceSet, error) {
	s := DevNonceSet{slices.Clone(b)}
	if s.isBitmap() {
		return s, nil
	}
	if len(b) > bitmapLen || len(b)%2 != 0 {
		return DevNonceSet{}, fmt.Errorf("%w: a set of DevNonces has %d bytes", ErrNonces, len(b))
	}
	for i := 2; i < len(b); i += 2 {
		if binary.BigEndian.Uint16(b[i-2:]) >= binary.BigEndian.Uint16(b[i:]) {
			return DevNonceSet{}, fmt.Errorf("%w: a set of DevNonces is not in order", ErrNonces)
		}
	}
	return s, nil
}
