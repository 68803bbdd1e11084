package remote_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/keyring/remote"
	"joinery/internal/keyring/soft"
)

// workerDir, in the environment, makes this program a worker over the software
// backend: one process serves what another asks for, as it really is.
const workerDir = "JOINERY_TEST_WORKER"

// echo in its place makes a process that sends back whatever it gets.
const echo = "echo"

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerDir); dir != "" {
		if err := work(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func work(dir string) error {
	conn, err := net.FileConn(os.NewFile(3, "keyring"))
	if err != nil {
		return err
	}
	if dir == echo {
		_, err := io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
		return err
	}
	server, err := remote.AcceptClient(context.Background(), conn, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	keys, err := open(dir)
	if err != nil {
		return server.Refuse(err)
	}
	err = server.Serve(context.Background(), keys, remote.Info{Backend: "soft"})
	_ = keys.Close()
	return err
}

func open(dir string) (*keyring.Keyring, error) {
	token, err := soft.Open(context.Background(), soft.Options{
		KeyFile: filepath.Join(dir, "keys"), Unlock: soft.Unlock{IdentityFile: filepath.Join(dir, "identity")},
	})
	if err != nil {
		return nil, err
	}
	return keyring.New(token), nil
}

// pair gives the two ends of a stream.
func pair(tb testing.TB) (here, there *os.File) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(tb, err)
	return os.NewFile(uintptr(fds[0]), "here"), os.NewFile(uintptr(fds[1]), "there")
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// connOf makes a connection of an end, which is closed.
func connOf(tb testing.TB, f *os.File) net.Conn {
	tb.Helper()
	conn, err := net.FileConn(f)
	must(tb, err)
	must(tb, f.Close())
	return conn
}

// startWorker starts this program as a worker on the keys in dir. It ends with
// the connection.
func startWorker(tb testing.TB, dir string) (net.Conn, *exec.Cmd) {
	tb.Helper()
	here, there := pair(tb)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), workerDir+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{there}
	must(tb, cmd.Start())
	must(tb, there.Close())
	tb.Cleanup(func() { _ = cmd.Wait() })
	return connOf(tb, here), cmd
}

// inWorker gives a fixture whose keys are in another process.
func inWorker(tb testing.TB) (keyringtest.Fixture, *remote.Client, *exec.Cmd) {
	tb.Helper()
	dir := tb.TempDir()
	master, err := keyringtest.NewSoftFile(dir, "maker-1")
	must(tb, err)
	conn, cmd := startWorker(tb, dir)
	client, err := remote.Dial(context.Background(), conn)
	must(tb, err)
	tb.Cleanup(func() { must(tb, client.Close()) })
	return keyringtest.Fixture{Keyring: client, Master: "maker-1", MasterKey: master}, client, cmd
}

// A keyring in another process passes the contract of every keyring.
func TestContract(t *testing.T) {
	keyringtest.Run(t, func(tb testing.TB) keyringtest.Fixture {
		f, _, _ := inWorker(tb)
		return f
	})
}
