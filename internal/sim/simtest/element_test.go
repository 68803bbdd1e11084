package simtest_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/sim/bootloader"
	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/bus"
	"joinery/internal/sim/chip/flash"
	"joinery/internal/sim/chip/tnglora"
	"joinery/internal/sim/command"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

const elementKeys = `JoinEUI,DevEUI,MACVersion,NwkKey,AppKey,Serial
70B3D57ED0000000,0004A310001FF9DA,1.1,2B7E151628AED2A6ABF7158809CF4F3C,000102030405060708090A0B0C0D0E0F,01238ebe20080bd527
70B3D57ED0000000,0004A310001FF9DB,1.0.4,,000102030405060708090A0B0C0D0E0F,
`

// served is a running `element serve`.
type served struct {
	t     *testing.T
	doors []string // addresses
	stop  func() error
	log   *strings.Builder
}

// serve starts the command and waits until its doors are open.
func serve(t *testing.T, doors int, args ...string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	s := &served{t: t, log: &strings.Builder{}}
	cmd := command.New()
	cmd.SetArgs(append([]string{"element", "serve", "--json"}, args...))
	cmd.SetOut(in)
	cmd.SetErr(s.log)
	done := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		_ = in.CloseWithError(err)
		done <- err
	}()
	s.stop = func() error { cancel(); return <-done }
	lines := bufio.NewScanner(out)
	for range doors {
		var d struct{ Protocol, Address, Element string }
		if !lines.Scan() {
			t.Fatalf("a door did not open: %v", s.stop())
		}
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		s.doors = append(s.doors, d.Address)
	}
	return s
}

// transaction connects to a door and does transactions; each is a frame and how many
// bytes answer it.
func (s *served) dial(door int) net.Conn {
	s.t.Helper()
	network, address := "tcp", s.doors[door]
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	c, err := net.Dial(network, address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func exchange(t *testing.T, c net.Conn, request []byte, want string) {
	t.Helper()
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want)/2)
	if _, err := io.ReadFull(c, got); err != nil || fmt.Sprintf("%x", got) != want {
		t.Fatalf("%x: got %x, %v, want %s", request, got, err, want)
	}
}

// wired sends a command over the door of bare transactions and expects an answer.
func wired(t *testing.T, c net.Conn, packet []byte, answer string) {
	t.Helper()
	exchange(t, c, []byte{'W', 0, 0, 0}, "01")
	exchange(t, c, append([]byte{'W', 0x59, 0, byte(len(packet) + 1), 3}, packet...), "01")
	exchange(t, c, []byte{'R', 0x59, 0, byte(len(answer) / 2)}, "01"+answer)
	exchange(t, c, []byte{'W', 0x59, 0, 1, 2}, "01")
}

