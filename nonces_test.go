package joinery

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"joinery/lorawan"
)

// members lists a set.
func members(s DevNonceSet) (all []lorawan.DevNonce) {
	for v := range s.All {
		all = append(all, v)
	}
	return all
}

// setModel is a DevNonceSet beside the map that it must equal. Every value that
// the set ever had is kept, because none may change afterwards.
type setModel struct {
	set   DevNonceSet
	model map[lorawan.DevNonce]bool
	past  []snapshot
}

type snapshot struct {
	set    DevNonceSet
	stored []byte
}

func (m *setModel) add(v lorawan.DevNonce) {
	m.past = append(m.past, snapshot{m.set, bytes.Clone(m.set.stored)})
	if len(m.past) > 8 {
		m.past = m.past[1:]
	}
	m.set = m.set.With(v)
	m.model[v] = true
}

func (m *setModel) Check(t *rapid.T) {
	if m.set.Len() != len(m.model) {
		t.Fatalf("Len %d, want %d", m.set.Len(), len(m.model))
	}
	if len(m.set.stored) > bitmapLen {
		t.Fatalf("%d bytes", len(m.set.stored))
	}
	for _, p := range m.past {
		if !bytes.Equal(p.set.stored, p.stored) {
			t.Fatal("a set changed after it was made")
		}
	}
}

func TestDevNonceSetAgainstMap(t *testing.T) {
	// Begin anywhere, near the change of form most of all.
	sizes := []int{0, 1, 4090, 4094, 4095, 4096, 5000, 65530}
	sets := setsOf(sizes)
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.SampledFrom(sizes).Draw(t, "start")
		m := &setModel{set: sets[start], model: make(map[lorawan.DevNonce]bool, start)}
		for v := range start {
			m.model[lorawan.DevNonce(v)] = true
		}
		t.Repeat(map[string]func(*rapid.T){
			"With":  func(t *rapid.T) { m.add(lorawan.DevNonce(rapid.Uint16().Draw(t, "v"))) },
			"again": func(t *rapid.T) { m.add(rapid.SampledFrom(append(members(m.set), 0)).Draw(t, "v")) },
			"Has": func(t *rapid.T) {
				v := lorawan.DevNonce(rapid.Uint16().Draw(t, "v"))
				if m.set.Has(v) != m.model[v] {
					t.Fatalf("Has(%d) = %v", v, m.set.Has(v))
				}
			},
			"All": func(t *rapid.T) {
				all := members(m.set)
				if !slices.IsSorted(all) || len(all) != len(m.model) {
					t.Fatalf("%d members, sorted %v", len(all), slices.IsSorted(all))
				}
				for _, v := range all {
					if !m.model[v] {
						t.Fatalf("%d is no member", v)
					}
				}
			},
			"decode": func(t *rapid.T) {
				got, err := decodeDevNonceSet(m.set.stored)
				if err != nil || !bytes.Equal(got.stored, m.set.stored) {
					t.Fatalf("stored form does not come back: %v", err)
				}
			},
			"": m.Check,
		})
	})
}

// setOf has the members 0 to n-1.
func setOf(n int) (s DevNonceSet) {
	for v := range n {
		s = s.With(lorawan.DevNonce(v))
	}
	return s
}

// setsOf makes setOf of each size, once for all the checks of a test.
func setsOf(sizes []int) map[int]DevNonceSet {
	sets := map[int]DevNonceSet{}
	for _, n := range sizes {
		sets[n] = setOf(n)
	}
	return sets
}

