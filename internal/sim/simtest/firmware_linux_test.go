package simtest_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// compiled builds a C program, or with "-shared" a library, and gives its path.
func compiled(t *testing.T, dir, name string, args ...string) (out string) {
	t.Helper()
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler here")
	}
	out = filepath.Join(dir, name)
	build := exec.Command(compiler, append([]string{"-Wall", "-Wextra", "-Werror", "-O1", "-o", out}, args...)...)
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return out
}

// play runs a C program, which has to end well and say a line, the whole of it.
func play(t *testing.T, program []string, input, line string, env ...string) {
	t.Helper()
	if out, status := ran(t, program, input, env); status != 0 || !slices.Contains(strings.Split(out, "\n"), line) {
		t.Errorf("%v %v: got status %d and %s, want 0 and the line %q", program, env, status, out, line)
	}
}

// fails runs a C program, which has to end with a status, and say why.
func fails(t *testing.T, status int, program []string, input, why string, env ...string) {
	t.Helper()
	if out, got := ran(t, program, input, env); got != status || !strings.Contains(out, why) {
		t.Errorf("%v %v: got status %d and %s, want %d and %q", program, env, got, out, status, why)
	}
}

// ran runs a C program and gives what it said and its exit status, -1 of one that a signal
// ended.
func ran(t *testing.T, program []string, input string, env []string) (string, int) {
	t.Helper()
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Dir = t.TempDir()
	cmd.Env, cmd.Stdin = append(os.Environ(), env...), strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// The two ways into a firmware in C: the board layer of docs/element, which it is built
// with, and the library there, with which one that is built for /dev/i2c-1 runs as it
// is. Both do the recorded transactions of a driver, one by one, over TCP and over a
// Unix socket, with an element that takes its time.
func TestFirmwareInC(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys.csv")
	writeFile(t, keys, []byte(elementKeys))
	recorded, err := os.ReadFile("../chip/testdata/join-1.0.txt")
	if err != nil {
		t.Fatal(err)
	}
	board := compiled(t, dir, "board", "-std=c11", "testdata/driver.c", "../../../docs/element/board-i2c.c")
	linux := compiled(t, dir, "linux", "testdata/driver.c", "../../../docs/element/board-linux.c")
	devI2C := compiled(t, dir, "devi2c", "-D_FORTIFY_SOURCE=2", "testdata/devi2c.c", "-lpthread")
	preload := "LD_PRELOAD=" + compiled(t, dir, "i2c-preload.so", "-shared", "-fPIC", "../../../docs/element/i2c-preload.c")
	const noElement = 4 // the status of the board layers
	const join, info = "174 transactions", "wake\nread 4 = 04113343\nwrite 0730000000035d\nread 7 = 07000060028038\nidle\n"

	s := serve(t, 2, "--keys", keys, "--each", "--i2c", "unix:"+filepath.Join(dir, "element"))
	element := "JOINSIM_ELEMENT=" + s.doors[0]
	play(t, []string{board}, string(recorded), join, element)
	play(t, []string{linux}, string(recorded), join, element, preload)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = serve(t, 1, "--keys", keys, "--i2c", "127.0.0.1:0", "--timing", "200us")
	element = "JOINSIM_ELEMENT=" + s.doors[0]
	play(t, []string{board}, string(recorded), join, element, "JOINSIM_ELEMENT_NAME=0004A310001FF9DA")
	play(t, []string{linux}, string(recorded), join, element, preload, "JOINSIM_ELEMENT_NAME=0004A310001FF9DA", "JOINSIM_I2C=/dev/i2c-1")
	bracketed := "JOINSIM_ELEMENT=[127.0.0.1]" + s.doors[0][strings.LastIndex(s.doors[0], ":"):] // as [::1], where there may be none
	for _, program := range []string{board, linux} {
		play(t, []string{program}, info, "5 transactions", bracketed, preload)
	}
	play(t, []string{board}, "", "0 transactions", element, "JOINSIM_ELEMENT_NAME=#9") // asks nothing
	for _, program := range []string{board, linux} {
		play(t, []string{program}, info, "5 transactions", element, preload, "JOINSIM_ELEMENT_NAME=#1")
		fails(t, noElement, []string{program}, info, "of the name", element, preload, "JOINSIM_ELEMENT_NAME=#9")
	}
	fails(t, noElement, []string{linux}, info, "set JOINSIM_ELEMENT", "JOINSIM_ELEMENT=", preload)
	fails(t, noElement, []string{linux}, info, "HOST:PORT", "JOINSIM_ELEMENT=here", preload)
	fails(t, noElement, []string{linux}, info, "No such file or directory", element, preload, "JOINSIM_I2C=/dev/i2c-9999")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	fails(t, noElement, []string{board}, info, "nobody answers", element)
	fails(t, noElement, []string{linux}, info, "nobody answers", element, preload)

	s = serve(t, 2, "--keys", keys, "--i2c", "unix:"+filepath.Join(dir, "element"), "--kit", "unix:"+filepath.Join(dir, "kit"))
	play(t, []string{devI2C}, "", "0 wrong", "JOINSIM_ELEMENT="+s.doors[0], preload)
	hasty := compiled(t, dir, "hasty.so", "-shared", "-fPIC", "-DPATIENCE=50", "../../../docs/element/i2c-preload.c")
	play(t, []string{devI2C, "interrupted", "late"}, "", "0 wrong", preload)
	play(t, []string{devI2C, "interrupted", "silent"}, "", "0 wrong", "LD_PRELOAD="+hasty)
	kitOverTerminal(t, s.dial(1), compiled(t, dir, "kituart", "testdata/kituart.c"), preload)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

// kitOverTerminal: hosts of the kit protocol that know terminals only reach its door over
// a pseudo-terminal, with the library also those that set DTR.
func kitOverTerminal(t *testing.T, door net.Conn, host, preload string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = master.Close() }()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal := fmt.Sprintf("/dev/pts/%d", number)
	held, err := os.OpenFile(terminal, os.O_RDWR|unix.O_NOCTTY, 0) // so that it stays when a host closes it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	go func() { _, _ = io.Copy(door, master) }()
	go func() { _, _ = io.Copy(master, door) }()
	fails(t, 1, []string{host, terminal, "E:w()"}, "", "DTR", preload)
	play(t, []string{host, terminal, "E:t(0730000000035D)"}, "", "00(07000060028038)", preload, "JOINSIM_PTY=1")
}
