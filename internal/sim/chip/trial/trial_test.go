package trial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery/internal/sim/chip/bus"
	"joinery/internal/sim/chip/tnglora"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

func setup(t *testing.T, f Firmware) *Setup {
	t.Helper()
	m, err := tnglora.Image(tnglora.Content{
		JoinEUI: lorawan.EUI64{1}, DevEUI: lorawan.EUI64{2}, NwkKey: []byte("NwkKey of a test"), AppKey: make([]byte, 16),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &Setup{Image: m, Firmware: f, Timeout: 30 * time.Second}
}

// firmware is a firmware that does join with an element behind a wire.
func firmware(join func(e *element.Element) ([]byte, error)) Firmware {
	return func(_ context.Context, address string) ([]byte, error) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		defer func() { _ = conn.Close() }()
		e, err := element.OnChip(bus.NewClient(conn, 0x59), false)
		if err != nil {
			return nil, err
		}
		out, err := join(e)
		return fmt.Appendf(nil, "join-request %x sent\n", out), err
	}
}

func unsigned(e *element.Element) []byte {
	return lorawan.JoinRequest{JoinEUI: e.JoinEUI(), DevEUI: e.DevEUI(), DevNonce: 7}.AppendUnsigned(nil)
}

func derive(e *element.Element) error {
	return e.DeriveAndStore(element.AppSKey, element.NwkKey, &[16]byte{2})
}

// careful asks after everything.
func careful(e *element.Element) ([]byte, error) {
	frame := unsigned(e)
	mic, err := e.ComputeCMAC(element.NwkKey, nil, frame)
	if err != nil {
		return nil, err
	}
	return append(frame, mic[:]...), derive(e)
}

// A firmware that asks after everything survives every fault; the faults happen, and
// the transient ones are ridden out.
func TestCareful(t *testing.T) {
	s := setup(t, firmware(careful))
	clean, err := s.Clean(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if clean.counts.commands < 5 || clean.counts.wakes != clean.counts.commands || clean.counts.transactions < 5*clean.counts.commands {
		t.Errorf("the clean run did %+v", clean.counts)
	}
	verdicts := map[Verdict]int{}
	list := slices.DeleteFunc(Faults(clean, 4), func(f string) bool { return strings.Contains(f, "slow") && f != "command 1 slow 300ms" })
	for _, fault := range list {
		r, err := s.Run(t.Context(), fault)
		if err != nil {
			t.Fatal(err)
		}
		if r.Hits == 0 {
			t.Errorf("%s: did not happen", fault)
		}
		if !r.Verdict.Good() {
			t.Errorf("%s: %s, %s", fault, r.Verdict, r.Detail)
		}
		verdicts[r.Verdict]++
	}
	if verdicts[Joined] < len(list)/3 || verdicts[Failed] < 5 {
		t.Errorf("of %d faults: %v", len(list), verdicts)
	}
}

// What firmware must not do is found, each kind of it.
func TestVerdicts(t *testing.T) {
	careless := firmware(func(e *element.Element) ([]byte, error) {
		frame := unsigned(e)
		mic, _ := e.ComputeCMAC(element.NwkKey, nil, frame) // the status is ignored
		_ = derive(e)
		return append(frame, mic[:]...), nil
	})
	s := setup(t, careless)
	for fault, want := range map[string]Verdict{
		"AES every error 0F": WrongMIC, "KDF every error 0F": Ignored, "KDF 1 error 05": Ignored, "Read every error 0F": Failed, "AES 1 crc": Joined,
	} {
		r, err := s.Run(t.Context(), fault)
		if err != nil || r.Verdict != want {
			t.Errorf("%s: %s, %s, %v, want %s", fault, r.Verdict, r.Detail, err, want)
		}
		if want == WrongMIC && !strings.Contains(r.Detail, "MIC of zeros") {
			t.Errorf("told of it: %s", r.Detail)
		}
	}
	// A KDF that never reaches the chip, since the wake before it failed, is one too few.
	clean, err := s.Clean(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	never := fmt.Sprintf("wake %d+* no-wake", clean.counts.wakes)
	if r, err := s.Run(t.Context(), never); err != nil || r.Verdict != Ignored || !strings.Contains(r.Detail, "slot 2 is missing") {
		t.Errorf("%s: %+v, %v", never, r, err)
	}
	// One that derives the network's keys alone joins, and is warned of.
	s = setup(t, nil)
	for _, app := range []bool{false, true} {
		s.Firmware = firmware(func(e *element.Element) ([]byte, error) {
			frame := unsigned(e)
			mic, err := e.ComputeCMAC(element.NwkKey, nil, frame)
			if app {
				err = errors.Join(err, derive(e))
			}
			return append(frame, mic[:]...), errors.Join(err, e.DeriveAndStore(element.FNwkSIntKey, element.NwkKey, &[16]byte{1}))
		})
		if r, err := s.Run(t.Context(), ""); err != nil || r.Verdict != Joined || (r.Warning == "") != app {
			t.Errorf("AppSKey derived %t: %+v, %v", app, r, err)
		}
	}
	s.Firmware = func(context.Context, string) ([]byte, error) { return []byte("all is well\n"), nil }
	if r, err := s.Run(t.Context(), ""); err != nil || r.Verdict != Silent {
		t.Errorf("silent: %+v, %v", r, err)
	}
	if _, err := s.Clean(t.Context()); err == nil {
		t.Error("a firmware that never joins can be tried")
	}
	s.Firmware = func(context.Context, string) ([]byte, error) { return nil, ErrCrashed }
	if r, err := s.Run(t.Context(), ""); err != nil || r.Verdict != Crashed {
		t.Errorf("crashed: %+v, %v", r, err)
	}
	s.Firmware = func(ctx context.Context, _ string) ([]byte, error) { <-ctx.Done(); return nil, errors.New("killed") }
	s.Timeout = time.Millisecond
	if r, err := s.Run(t.Context(), ""); err != nil || r.Verdict != Hung {
		t.Errorf("hung: %+v, %v", r, err)
	}
	if _, err := s.Run(t.Context(), "AES never"); err == nil {
		t.Error("nonsense was tried")
	}
}
