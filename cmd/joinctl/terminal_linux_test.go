package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal (pty(7)).
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

func TestConfirm(t *testing.T) {
	for typed, want := range map[string]bool{"Acme\n": true, " Acme \n": true, "acme\n": false, "yes\n": false, "\n": false} {
		person, program := terminal(t)
		if _, err := person.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		a := &app{in: program, err: &said}
		if err := a.confirm(false, "Really?", "Acme", "--yes"); (err == nil) != want {
			t.Errorf("typed %q: %v", typed, err)
		}
		if !strings.Contains(said.String(), "Really?\nType Acme to go on: ") {
			t.Errorf("asked %q", &said)
		}
	}
	nobody, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nobody.Close() }()
	for name, a := range map[string]*app{"nobody": {in: nobody, err: &bytes.Buffer{}}, "a pipe": {in: strings.NewReader("Acme\n"), err: &bytes.Buffer{}}} {
		err := a.confirm(false, "Really?", "Acme", "--yes")
		if _, ok := errors.AsType[usageError](err); !ok || !strings.Contains(err.Error(), "--yes") {
			t.Errorf("%s: %v", name, err)
		}
		if said := a.err.(*bytes.Buffer).String(); said != "" {
			t.Errorf("%s was asked %q", name, said)
		}
	}
	if err := (&app{}).confirm(true, "", "", ""); err != nil {
		t.Errorf("confirmed before: %v", err)
	}
}

// TestHiddenPrompt: what is typed is read and not shown, and an interrupt leaves
// the terminal as it was.
func TestHiddenPrompt(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("JOINCTL_API_KEY_FILE", "")
	person, program := terminal(t)
	var said bytes.Buffer
	a := &app{in: program, err: &said}
	hidden := func() bool {
		state, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO == 0
	}
	until := func(want bool) {
		for hidden() != want {
			time.Sleep(time.Millisecond)
		}
	}
	typed := make(chan error, 1)
	go func() {
		until(true)
		_, err := person.WriteString("jk_typed\n")
		typed <- err
	}()
	key, err := a.askKey(t.Context(), "https://js.example.com")
	if err != nil || key != "jk_typed" || <-typed != nil {
		t.Errorf("%q, %v", key, err)
	}
	if want := "API key for https://js.example.com (it is not shown): \n"; said.String() != want || hidden() {
		t.Errorf("said %q; hidden %v", &said, hidden())
	}
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		until(true)
		interrupt()
	}()
	if key, err := a.askKey(ctx, "x"); err == nil || key != "" || hidden() {
		t.Errorf("interrupted: %q, %v; hidden %v", key, err, hidden())
	}
}

// TestProgress: a bar for a person, now and then a line for a log.
func TestProgress(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.WriteString(strings.Repeat("x", 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	p := newProgress(&app{err: &log}, file)
	p.begin(0)
	p.at(1)
	if log.Len() != 0 {
		t.Errorf("said at once: %s", &log)
	}
	if _, err := p.Read(make([]byte, 400)); err != nil {
		t.Fatal(err)
	}
	p.said = p.said.Add(-2 * sayEvery)
	p.at(250)
	p.end()
	if log.String() != "250 rows, 40 % of the file\n" {
		t.Errorf("said %q", &log)
	}

	t.Setenv("TERM", "xterm")
	person, program := terminal(t)
	bar := newProgress(&app{err: program}, file)
	bar.begin(0)
	bar.read = 500
	time.Sleep(150 * time.Millisecond) // the bar is drawn at most every 100 ms
	bar.at(123)
	drawn := make([]byte, 4096)
	n, err := person.Read(drawn)
	if err != nil || !strings.Contains(string(drawn[:n]), "rows") {
		t.Errorf("drawn %q, %v", drawn[:n], err)
	}
	bar.end()
}
