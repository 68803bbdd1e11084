package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"joinery/internal/keyring"
	"joinery/internal/keyring/remote"
)

// socketFD is the descriptor on which a worker finds its end of the socket pair.
const socketFD = 3

// maxConfig bounds what a server tells a worker.
const maxConfig = 1 << 20

// Opened is a keyring that a worker serves.
type Opened struct {
	Keys    keyring.Verbs
	Backend string // what holds the keys: "pkcs11"
	Token   string // which one, for people
}

// ErrNoServer says that a worker was not started by a server.
var ErrNoServer = errors.New("this program is started by joinery serve, where keys.backend is pkcs11; it does nothing by itself")

// Serve is what the program of a worker does: it hears the server that started
// it, opens a keyring by what the server tells, and serves it until the server
// ends. Where open fails the server is told why, and the error is nil.
//
// Signals do not end it: what is meant for the service reaches worker and server
// alike, and the server has requests to finish first.
func Serve(log *slog.Logger, open func(ctx context.Context, config []byte) (Opened, error)) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	conn, err := inherited()
	if err != nil {
		return err
	}
	config, err := io.ReadAll(io.LimitReader(os.Stdin, maxConfig))
	if err != nil {
		return fmt.Errorf("read what to open: %w", err)
	}
	server, err := remote.AcceptClient(context.Background(), conn, log)
	if err != nil {
		return fmt.Errorf("hear the server: %w", err)
	}
	wanted := server.Wanted()
	// A library that hangs notices nothing; without a server there is no reason to
	// wait for it.
	unwanted := context.AfterFunc(wanted, func() {
		time.Sleep(lastWords)
		os.Exit(1)
	})
	opened, err := open(wanted, config)
	clear(config)
	if err != nil {
		log.Error("the keys cannot be opened", "error", err)
		return server.Refuse(err)
	}
	err = server.Serve(context.Background(), opened.Keys, remote.Info{Backend: opened.Backend, Token: opened.Token})
	unwanted()
	time.AfterFunc(lastWords, func() { os.Exit(1) })
	return errors.Join(err, opened.Keys.Close())
}

// lastWords is how long a worker without a server may take to close its token.
const lastWords = 3 * time.Second

// inherited gives the worker's end of the socket pair.
func inherited() (net.Conn, error) {
	f := os.NewFile(socketFD, "server")
	if f == nil {
		return nil, ErrNoServer
	}
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, ErrNoServer
	}
	if _, ok := conn.(*net.UnixConn); !ok {
		_ = conn.Close()
		return nil, ErrNoServer
	}
	return conn, nil
}