// The form changes where a bitmap is no longer than the list: with the 4,096th
// member, in whichever order members come.
func TestDevNonceSetChangesForm(t *testing.T) {
	for _, step := range []int{1, 16, 65535} { // rising, spread out, falling
		var s DevNonceSet
		for n := range 4095 {
			s = s.With(lorawan.DevNonce(n * step))
		}
		if s.isBitmap() || len(s.stored) != 8190 || s.Len() != 4095 {
			t.Fatalf("4,095 members: bitmap %v, %d bytes, Len %d", s.isBitmap(), len(s.stored), s.Len())
		}
		last := lorawan.DevNonce(4095 * step & 0xFFFF)
		full := s.With(last)
		if !full.isBitmap() || len(full.stored) != 8192 || full.Len() != 4096 || !full.Has(last) {
			t.Fatalf("4,096 members: bitmap %v, %d bytes, Len %d", full.isBitmap(), len(full.stored), full.Len())
		}
		if got, want := members(full), append(members(s), last); len(got) != len(want) {
			t.Fatalf("%d members after the change, want %d", len(got), len(want))
		}
		if s.isBitmap() || s.Has(last) {
			t.Fatal("the smaller set changed")
		}
	}
}

func TestDevNonceSetFull(t *testing.T) {
	s := setOf(1 << 16)
	if s.Len() != 1<<16 || !s.Has(0) || !s.Has(lorawan.MaxDevNonce) {
		t.Fatalf("Len %d", s.Len())
	}
	if s.With(77).Len() != 1<<16 {
		t.Fatal("a full set grew")
	}
}

func TestDevNonceSetAllStops(t *testing.T) {
	for _, n := range []int{10, 5000} {
		seen := 0
		for range setOf(n).All {
			if seen++; seen == 3 {
				break
			}
		}
		if seen != 3 {
			t.Fatalf("saw %d", seen)
		}
	}
}

// nonceSets are the sizes of the sets that genNonces draws.
func nonceSets() map[int]DevNonceSet { return setsOf([]int{0, 1, 3, 4095, 4096}) }

func genNonces(t *rapid.T, sets map[int]DevNonceSet) Nonces {
	n := Nonces{JoinNonce: lorawan.JoinNonce(rapid.Uint32Range(0, uint32(lorawan.MaxJoinNonce)).Draw(t, "JoinNonce"))}
	if ms := rapid.Int64Range(0, 1<<45).Draw(t, "ResetAt"); ms > 0 {
		n.ResetAt = time.UnixMilli(ms).UTC()
	}
	for range rapid.IntRange(0, 4).Draw(t, "JoinEUIs") {
		e := JoinEUINonces{
			JoinEUI: lorawan.EUI64FromUint64(rapid.Uint64().Draw(t, "JoinEUI")),
			Next:    rapid.Uint32Range(0, 1<<16).Draw(t, "Next"), NextRJCount1: rapid.Uint32Range(0, 1<<16).Draw(t, "NextRJCount1"),
			Used: sets[rapid.SampledFrom([]int{0, 1, 3, 4095, 4096}).Draw(t, "set")],
		}
		n = n.With(e)
	}
	for range rapid.IntRange(0, MaxRecent+2).Draw(t, "recent") {
		n = n.WithActivation(RecentActivation{
			ID: ActivationID(rapid.Int64Range(1, 1<<62).Draw(t, "id")), Tag: [8]byte(rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "tag")),
			NextRJCount0: rapid.Uint32Range(0, 1<<16).Draw(t, "NextRJCount0"),
		}, 0)
	}
	return n
}

func equalNonces(a, b Nonces) bool {
	return a.JoinNonce == b.JoinNonce && a.ResetAt.Equal(b.ResetAt) && slices.Equal(a.Recent, b.Recent) &&
		slices.EqualFunc(a.ByJoinEUI, b.ByJoinEUI, func(a, b JoinEUINonces) bool {
			return a.JoinEUI == b.JoinEUI && a.Next == b.Next && a.NextRJCount1 == b.NextRJCount1 && bytes.Equal(a.Used.stored, b.Used.stored)
		})
}

