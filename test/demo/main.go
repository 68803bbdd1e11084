// The demo tells the story of three devices, in a minute: made in a factory, imported,
// claimed, joined, and safe from those who replay, forge and pry, also after
// the server was killed. Everything is real: the programs as they ship, mutual
// TLS, a durable database. Everything lies in one temporary directory, which is
// removed in the end.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "\nthe demo failed:", err)
		os.Exit(1)
	}
}

// run tells the story in a directory that it removes, whatever happens.
func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "joinery-demo-")
	if err != nil {
		return err
	}
	defer func() {
		if e := os.RemoveAll(dir); err == nil {
			err = e
		}
	}()
	s := &story{out: out, dir: dir, began: time.Now()}
	defer func() { err = s.close(err) }()
	for _, chapter := range []func(context.Context) error{
		s.prepare, s.factory, s.importElements, s.claim, s.join, s.rejoin, s.refuse, s.crash,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	s.end()
	return nil
}

func binaries(dir string) string { return filepath.Join(dir, "bin") }
