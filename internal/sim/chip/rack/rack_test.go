package rack

import (
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/bus"
	"joinery/internal/sim/chip/tnglora"
	"joinery/lorawan"
)

// images makes n personalised chips.
func images(t testing.TB, n int) (list []*chip.Image) {
	t.Helper()
	for i := range n {
		devEUI := lorawan.EUI64FromUint64(0x0004A31000000000 + uint64(i))
		m, err := tnglora.Image(tnglora.Content{
			Serial: [chip.SerialSize]byte(tnglora.SerialOf(devEUI)), JoinEUI: lorawan.EUI64{1}, DevEUI: devEUI,
			NwkKey: make([]byte, 16), AppKey: make([]byte, 16),
		})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

func open(t *testing.T, list []*chip.Image, o Options) *Rack {
	t.Helper()
	r, err := Open(list, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestNames(t *testing.T) {
	r := open(t, append(images(t, 3), chip.Blank([chip.SerialSize]byte{1, 0x23})), Options{})
	for name, place := range map[string]int{
		"0004A31000000001": 1, "0004a31000000002": 2, "4A0004A31000000000": 0, "#3": 3, "012300000000000000": 3,
	} {
		if r.Find(name) != r.Slot(place).Bus {
			t.Errorf("%s is not element %d", name, place)
		}
	}
	for _, name := range []string{"", "#", "#4", "#-1", "0004A31000000009"} {
		if r.Find(name) != nil {
			t.Errorf("%q is an element", name)
		}
	}
	if r.First() != r.Slot(0).Bus || r.Slot(3).Name() != "012300000000000000" || r.Slot(0).Name() != "0004A31000000000" {
		t.Error("the first, or a name")
	}
}

// What a chip was told is there in the next process; a state file is not taken for
// other elements.
func TestState(t *testing.T) {
	list := images(t, 3)
	o := Options{State: filepath.Join(t.TempDir(), "elements")}
	if _, err := Open(nil, o); err == nil {
		t.Error("opened nothing")
	}
	r := open(t, list, o)
	next := lorawan.EUI64{9, 9}
	if err := tnglora.NewDriver(r.Slot(1).Chip()).SetJoinEUI(next); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, expected := range [][]*chip.Image{nil, list} {
		r := open(t, expected, o)
		for i := range r.Len() {
			if got, err := tnglora.NewDriver(r.Slot(i).Chip()).JoinEUI(); err != nil || (got == next) != (i == 1) {
				t.Errorf("element %d: JoinEUI %v, %v", i, got, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	list[2] = list[0]
	for _, other := range [][]*chip.Image{list[:2], list} {
		if _, err := Open(other, o); err == nil || !strings.Contains(err.Error(), "another state file") {
			t.Errorf("other elements: %v", err)
		}
	}
}

// Ten thousand elements at once, each with a host that is connected: no more than 150
// MiB, of which those are half.
func TestTenThousand(t *testing.T) {
	const n, limit = 10_000, 150 << 20
	r := open(t, images(t, n), Options{})
	type host struct {
		to   *io.PipeWriter
		from *io.PipeReader
	}
	hosts := make([]host, n)
	for i := range hosts {
		toChip, to := io.Pipe()
		from, fromChip := io.Pipe()
		hosts[i] = host{to, from}
		go func() {
			_ = bus.I2C(t.Context(), struct {
				io.Reader
				io.Writer
			}{toChip, fromChip}, r)
			_ = fromChip.Close()
		}()
	}
	for i, h := range hosts {
		name := fmt.Sprintf("#%d", i)
		request := append(binary.BigEndian.AppendUint16([]byte{'S', 0}, uint16(len(name))), name...)
		answer := make([]byte, 1)
		for _, m := range [][]byte{request, {'W', 0, 0, 0}} {
			if _, err := h.to.Write(m); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(h.from, answer); err != nil || answer[0] != 1 {
				t.Fatalf("element %d: %x, %v", i, answer, err)
			}
		}
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if used := m.HeapInuse + m.StackInuse; used > limit {
		t.Errorf("%d elements take %d MiB", n, used>>20)
	} else {
		t.Logf("%d elements and hosts: %d MiB", n, used>>20)
	}
	for _, h := range hosts {
		_ = h.to.Close()
		_, _ = h.from.Read(make([]byte, 1))
	}
}

// What one element answers to a host on its bus: a command with its wake, its two reads
// and its idle, as drivers do it.
func BenchmarkCommand(b *testing.B) {
	r, err := Open(images(b, 1), Options{})
	if err != nil {
		b.Fatal(err)
	}
	wire := r.First()
	command := append([]byte{3}, chip.Command(chip.OpAES, 0x40, 0, make([]byte, 16)...)...)
	b.ReportAllocs()
	for b.Loop() {
		wire.Write(0, nil)
		wire.Read(0x59, 4)
		wire.Write(0x59, command)
		wire.Read(0x59, 1)
		if got, ok := wire.Read(0x59, 18); !ok || len(got) != 18 {
			b.Fatal("no answer")
		}
		wire.Write(0x59, []byte{2})
	}
}

// The same with a memory that is kept in a file, and a command that changes it.
func BenchmarkKeptCommand(b *testing.B) {
	r, err := Open(images(b, 1), Options{State: filepath.Join(b.TempDir(), "elements")})
	if err != nil {
		b.Fatal(err)
	}
	packet := chip.Command(chip.OpKDF, 0x2A, 0x0200, make([]byte, 20)...)
	var n uint32
	b.ReportAllocs()
	for b.Loop() {
		n++
		binary.LittleEndian.PutUint32(packet[9:], n)
		binary.LittleEndian.PutUint16(packet[len(packet)-2:], chip.CRC(packet[:len(packet)-2]))
		if _, err := chip.Answer(r.Slot(0).Chip().Execute(packet)); err != nil {
			b.Fatal(err)
		}
	}
	_ = r.Close()
}
