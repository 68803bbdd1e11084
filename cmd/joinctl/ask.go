package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSecretFile bounds what is read of a file that holds one credential.
const maxSecretFile = 4 << 10

// readSecretLine reads the one line of a file, "-" for standard input. Errors
// name the file and never its content.
func (a *app) readSecretLine(path, what string) (string, error) {
	in := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		defer func() { _ = f.Close() }()
		a.warnIfOpen(f, what)
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxSecretFile+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	line := string(bytes.TrimSpace(b))
	if line == "" || len(b) > maxSecretFile || strings.ContainsAny(line, "\r\n") {
		return "", fmt.Errorf("%s: want exactly one line in %s", what, sourceName(path))
	}
	return line, nil
}

func sourceName(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// warnIfOpen says that others on this machine can read a file with a secret.
func (a *app) warnIfOpen(f *os.File, what string) {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		a.sayf("warning: others on this machine can read the %s in %s; 'chmod 600 %s'\n", what, f.Name(), f.Name())
	}
}

// confirm asks a person to type want before something that cannot be undone,
// unless it was confirmed on the command line.
func (a *app) confirm(confirmed bool, question, want, flag string) error {
	if confirmed {
		return nil
	}
	line := ""
	if f, ok := a.in.(*os.File); ok && isTerminal(f) {
		a.sayf("%s\nType %s to go on: ", question, want)
		line, _ = bufio.NewReader(a.in).ReadString('\n') // no line is no answer
	}
	switch {
	case line == "":
		return usagef("%s; to go on without being asked give %s", question, flag)
	case strings.TrimSpace(line) != want:
		return errors.New("not confirmed; nothing was done")
	}
	return nil
}
