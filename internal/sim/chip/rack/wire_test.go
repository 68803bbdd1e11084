package rack

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/bus"
)

// Commands of many hosts to elements of one process over its sockets, each with wake,
// write, two reads and idle: six exchanges. What the hosts take is in it.
func BenchmarkOverTCP(b *testing.B)  { benchmarkOver(b, "tcp", "127.0.0.1:0") }
func BenchmarkOverUnix(b *testing.B) { benchmarkOver(b, "unix", filepath.Join(b.TempDir(), "socket")) }

func benchmarkOver(b *testing.B, network, address string) {
	r, err := Open(images(b, 64), Options{})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = bus.ServeI2C(b.Context(), l, r) }()
	packet := chip.Command(chip.OpAES, 0x40, 0, make([]byte, 16)...)
	b.SetParallelism(8)
	var (
		failed atomic.Bool
		host   atomic.Int32
	)
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial(network, l.Addr().String())
		if err != nil {
			failed.Store(true)
			return
		}
		defer func() { _ = conn.Close() }()
		name := fmt.Sprintf("#%d", host.Add(1)-1)
		if _, err := conn.Write(append([]byte{'S', 0, 0, byte(len(name))}, name...)); err != nil {
			failed.Store(true)
			return
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			failed.Store(true)
			return
		}
		c := bus.NewClient(conn, 0x59)
		for pb.Next() {
			if _, err := chip.Answer(c.Execute(packet)); err != nil {
				failed.Store(true)
				return
			}
		}
	})
	if failed.Load() {
		b.Fatal("a host met no answer")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
}
