// Command joinsim plays devices, Network Server and Application Server against
// a LoRaWAN Join Server and checks every answer.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"joinery/internal/sim/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command.New().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, command.ErrFailed) {
			fmt.Fprintln(os.Stderr, "joinsim:", err)
		}
		os.Exit(1) //nolint:gocritic // stop has nothing to undo that exit does not
	}
}
