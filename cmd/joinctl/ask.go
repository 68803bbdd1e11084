package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
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
	if runtime.GOOS == "windows" {
		return // rights are not in the mode there
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		a.sayf("warning: others on this machine can read the %s in %s; 'chmod 600 %s'\n", what, f.Name(), f.Name())
	}
}

// yesFlag registers the flag by which what cannot be undone is done without being
// asked.
func yesFlag(c *cobra.Command, yes *bool) {
	c.Flags().BoolVar(yes, "yes", false, "do it; without this flag it is only told what would be done")
}

// confirm stands before what cannot be undone. Unless it was confirmed on the
// command line a person is shown what would be done and asked to type want;
// where nobody can be asked it stays with being shown, and nothing is done.
func (a *app) confirm(confirmed bool, question, want, flag string) error {
	if confirmed {
		return nil
	}
	line := ""
	if f, ok := a.in.(*os.File); ok && isTerminal(f) && !a.flags.json {
		a.sayf("%s\nType %s to go on: ", question, want)
		line, _ = bufio.NewReader(a.in).ReadString('\n') // no line is no answer
	}
	switch {
	case line == "":
		if a.flags.json {
			if err := writeJSON(a.out, map[string]any{"dryRun": true, "would": question}); err != nil {
				return err
			}
		}
		return usagef("%s; nothing was done: to do it give %s", question, flag)
	case strings.TrimSpace(line) != want:
		return errors.New("not confirmed; nothing was done")
	}
	return nil
}