func TestNoncesRoundTrip(t *testing.T) {
	sets := nonceSets()
	rapid.Check(t, func(t *rapid.T) {
		n := genNonces(t, sets)
		stored := n.Encode()
		got, err := DecodeNonces(n.JoinNonce, stored)
		if err != nil {
			t.Fatal(err)
		}
		if !equalNonces(got, n) {
			t.Fatalf("got %+v, want %+v", got, n)
		}
		clear(stored) // the result keeps nothing of what it was read from
		if !equalNonces(got, n) {
			t.Fatal("the result shares memory with the stored form")
		}
	})
}

// The stored form, byte by byte, written out by hand from its description.
func TestNoncesStoredForm(t *testing.T) {
	n := Nonces{JoinNonce: 9, ResetAt: time.UnixMilli(0x0102030405).UTC()}
	n = n.With(JoinEUINonces{JoinEUI: lorawan.EUI64{0xBB}, Next: 0x10000})
	n = n.With(JoinEUINonces{JoinEUI: lorawan.EUI64{0xAA}, NextRJCount1: 7, Used: DevNonceSet{}.With(0x0201).With(0x0102)})
	n = n.WithActivation(RecentActivation{ID: 0x0A0B, Tag: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, NextRJCount0: 3}, 0)
	want := slices.Concat(
		[]byte{1}, []byte{0, 0, 0, 1, 2, 3, 4, 5}, []byte{1},
		[]byte{0, 0, 0, 0, 0, 0, 0x0A, 0x0B}, []byte{1, 2, 3, 4, 5, 6, 7, 8}, []byte{0, 0, 0, 3},
		[]byte{0xAA, 0, 0, 0, 0, 0, 0, 0}, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 7}, []byte{0, 0, 0, 4}, []byte{0x01, 0x02, 0x02, 0x01},
		[]byte{0xBB, 0, 0, 0, 0, 0, 0, 0}, []byte{0, 1, 0, 0}, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0},
	)
	if got := n.Encode(); !bytes.Equal(got, want) {
		t.Fatalf("got  %x\nwant %x", got, want)
	}
}

func TestDecodeNoncesOfNothing(t *testing.T) {
	for _, b := range [][]byte{nil, {}} {
		n, err := DecodeNonces(5, b)
		if err != nil || !equalNonces(n, Nonces{JoinNonce: 5}) {
			t.Fatalf("%+v, %v", n, err)
		}
	}
}