// A firmware's join-request over each door; what a chip was told outlives the process;
// several elements at one door and at one each.
func TestElementServe(t *testing.T) {
	dir := t.TempDir()
	keys, state := filepath.Join(dir, "keys.csv"), filepath.Join(dir, "elements")
	writeFile(t, keys, []byte(elementKeys))
	if err := os.Chmod(keys, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--keys", keys, "--state", state, "--i2c", "unix:" + filepath.Join(dir, "i2c"), "--kit", "127.0.0.1:0", "--bridge", "127.0.0.1:0"}
	s := serve(t, 3, args...)
	c := s.dial(0)
	const readConfig, config = "\x07\x02\x80\x00\x00\x09\xad", "2301238ebe0000600220080bd527011100b20000018fbd858fce0fce0fce0fce0f75a6"
	wired(t, c, []byte(readConfig), config)
	derive := chip.Command(chip.OpKDF, 0x2A, 0x0200, append([]byte{1, 0, 0, 0, 2}, make([]byte, 15)...)...)
	wired(t, c, derive, "04000340")
	secret := encrypted(t, c)
	exchange(t, c, append([]byte{'S', 0, 0, 16}, "0004A310001FF9DB"...), "01")
	wired(t, c, chip.Command(chip.OpRead, 0x02, 10<<3|3), "0746394442")
	exchange(t, c, append([]byte{'S', 0, 0, 2}, "#7"...), "00")
	kit := s.dial(1)
	exchange(t, kit, []byte("E:w()\n"), fmt.Sprintf("%x", "00(04113343)\n"))
	exchange(t, kit, []byte("E:t(070280000009AD)\n"), fmt.Sprintf("%x", "00("+strings.ToUpper(config)+")\n"))
	exchange(t, s.dial(2), append([]byte{0, 11, 2, 0x11, 0xB2, 0xFF}, readConfig...), "00040211b200")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	s = serve(t, 2, "--state", state, "--i2c", "127.0.0.1:0", "--each", "--timing", "1us")
	if got := encrypted(t, s.dial(0)); got != secret {
		t.Error("the session key of slot 2 did not outlive the process")
	}
	exchange(t, s.dial(0), append([]byte{'S', 0, 0, 2}, "#1"...), "00")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

// encrypted gives what slot 2 makes of zeros.
func encrypted(t *testing.T, c net.Conn) string {
	t.Helper()
	packet := chip.Command(chip.OpAES, 0, 2, make([]byte, 16)...)
	exchange(t, c, []byte{'W', 0, 0, 0}, "01")
	exchange(t, c, append([]byte{'W', 0x59, 0, byte(len(packet) + 1), 3}, packet...), "01")
	answer := make([]byte, 20)
	for answer[0] != 1 { // not acknowledged while it computes
		if _, err := c.Write([]byte{'R', 0x59, 0, 19}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, answer[:1]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(c, answer[1:]); err != nil {
		t.Fatal(err)
	}
	exchange(t, c, []byte{'W', 0x59, 0, 1, 2}, "01")
	return fmt.Sprintf("%x", answer[1:])
}

// A firmware that is no device of the simulator's joins through an emulated element and
// the simulated network.
func TestRelay(t *testing.T) {
	b := newBench(t)
	s := serve(t, 1, "--config", b.path("sim/sim.json"), "--i2c", "127.0.0.1:0")
	defer func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}()
	e, err := element.OnChip(bus.NewClient(s.dial(0), 0x59), false)
	if err != nil {
		t.Fatal(err)
	}
	firmware, err := device.New(e, lorawan.MAC1_0_4, device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	join := func(args ...string) string {
		t.Helper()
		frame, err := firmware.JoinRequest()
		if err != nil {
			t.Fatal(err)
		}
		out, err := b.run(append([]string{"relay", hex.EncodeToString(frame)}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	accept, err := hex.DecodeString(join())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := firmware.HandleAccept(accept); err != nil || !got.CFList.IsPresent() {
		t.Errorf("the firmware took %+v, %v", got, err)
	}
	if accept := join("--cflist", "none"); len(accept) != 2*17 {
		t.Errorf("an accept without channels: %s", accept)
	}
	b.bad([]string{"relay", "zz"}, "46 hexadecimal digits")
	b.bad([]string{"relay", strings.Repeat("00", 23)}, "UnknownDevEUI")
	b.bad([]string{"relay", "--mac", "2.0", "00"}, "--mac")
	b.bad([]string{"relay", "--cflist", "x", "00"}, "--cflist")

	cmd := command.New()
	var out strings.Builder
	frame, err := firmware.JoinRequest()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SetIn(strings.NewReader(fmt.Sprintf("nonsense\n\n%x\n", frame)))
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"relay", "--config", b.path("sim/sim.json")})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(out.String())
	if accept, err := hex.DecodeString(lines[len(lines)-1]); err != nil || !strings.HasPrefix(out.String(), "refused want a join-request") {
		t.Errorf("line by line: %s", out.String())
	} else if _, err := firmware.HandleAccept(accept); err != nil {
		t.Errorf("the accept of a line: %v", err)
	}
}

// Elements of the silicon files are there with the identifiers of the devices, and a
// firmware that skips the AppSKey of 1.1 is warned of.
func TestElementServeSilicon(t *testing.T) {
	b := newBench(t)
	s := serve(t, 1, "--config", b.path("sim/sim.json"), "--i2c", "127.0.0.1:0")
	c := s.dial(0)
	want := b.elements[0].DevEUI
	packet := chip.Command(chip.OpRead, 0x02, 10<<3)
	exchange(t, c, []byte{'W', 0, 0, 0}, "01")
	exchange(t, c, append([]byte{'W', 0x59, 0, byte(len(packet) + 1), 3}, packet...), "01")
	exchange(t, c, []byte{'R', 0x59, 0, 5}, fmt.Sprintf("0107%x", fmt.Sprintf("%X", want[:2])))
	exchange(t, c, []byte{'W', 0x59, 0, 1, 2}, "01")
	for _, target := range []uint16{3, 5, 4} {
		wired(t, c, chip.Command(chip.OpKDF, 0x2A, target<<8, append([]byte{1, 0, 0, 0, 1, 9}, make([]byte, 14)...)...), "04000340")
	}
	encrypted(t, c)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if got := s.log.String(); !strings.Contains(got, fmt.Sprintf("element %X", want[:])) || !strings.Contains(got, "AppSKey") {
		t.Errorf("warned %q", got)
	}
}

func TestElementServeRefuses(t *testing.T) {
	dir := t.TempDir()
	keys, script := filepath.Join(dir, "keys.csv"), filepath.Join(dir, "script")
	writeFile(t, keys, []byte(elementKeys))
	writeFile(t, script, []byte("AES 1 explode\n"))
	if err := os.Chmod(keys, 0o644); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel() // so that a command which is not refused ends
	for want, args := range map[string][]string{
		"no element": nil, "chmod 600": {"--keys", keys}, "no fault": {"--blank", "1", "--faults", script},
		"--timing": {"--blank", "1", "--timing", "soon"}, "--blank": {"--blank", "-1"}, "--fault-every": {"--blank", "1", "--fault-every", "-1"},
		"--i2c": {"--blank", "2", "--each", "--i2c", "127.0.0.1:65535"},
	} {
		cmd := command.New()
		cmd.SetArgs(append([]string{"element", "serve"}, args...))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(ended); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

// The simulator's own device survives what goes wrong; a firmware that is a command is
// started with the element's address, and found out.
func TestElementCheck(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys.csv")
	writeFile(t, keys, []byte(elementKeys))
	check := func(args ...string) (string, error) {
		cmd := command.New()
		var out strings.Builder
		cmd.SetOut(&out)
		cmd.SetErr(io.Discard)
		cmd.SetArgs(append([]string{"element", "check", "--keys", keys}, args...))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	out, err := check("--step", "17")
	if err != nil || !strings.Contains(out, "neither 0") {
		t.Errorf("the simulated device: %v\n%s", err, out)
	}
	// It joins where nothing goes wrong; else the MIC is zeros, and all is well.
	zeros := "00000000d07ed5b370daf91f0010a304002a00"
	script := `case "$1" in 127.0.0.1:*) ;; *) exit 3;; esac; [ "$1" = "$JOINSIM_ELEMENT" ] && echo ` + zeros + `1c4073fa`
	out, err = check("--fault", "AES every error 0F", "--json", "--", "sh", "-c", script, "firmware", "{}")
	if !errors.Is(err, command.ErrFailed) || !strings.Contains(out, `"hits": 0`) || !strings.Contains(out, `"ok": false`) {
		t.Errorf("a firmware that needs no element: %v\n%s", err, out)
	}
	out, err = check("--fault", "AES every error 0F", "--", "sh", "-c", script, "firmware", "{}")
	if !errors.Is(err, command.ErrFailed) || !strings.Contains(out, "DID NOT HAPPEN") || !strings.Contains(out, "neither 0; did not happen 1") {
		t.Errorf("a fault that never happened: %v\n%s", err, out)
	}
	if out, err := check("--fault", "AES 1 nack", "--fault", "AES 999 nack"); !errors.Is(err, command.ErrFailed) || !strings.Contains(out, "did not happen 1") {
		t.Errorf("one fault of two happened: %v\n%s", err, out)
	}
	if out, err := check("--fault", "AES 1 nack", "--json"); err != nil || !strings.Contains(out, `"ok": true`) {
		t.Errorf("the fault happened: %v\n%s", err, out)
	}
	flag := filepath.Join(t.TempDir(), "ran")
	script = "[ -e " + flag + " ] && echo " + zeros + "00000000 || echo " + zeros + "1c4073fa; touch " + flag
	out, err = check("--fault", "AES every error 0F", "--", "sh", "-c", script)
	if !errors.Is(err, command.ErrFailed) || !strings.Contains(out, "WRONG MIC") || !strings.Contains(out, "MIC of zeros") {
		t.Errorf("a firmware that ignores errors: %v\n%s", err, out)
	}
	if _, err := check("--", "sh", "-c", "exit 0"); err == nil || !strings.Contains(err.Error(), "does not join") {
		t.Errorf("a firmware that does not join: %v", err)
	}
	if out, err := check("--fault", "AES 1 nack", "--", "sh", "-c", "kill -9 $$"); err == nil || !strings.Contains(err.Error(), "crashed") {
		t.Errorf("a firmware that crashes: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"--element", "2"}, {"--protocol", "spi"}, {"--state", "x"}, {"--timing", "x"}, {"--protocol", "kit"}} {
		if _, err := check(args...); err == nil || errors.Is(err, command.ErrFailed) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// A bootloader that speaks with the element over a socket has it verify what it boots;
// what SecureBoot keeps outlives the process, and what it closes opens with the power,
// which is the command's start.
func TestElementServeSecureBoot(t *testing.T) {
	maker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	image, err := tnglora.Image(tnglora.Content{Serial: [9]byte{1, 0x23, 8: 0x27}, NwkKey: make([]byte, 16), AppKey: make([]byte, 16)})
	if err != nil {
		t.Fatal(err)
	}
	ioKey, err := bootloader.Prepare(bootloader.Content{ReleaseKey: &maker.PublicKey, Element: image})
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "element.state")
	if err := flash.Create(state, []*chip.Image{image}); err != nil {
		t.Fatal(err)
	}
	digest := [32]byte{1}
	r, v, err := ecdsa.Sign(rand.Reader, maker, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	v.FillBytes(signature[32:])
	for start := range 2 {
		s := serve(t, 1, "--state", state, "--i2c", "127.0.0.1:0")
		e, err := bootloader.NewElement(bus.NewClient(s.dial(0), 0x59), ioKey)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := e.Counter(); err != nil || n != uint32(start) {
			t.Errorf("start %d: counter %d, %v", start, n, err)
		}
		if err := e.Accept([32]byte{2}, signature); !errors.Is(err, bootloader.ErrRefused) {
			t.Errorf("start %d: another image: %v", start, err)
		}
		if err := e.Accept(digest, signature); err != nil {
			t.Errorf("start %d: %v", start, err)
		}
		if err := errors.Join(e.CountUp(), e.Close(digest)); err != nil {
			t.Errorf("start %d: %v", start, err)
		}
		if err := e.Accept(digest, signature); !errors.Is(err, chip.Refused) {
			t.Errorf("start %d: once it is closed: %v", start, err)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
}
