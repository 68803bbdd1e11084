package flash

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/sim/chip"
)

// create makes a file of n chips and opens it.
func create(t *testing.T, n int) (path string, f *File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "elements")
	var images []*chip.Image
	for i := range n {
		images = append(images, chip.TNGLORA([chip.SerialSize]byte{1, 0x23, 7: byte(i)}))
	}
	if err := Create(path, images); err != nil {
		t.Fatal(err)
	}
	return path, open(t, path)
}

func open(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func chipOf(t *testing.T, f *File, i int) *chip.Chip {
	t.Helper()
	m, err := f.Image(i)
	if err != nil {
		t.Fatal(err)
	}
	return chip.New(m, chip.Options{Save: f.Saver(i)})
}

// count reads or increments counter 1.
func count(t testing.TB, c *chip.Chip, mode byte) uint32 {
	t.Helper()
	v, err := chip.Answer(c.Execute(chip.Command(chip.OpCounter, mode, 1)))
	if err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(v)
}

func TestMemoryOutlivesTheProcess(t *testing.T) {
	path, f := create(t, 3)
	for i := range 3 {
		c := chipOf(t, f, i)
		for range i + 4 {
			count(t, c, 1)
		}
	}
	if _, err := Open(path, false); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened twice: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = open(t, path)
	for i := range f.Len() {
		if got := count(t, chipOf(t, f, i), 0); got != uint32(i+4) {
			t.Errorf("chip %d remembers %d", i, got)
		}
	}
}

// Whatever is torn of the last write: the memory is that before it.
func TestTornWrite(t *testing.T) {
	for _, keep := range []int{0, 7, 8, 100, filled - 1} {
		path, f := create(t, 1)
		c := chipOf(t, f, 0)
		for range 3 {
			count(t, c, 1)
		}
		_ = f.Close()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// Number 4, the last, stands second; what it replaced was zeros or number 2.
		for i := keep; i < filled; i++ {
			b[pageSize+placeSize+i] ^= 0xA5
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := count(t, chipOf(t, open(t, path), 0), 0); got != 2 {
			t.Errorf("torn after %d bytes: the counter is %d, want 2", keep, got)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	path, f := create(t, 1)
	_ = f.Close()
	if err := Create(path, nil); err == nil {
		t.Error("a file was replaced")
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"empty": nil, "short": good[:pageSize+10], "other": append([]byte("x"), good[1:]...)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, false); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(path, append(good[:pageSize:pageSize], make([]byte, pageSize)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, path).Image(0); !errors.Is(err, ErrFormat) {
		t.Errorf("no whole place: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, false); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("others may read it: %v", err)
	}
}

// A chip that cannot keep a change does not make it.
func TestUnsavedIsUndone(t *testing.T) {
	m := chip.TNGLORA([chip.SerialSize]byte{1})
	c := chip.New(m, chip.Options{Save: func(*chip.Image) error { return errors.New("full") }})
	if _, err := chip.Answer(c.Execute(chip.Command(chip.OpCounter, 1, 1))); !errors.Is(err, chip.Health) {
		t.Errorf("got %v", err)
	}
	if got := count(t, c, 0); got != 0 {
		t.Errorf("the counter is %d", got)
	}
}

// killedFile names the file to the process that is killed.
const killedFile = "JOINERY_TEST_KILLED_ELEMENTS"

// A process that counts is killed at any command: what it was answered is there, and
// one command more at most.
func TestKilled(t *testing.T) {
	if path := os.Getenv(killedFile); path != "" {
		c := chipOf(t, open(t, path), 0)
		for {
			fmt.Println(count(t, c, 1))
		}
	}
	path, f := create(t, 1)
	_ = f.Close()
	before := uint32(0)
	for round := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), killedFile+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		answered := before
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 20+37*round {
				_ = cmd.Process.Kill()
			}
			// The kill may cut the last line.
			if _, err := fmt.Sscanln(lines.Text(), &answered); err != nil || answered < before {
				t.Fatalf("round %d: %q", round, lines.Text())
			}
			before = max(before, answered)
		}
		_ = cmd.Wait()
		f := open(t, path)
		got := count(t, chipOf(t, f, 0), 0)
		if got < before || got > before+1 {
			t.Fatalf("round %d: %d was answered, %d is there", round, before, got)
		}
		before = got
		_ = f.Close()
	}
}