func TestDecodeNoncesRefuses(t *testing.T) {
	n := Nonces{}.With(JoinEUINonces{JoinEUI: lorawan.EUI64{1}, Used: setOf(3)}).With(JoinEUINonces{JoinEUI: lorawan.EUI64{2}})
	n = n.WithActivation(RecentActivation{ID: 1}, 0)
	whole := n.Encode()
	first := noncesHead + recentLen // of the first JoinEUI's entry
	for cut := 1; cut < len(whole); cut++ {
		if cut == first || cut == first+joinEUIHead+6 { // ends between two entries: a whole form of fewer
			continue
		}
		if _, err := DecodeNonces(0, whole[:cut]); !errors.Is(err, ErrNonces) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	spoil := func(at int, v ...byte) []byte { b := bytes.Clone(whole); copy(b[at:], v); return b }
	for name, b := range map[string][]byte{
		"format":              spoil(0, 2),
		"recents":             spoil(9, MaxRecent+1),
		"JoinEUIs in order":   spoil(first, 3),
		"a JoinEUI twice":     spoil(first, 2),
		"Next":                spoil(first+8, 0, 1, 0, 1),
		"NextRJCount1":        spoil(first+12, 0, 1, 0, 1),
		"odd set":             spoil(first+16, 0, 0, 0, 5),
		"set beyond the end":  spoil(first+16, 0xFF, 0xFF, 0xFF, 0xFF),
		"set not in order":    spoil(first+20, 0, 9),
		"set with one twice":  spoil(first+20, 0, 1),
		"set above a bitmap":  oversized(bitmapLen + 2),
		"trailing bytes":      append(bytes.Clone(whole), 0),
		"nothing but a zero":  {0},
		"head alone, cut off": whole[:noncesHead-1],
	} {
		if _, err := DecodeNonces(0, b); !errors.Is(err, ErrNonces) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// oversized is a stored form with a set of n bytes.
func oversized(n int) []byte {
	b := Nonces{}.With(JoinEUINonces{}).Encode()
	binary.BigEndian.PutUint32(b[len(b)-4:], uint32(n))
	for v := range n / 2 {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return b
}

// Nonces are values: changing one leaves the one that it came from.
func TestNoncesAreValues(t *testing.T) {
	sets := nonceSets()
	rapid.Check(t, func(t *rapid.T) {
		n := genNonces(t, sets)
		before := n.Encode()
		changed := n.WithActivation(RecentActivation{ID: 99}, 0)
		for _, e := range append(slices.Clone(n.ByJoinEUI), JoinEUINonces{JoinEUI: lorawan.EUI64{7}}) {
			e.Used, e.Next = e.Used.With(12345), 3
			changed = changed.With(e)
		}
		if !bytes.Equal(n.Encode(), before) {
			t.Fatal("a copy's change changed the original")
		}
		if len(changed.Recent) > MaxRecent || changed.Recent[0].ID != 99 {
			t.Fatalf("recent %+v", changed.Recent)
		}
		if !slices.IsSortedFunc(changed.ByJoinEUI, func(a, b JoinEUINonces) int { return slices.Compare(a.JoinEUI[:], b.JoinEUI[:]) }) {
			t.Fatal("JoinEUIs are not in order")
		}
	})
}

func TestNoncesByJoinEUI(t *testing.T) {
	a, b := lorawan.EUI64{1}, lorawan.EUI64{2}
	n := Nonces{}.With(JoinEUINonces{JoinEUI: a, Next: 5})
	if n.For(a).Next != 5 || n.For(b).Next != 0 || n.For(b).JoinEUI != b {
		t.Fatalf("%+v, %+v", n.For(a), n.For(b))
	}
	if n = n.With(JoinEUINonces{JoinEUI: a, Next: 6}); len(n.ByJoinEUI) != 1 || n.For(a).Next != 6 {
		t.Fatalf("%+v", n)
	}
}

// Whatever is read without complaint is written as it came, and never panics.
func FuzzDecodeNonces(f *testing.F) {
	f.Add(Nonces{}.Encode())
	f.Add(Nonces{}.With(JoinEUINonces{JoinEUI: lorawan.EUI64{1}, Used: setOf(5), Next: 9}).WithActivation(RecentActivation{ID: 4}, 0).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeNonces(1, b)
		if err != nil {
			if !errors.Is(err, ErrNonces) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if got := n.Encode(); len(b) > 0 && !bytes.Equal(got, b) {
			t.Fatalf("read  %x\nwrote %x", b, got)
		}
		for _, e := range n.ByJoinEUI {
			if got := len(members(e.Used)); got != e.Used.Len() {
				t.Fatalf("Len %d, %d members", e.Used.Len(), got)
			}
		}
	})
}

// The session in which a device just spoke is never the one that goes.
func TestWithActivationKeepsTheSessionInUse(t *testing.T) {
	var n Nonces
	for id := range ActivationID(10) {
		n = n.WithActivation(RecentActivation{ID: id + 1}, 1)
	}
	var ids []ActivationID
	for _, r := range n.Recent {
		ids = append(ids, r.ID)
	}
	if want := []ActivationID{10, 9, 8, 1}; !slices.Equal(ids, want) {
		t.Errorf("recent %v, want %v", ids, want)
	}
	if got := n.WithActivation(RecentActivation{ID: 11}, 8).Recent; got[1].ID != 10 || got[2].ID != 9 || got[3].ID != 8 {
		t.Errorf("recent %v: the oldest goes once another session is in use", got)
	}
	if len(n.Recent) != MaxRecent || n.Recent[0].ID != 10 {
		t.Error("the value that it was called on has changed")
	}
}
