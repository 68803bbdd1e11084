// Command joinery-hsm is the process that has a hardware token: it alone links the
// token's library and reads its PIN. joinery starts it, asks it for operations on
// keys, and starts another when it ends. It does nothing by itself.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"

	"joinery/internal/firmware"
	"joinery/internal/harden"
	"joinery/internal/keyring"
	"joinery/internal/keyring/custody"
	"joinery/internal/keyring/worker"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

// run is the program: it gives the exit code.
func run(args []string, stderr io.Writer) int {
	if len(args) == 1 && args[0] == ceremonyArgument {
		if answer := os.NewFile(answerFD, "answer"); answer != nil {
			return runCeremony(os.Stdin, answer, stderr)
		}
	}
	if len(args) == 1 && args[0] == custody.Argument {
		if answers := os.NewFile(custody.AnswerFD, "answers"); answers != nil {
			return runCustody(os.Stdin, answers, stderr)
		}
	}
	if len(args) == 1 && args[0] == firmware.TokenArgument {
		if answers := os.NewFile(firmware.TokenAnswerFD, "answers"); answers != nil {
			return runFirmware(os.Stdin, answers, stderr)
		}
	}
	if len(args) > 0 {
		fmt.Fprintf(stderr, "joinery-hsm: %v\n", worker.ErrNoServer)
		return 2
	}
	// First of all: from here on the process may hold secrets.
	if err := harden.Process(); err != nil {
		fmt.Fprintf(stderr, "joinery-hsm: %v\n", err)
		return 1
	}
	locked := harden.LockMemory()
	log := logger{to: stderr}
	err := worker.Serve(slog.New(&log), func(ctx context.Context, config []byte) (worker.Opened, error) {
		return openKeys(ctx, config, &log, locked)
	})
	if err != nil {
		fmt.Fprintf(stderr, "joinery-hsm: %v\n", err)
		return 1
	}
	return 0
}

// openKeys opens the token that the server names.
func openKeys(ctx context.Context, config []byte, log *logger, locked bool) (worker.Opened, error) {
	var c worker.TokenConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return worker.Opened{}, fmt.Errorf("what the server says cannot be read: %w", err)
	}
	log.configure(c)
	minimum, err := keyring.ParseLevel(c.MinimumLevel)
	if err != nil {
		return worker.Opened{}, fmt.Errorf("keys.pkcs11.minimum_level: %w", err)
	}
	pin, err := readPIN(c)
	if err != nil {
		return worker.Opened{}, err
	}
	defer clear(pin)
	slog.New(log).Debug("opening the token", "module", c.Module, "token", c.Token, "sessions", c.Sessions, "memory_locked", locked)
	token, err := openToken(ctx, Options{Module: c.Module, InitArgs: c.InitArgs, Token: c.Token, PIN: pin, Sessions: c.Sessions})
	if err != nil {
		return worker.Opened{}, err
	}
	if err := keyring.CheckCustody(token.Custody(), minimum); err != nil {
		_ = token.Close() // the first error is the one to tell
		return worker.Opened{}, fmt.Errorf("%w; take a token that can do more, or lower keys.pkcs11.minimum_level", err)
	}
	audit, err := openAudit(c.AuditFile)
	if err != nil {
		_ = token.Close()
		return worker.Opened{}, err
	}
	keys := worker.Guard(keyring.New(token), worker.GuardOptions{PerMinute: c.PerMinute, Audit: audit, Log: slog.New(log)})
	return worker.Opened{Keys: keys, Backend: "pkcs11", Token: c.Token}, nil
}

// openAudit opens the file in which answers are recorded; nil where there is none.
func openAudit(path string) (*worker.Audit, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // nothing is recorded then
	}
	return worker.OpenAudit(path)
}
